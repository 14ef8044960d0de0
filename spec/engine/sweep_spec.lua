-- The search for the best static ef_search, over made-up recall curves.

local sweep = require("ruvector.sweep")

-- A smooth curve like those of real indexes: the misses fall as a power of ef.
local function smooth(ef) return 1 - 0.6 * ef ^ -0.75 end

local function least_by_counting(curve, goal)
   local ef = 1
   while curve(ef) < goal do ef = ef + 1 end
   return ef
end

local function find(curve, goals, start)
   local measured = {}
   local best, count = sweep.find(goals, start, function(ef)
      assert.is_nil(measured[ef], "measured twice: " .. ef)
      assert.is_true(ef >= 1 and ef <= 10000 and ef == math.floor(ef))
      measured[ef] = true
      return { recall = curve(ef), at = ef }
   end)
   return best, count
end

describe("the search for the best static ef_search", function()
   local goals = { 0.95, 0.98, 0.99 }

   it("finds the least ef_search that reaches each recall, above 100 to within 1%", function()
      local best = find(smooth, goals, 10)
      for i, goal in ipairs(goals) do
         local least, found = least_by_counting(smooth, goal), best[i].ef_search
         assert.is_true(found >= least and found - least <= (least > 100 and 0.01 * least or 0), found)
         assert.equal(best[i].ef_search, best[i].measured.at)
         assert.is_true(best[i].measured.recall >= goal)
      end
   end)

   it("needs few measurements, each at another ef_search, and counts them", function()
      local _, count = find(smooth, goals, 10)
      assert.is_true(count <= 16, count .. " measurements")
   end)

   it("finds it on a curve of steps, where interpolation misleads", function()
      local function steps(ef) return ef < 77 and 0.9 or ef < 301 and 0.9501 or 0.995 end
      local best, count = find(steps, goals, 40)
      assert.equal(77, best[1].ef_search)
      assert.is_true(best[2].ef_search >= 301 and best[2].ef_search <= 304, best[2].ef_search)
      assert.equal(best[2].ef_search, best[3].ef_search)
      assert.is_true(count <= 25, count .. " measurements")
   end)

   it("goes below the start when the start already reaches the recall", function()
      local best = find(smooth, { 0.95 }, 640)
      assert.equal(least_by_counting(smooth, 0.95), best[1].ef_search) -- below 100: exact
      assert.equal(1, find(function() return 1 end, { 0.95 }, 40)[1].ef_search)
   end)

   it("says so when no ef_search reaches the recall", function()
      local ok, err = pcall(sweep.find, { 0.95 }, 40, function() return { recall = 0.9 } end)
      assert.is_false(ok)
      assert.matches("no ef_search up to 10000 reaches recall 0.950", err, 1, true)
   end)
end)
