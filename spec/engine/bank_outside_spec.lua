-- How far a query lies outside of the region that it was matched with.

local ffi = require("ffi")
local engine = require("ruvector.engine")

describe("the distance of a query from a region", function()
   local function outside(distance, radius)
      local pattern = ffi.new("rv_pattern", { radius = radius })
      local match = ffi.new("rv_bank_match", { pattern = pattern, distance = distance })
      return tonumber(engine.lib.rv_bank_match_outside(match))
   end

   it("is 0 within the radius and on it", function()
      assert.equal(0, outside(0, 2))
      assert.equal(0, outside(1.5, 2))
      assert.equal(0, outside(2, 2))
      assert.equal(0, outside(0, 0))
   end)

   it("is the share of the way that lies beyond the radius", function()
      assert.near(0.5, outside(4, 2), 1e-6)
      assert.near(0.75, outside(8, 2), 1e-6)
      assert.equal(1, outside(3, 0))
      assert.equal(1, outside(math.huge, 2))
   end)
end)
