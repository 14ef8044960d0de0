-- sweep.lua - the best single ef_search for a recall: the baseline that a person would find by
-- sweeping ef_search by hand, with the test queries as hindsight.
--
-- Doubling brackets the recall. The next value comes from interpolation (log of the misses against
-- log of ef_search is nearly a line), so it lands close; growing steps from there find the other
-- side, and halving ends it: the least ef_search that reaches the recall is then known, above 100
-- to within one percent. Every measured point serves all goals.

local M = {}

local LIMIT = 10000 -- the largest ruvector.ef_search
local PRECISION = 0.01

-- How close to the least ef_search is close enough.
local function precision(ef) return math.max(1, math.floor(PRECISION * ef)) end

-- Where the line through two measured points meets the recall: strictly between low and high.
local function interpolate(points, low, high, recall)
   local function misses(r) return math.log(math.max(1 - r, 1e-6)) end
   local y0, y1 = misses(points[low].recall), misses(points[high].recall)
   local share = y0 > y1 and (y0 - misses(recall)) / (y0 - y1) or 0.5
   local guess = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
   return math.min(high - 1, math.max(low + 1, math.floor(guess + 0.5)))
end

--- Finds, for each goal in ascending order, the least ef_search (within PRECISION) whose measured
-- recall reaches it.
-- start: the first ef_search, a guess from below; measure(ef) returns {recall, ...}. Returns an array of
-- {ef_search, measured} in the order of the goals, and how many measurements it took.
function M.find(goals, start, measure)
   local points, count = {}, 0

   local function at(ef)
      if not points[ef] then
         points[ef] = measure(ef)
         count = count + 1
      end
      return points[ef]
   end

   -- The tightest bracket among the measured points: low misses the goal, high reaches it.
   local function bracket(goal)
      local low, high
      for ef, point in pairs(points) do
         if point.recall >= goal then high = math.min(high or ef, ef) end
      end
      for ef in pairs(points) do
         if not high or ef < high then low = math.max(low or ef, ef) end
      end
      return low, high
   end

   -- Measures until the recall lies between two measured points, or high is as low as it can be.
   local function enclose(goal)
      while true do
         local low, high = bracket(goal)
         if low and high or high == 1 then return low or 0, high end
         local ef = high and math.floor(high / 2) or low and math.min(LIMIT, low * 2) or start
         if at(ef).recall < goal and ef == LIMIT then
            error(("no ef_search up to %d reaches recall %.3f"):format(LIMIT, goal), 0)
         end
      end
   end

   local function least(goal)
      local low, high = enclose(goal)
      local ef, step, first_side
      while high - low > precision(high) do
         ef = ef or interpolate(points, low, high, goal)
         local reached = at(ef).recall >= goal
         if reached then high = ef else low = ef end
         if first_side == nil then
            first_side, step = reached, precision(ef)
         elseif step then
            step = reached == first_side and 2 * step or nil
         end
         ef = step and (reached and high - step or low + step) or 0
         if ef <= low or ef >= high then ef = math.floor((low + high) / 2) end
      end
      return { ef_search = high, measured = at(high) }
   end

   local out = {}
   for i, goal in ipairs(goals) do out[i] = least(goal) end
   return out, count
end

return M
