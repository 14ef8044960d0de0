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
