-- The arithmetic of comparing two searches, over made-up curves.

local curve = require("ruvector.curve")

local function near(expected, seen)
   assert.is_true(math.abs(expected - seen) < 1e-9 * math.abs(expected), expected .. ", saw " .. seen)
end

describe("the cost at a recall", function()
   local points = { { recall = 0.90, cost = 1 }, { recall = 0.99, cost = 4 }, { recall = 0.999, cost = 64 } }

   it("is that of the point where the recall was measured", function()
      near(4, curve.at_recall(points, 0.99))
      near(64, curve.at_recall(points, 0.999))
   end)

   it("between two points lies on the line of log cost over log misses", function()
      near(2, curve.at_recall(points, 1 - math.sqrt(0.1 * 0.01))) -- half-way in both logarithms
      near(16, curve.at_recall(points, 1 - math.sqrt(0.01 * 0.001)))
   end)

   it("is exact for every recall on a curve that is such a line", function()
      local line = {}
      local function recall(ef) return 1 - 0.6 * ef ^ -0.75 end
      for i, ef in ipairs { 10, 20, 40, 80, 160 } do
         line[i] = { recall = recall(ef), cost = 3 * ef ^ 0.9 }
      end
      for _, ef in ipairs { 11, 33, 77, 159 } do near(3 * ef ^ 0.9, curve.at_recall(line, recall(ef))) end
   end)

   it("below the first point is the cost of the first, beyond the last there is none", function()
      near(1, curve.at_recall(points, 0.5))
      assert.is_nil(curve.at_recall(points, 0.9995))
      assert.is_nil(curve.at_recall({}, 0.5))
   end)

   it("takes the first crossing where recall falls, and a perfect recall", function()
      local bumpy = { { recall = 0.9, cost = 1 }, { recall = 0.96, cost = 2 }, { recall = 0.94, cost = 3 },
         { recall = 1, cost = 9 } }
      near(2, curve.at_recall(bumpy, 0.96))
      near(9, curve.at_recall(bumpy, 1))
   end)
end)

describe("the cost of perfect knowledge", function()
   -- Two queries: an easy one, and one that gains 0.4 for 10 and another 0.4 for 40.
   local easy = { { recall = 1, cost = 10 }, { recall = 1, cost = 20 }, { recall = 1, cost = 60 } }
   local hard = { { recall = 0.2, cost = 10 }, { recall = 0.6, cost = 20 }, { recall = 1, cost = 60 } }

   it("spends the effort where it gains", function()
      near(10, curve.perfect({ easy, hard }, 0.6)) -- both at their cheapest
      near(15, curve.perfect({ easy, hard }, 0.8)) -- the hard one a step further
      near(35, curve.perfect({ easy, hard }, 1))
   end)

   it("takes a step for a share of the queries when that is enough", function()
      near(12.5, curve.perfect({ easy, hard }, 0.7))
   end)

   it("skips an effort that gains less than a mix of its neighbours", function()
      local dented = { { recall = 0, cost = 10 }, { recall = 0.1, cost = 20 }, { recall = 1, cost = 30 } }
      near(20, curve.perfect({ dented }, 0.5))
   end)

   it("is not misled by an effort that costs more and finds less", function()
      near(10, curve.perfect({ { { recall = 0.9, cost = 10 }, { recall = 0.8, cost = 30 } } }, 0.9))
   end)

   it("is never above that of one effort for all", function()
      for _, recall in ipairs { 0.6, 0.8, 1 } do
         local best
         for i = 1, 3 do
            local mean, cost = (easy[i].recall + hard[i].recall) / 2, (easy[i].cost + hard[i].cost) / 2
            if mean >= recall then best = math.min(best or cost, cost) end
         end
         assert.is_true(curve.perfect({ easy, hard }, recall) <= best)
      end
   end)

   it("is nil for a recall that no effort reaches", function()
      assert.is_nil(curve.perfect({ easy, { { recall = 0.5, cost = 10 } } }, 0.8))
   end)
end)

describe("a mean and its interval", function()
   it("are those of the normal approximation", function()
      local mean, half = curve.interval { 1, 2, 3, 4, 5 } -- variance 2.5
      near(3, mean)
      near(1.96 * math.sqrt(2.5 / 5), half)
   end)

   it("is a point when all values are equal, and unknown of one value", function()
      assert.same({ 0.5, 0 }, { curve.interval { 0.5, 0.5, 0.5 } })
      assert.same({ 7 }, { curve.interval { 7 } })
      assert.is_nil(curve.mean {})
   end)
end)

describe("medians, ratios and quantiles", function()
   it("takes the middle, or the mean of the middle two, and leaves its argument in order", function()
      local values = { 5, 1, 3 }
      assert.equal(3, curve.median(values))
      assert.same({ 5, 1, 3 }, values)
      assert.equal(2.5, curve.median { 4, 1, 2, 3 })
      assert.is_nil(curve.median {})
   end)

   it("compares round by round, so a slow round of both leaves the ratio alone", function()
      assert.equal(2, curve.median_ratio({ 20, 2, 22 }, { 10, 1, 11 }))
      assert.equal(3, curve.median_ratio({ 30, 10, 40 }, { 10, 10, 10 }))
      assert.has_error(function() curve.median_ratio({ 1 }, { 1, 2 }) end)
   end)

   it("finds quantiles by nearest rank, of many values too", function()
      local values = {}
      for i = 1, 100000 do values[i] = 100001 - i end
      assert.equal(99000, curve.quantile(values, 0.99))
      assert.equal(1, curve.quantile(values, 0))
      assert.is_nil(curve.quantile({}, 0.5))
   end)
end)
