-- tuning.lua - which setting an index gets from ruvector_auto_tune().
--
-- The curve holds the settings that were measured, by rising effort: `effort` (ef_search or probes),
-- mean `recall`, mean `distances`, mean `latency_us`. The goal is what the caller asked for:
--
--   recall     the least effort that reaches `recall_floor`
--   latency    the least effort that reaches `latency_floor`: of two settings the one with less effort is the
--              faster, whatever a short measurement says
--   balanced   the least product of work and misses, distances x (1 - recall), among those that reach
--              `balanced_floor`, and no more than `recall` would take: effort is spent as long as it takes
--              away a larger share of the misses than it adds to the work. `miss_floor` keeps the last
--              few misses from being worth any work
--
-- Where nothing reaches the floor, the least effort that comes within `tolerance` of the best recall.
-- Adaptive searches get the recall of the chosen setting as their target.

local floor, max, min = math.floor, math.max, math.min

local policy = {
   name = "tuning",
   contract = 1,
   version = "1.0.0",
   describe = "Least effort for a high or a modest recall, or the least product of work and misses.",
   defaults = {
      recall_floor = 0.99,
      latency_floor = 0.90,
      balanced_floor = 0.90,
      miss_floor = 0.005,
      tolerance = 0.001,
      least_target = 0.5,
      most_target = 0.99,
   },
}

local config = policy.defaults

-- The first point that reaches the recall, or nearly the best there is.
local function least_effort(curve, recall)
   local best = 0
   for i = 1, #curve do best = max(best, curve[i].recall) end
   for i = 1, #curve do
      if curve[i].recall >= min(recall, best - config.tolerance) then return i end
   end
   return #curve
end

local function product(point) return point.distances * (1 - point.recall + config.miss_floor) end

local choosers = {
   recall = function(curve) return least_effort(curve, config.recall_floor) end,
   latency = function(curve) return least_effort(curve, config.latency_floor) end,
   balanced = function(curve)
      local chosen = least_effort(curve, config.balanced_floor)
      for i = chosen + 1, least_effort(curve, config.recall_floor) do
         if curve[i].recall >= config.balanced_floor and product(curve[i]) < product(curve[chosen]) then
            chosen = i
         end
      end
      return chosen
   end,
}

function policy.choose(curve, goal)
   local point = choosers[goal](curve)
   local recall = floor(curve[point].recall * 1000 + 1e-9) / 1000
   return {
      point = point,
      target_recall = max(config.least_target, min(recall, config.most_target)),
   }
end

function policy.self_test(self)
   local curve = {
      { effort = 10, recall = 0.80, distances = 200, latency_us = 100 },
      { effort = 40, recall = 0.95, distances = 600, latency_us = 300 },
      { effort = 160, recall = 0.992, distances = 2400, latency_us = 1200 },
      { effort = 640, recall = 0.994, distances = 9600, latency_us = 4800 },
   }
   if self.choose(curve, "recall").point ~= 3 then return "recall is the least effort for its floor" end
   if self.choose(curve, "latency").point ~= 2 then return "latency is the least effort for its floor" end
   local balanced = self.choose(curve, "balanced").point
   if balanced ~= 2 and balanced ~= 3 then return "balanced must leave out both ends" end
   return true
end

return policy
