-- Rates: how much per second, lately.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

describe("a rate", function()
   local SPAN = 10
   local function started()
      local rate = ffi.new("rv_rate[1]")
      lib.rv_rate_start(rate, 5e6, SPAN)
      return rate
   end
   -- The same amount every 100 ms, from one second to another.
   local function steady(rate, from, to, amount)
      for tenth = 10 * from + 1, 10 * to do lib.rv_rate_add(rate, 5e6 + tenth * 1e5, amount) end
   end
   local function read(rate, second) return lib.rv_rate_read(rate, 5e6 + second * 1e6) end

   it("is nothing before anything has happened", function()
      local rate = started()
      assert.equal(0, read(rate, 0))
      assert.equal(0, read(rate, 3))
   end)

   it("is the mean from the very start", function()
      local rate = started()
      steady(rate, 0, 2, 0.05)
      assert.near(0.5, read(rate, 2), 0.01)
      steady(rate, 2, 60, 0.05)
      assert.near(0.5, read(rate, 60), 0.01)
   end)

   it("follows a change, and forgets", function()
      local rate = started()
      steady(rate, 0, 100, 0.05)
      steady(rate, 100, 110, 0.1)
      assert.near(1 - 0.5 * math.exp(-1), read(rate, 110), 0.02)
      assert.near(read(rate, 110) * math.exp(-3), read(rate, 140), 1e-6)
   end)

   it("stands still when the clock goes back", function()
      local rate = started()
      steady(rate, 0, 20, 0.1)
      local before = read(rate, 20)
      lib.rv_rate_add(rate, 6e6, 0)
      assert.near(before, read(rate, 20), 1e-12)
      assert.equal(0, lib.rv_rate_read(rate, 0))
   end)
end)
