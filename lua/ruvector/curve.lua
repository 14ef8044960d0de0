-- curve.lua - arithmetic of comparing two searches: a cost at a recall that was not measured itself,
-- what perfect knowledge of every query would cost, means and their intervals, medians, and the ratio
-- of two systems over rounds.
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

-- The gains of one query, from its cheapest point upwards, each dearer per recall than the one before: the
-- upper hull of its points, since no mix of efforts does better. Appends {gain, cost} to `out`; returns the
-- recall and the cost of the cheapest point.
local function add_gains(points, out)
   local at = points[1]
   for _, point in ipairs(points) do
      if point.cost < at.cost or point.cost == at.cost and point.recall > at.recall then at = point end
   end
   local start = at
   while true do
      local best, best_slope
      for _, point in ipairs(points) do
         if point.recall > at.recall and point.cost > at.cost then
            local slope = (point.recall - at.recall) / (point.cost - at.cost)
            if not best or slope > best_slope or slope == best_slope and point.cost > best.cost then
               best, best_slope = point, slope
            end
         end
      end
      if not best then return start.recall, start.cost end
      out[#out + 1] = { gain = best.recall - at.recall, cost = best.cost - at.cost, slope = best_slope }
      at = best
   end
end

--- The least mean cost at which the mean recall of all queries reaches `recall`, when it is known of each
-- query what every effort would bring: effort goes where it gains most recall per cost. No search that
-- chooses among these efforts can cost less.
-- queries: an array; each an array of {recall, cost}, one for every effort that was measured, costs above 0.
-- Returns nil when even the best effort of every query does not reach the recall.
function M.perfect(queries, recall)
   local gains, reached, cost = {}, 0, 0
   for _, points in ipairs(queries) do
      local r, c = add_gains(points, gains)
      reached, cost = reached + r, cost + c
   end
   table.sort(gains, function(a, b) return a.slope > b.slope end)
   local goal = recall * #queries
   for _, step in ipairs(gains) do
      if reached >= goal then break end
      local share = math.min(1, (goal - reached) / step.gain)
      reached, cost = reached + share * step.gain, cost + share * step.cost
   end
   if reached < goal - 1e-9 * #queries then return nil end
   return cost / #queries
end

--- The mean of an array of numbers; nil of none.
function M.mean(values)
   local sum = 0
   for i = 1, #values do sum = sum + values[i] end
   return #values > 0 and sum / #values or nil
end

--- The mean of an array of numbers and the half width of its 95% interval by the normal approximation,
-- which needs some hundred values; the half width is nil of fewer than two.
function M.interval(values)
   local mean, squares = M.mean(values), 0
   if #values < 2 then return mean, nil end
   for i = 1, #values do squares = squares + (values[i] - mean) ^ 2 end
   return mean, 1.96 * math.sqrt(squares / (#values - 1) / #values)
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
