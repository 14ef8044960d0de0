-- curve.lua - arithmetic of comparing two searches: a cost at a recall that was not measured itself,
-- medians, and the ratio of two systems over rounds.
--
-- Near a recall, the logarithm of a cost (time, distances) is close to a line in the logarithm of
-- the misses (1 - recall), so that is what is interpolated. Nothing is extrapolated: a recall beyond
-- the last point has no cost, one below the first costs what the first point costs, which is then the
-- least that was found for at least that recall.

local M = {}

local LEAST_MISSES = 1e-6

local function misses(recall) return math.log(math.max(1 - recall, LEAST_MISSES)) end

-- Not unpack, whose results must fit the stack: there may be thousands of values.
local function copy(values)
   local out = {}
   for i = 1, #values do out[i] = values[i] end
   return out
end

--- The cost at a recall. points: an array of {recall, cost} in ascending effort, costs above 0; where
-- recall falls as effort rises (noise), the first crossing counts. Returns nil when no point reaches
-- the recall.
function M.at_recall(points, recall)
   for i, point in ipairs(points) do
      if point.recall >= recall then
         local before = points[i - 1]
         if not before then return point.cost end
         local y0, y1 = misses(before.recall), misses(point.recall)
         local share = (y0 - misses(recall)) / (y0 - y1)
         return math.exp(math.log(before.cost) + share * (math.log(point.cost) - math.log(before.cost)))
      end
   end
   return nil
end

--- The median of an array of numbers (the mean of the middle two when their count is even); nil of none.
function M.median(values)
   local sorted = copy(values)
   table.sort(sorted)
   local middle = #sorted / 2
   if #sorted == 0 then return nil end
   if #sorted % 2 == 1 then return sorted[middle + 0.5] end
   return (sorted[middle] + sorted[middle + 1]) / 2
end

--- The median over rounds of a[i] / b[i]: what disturbs a round weighs on both sides of its ratio.
-- a, b: arrays of one length, b without zeros. nil of no rounds.
function M.median_ratio(a, b)
   assert(#a == #b, "rounds of both sides differ in number")
   local ratios = {}
   for i = 1, #a do ratios[i] = a[i] / b[i] end
   return M.median(ratios)
end

--- The q-quantile of an array of numbers by nearest rank; nil of none.
function M.quantile(values, q)
   local sorted = copy(values)
   table.sort(sorted)
   return sorted[math.max(1, math.ceil(q * #sorted))]
end

return M
