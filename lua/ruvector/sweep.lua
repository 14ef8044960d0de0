-- sweep.lua - the best single ef_search for a recall: the baseline that a person would find by
-- sweeping ef_search by hand, with the test queries as hindsight.
--
-- Doubling brackets the recall, then the bracket is narrowed until the least ef_search that reaches
-- it is found: next values come from interpolation (log of the misses against log of ef_search is
-- nearly a line), or from halving when interpolation stalls. Every measured point serves all goals.

local M = {}

local LIMIT = 10000 -- the largest ruvector.ef_search

-- Where the line through two measured points meets the recall: strictly between low and high.
local function interpolate(points, low, high, recall)
   local function misses(r) return math.log(math.max(1 - r, 1e-6)) end
   local y0, y1 = misses(points[low].recall), misses(points[high].recall)
   local share = y0 > y1 and (y0 - misses(recall)) / (y0 - y1) or 0.5
   local guess = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
   return math.min(high - 1, math.max(low + 1, math.floor(guess + 0.5)))
end

--- Finds, for each goal in ascending order, the least ef_search whose measured recall reaches it.
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

   local function least(goal)
      local low, high = bracket(goal)
      while not high do
         local ef = math.min(LIMIT, (low or start / 2) * 2)
         if at(ef).recall < goal and ef == LIMIT then
            error(("no ef_search up to %d reaches recall %.3f"):format(LIMIT, goal), 0)
         end
         low, high = bracket(goal)
      end
      low = low or 0
      local halve = false
      while high - low > 1 do
         local ef = math.floor((low + high) / 2)
         if not halve and points[low] and high - low > 4 then
            ef = interpolate(points, low, high, goal)
         end
         local before = high - low
         if at(ef).recall >= goal then high = ef else low = ef end
         halve = high - low > before / 2
      end
      return { ef_search = high, measured = at(high) }
   end

   local out = {}
   for i, goal in ipairs(goals) do out[i] = least(goal) end
   return out, count
end

return M
