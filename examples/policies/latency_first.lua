-- latency_first.lua - a verdict for searches that a person waits for.
--
-- A search is good when it was quick. Recall counts only as a floor: below `recall_floor` of the target
-- the search failed, however quick it was; above, more recall does not make up for time. "Quick" is
-- relative to the index's own searches, so the same file serves a small table and a large one: full
-- score up to the median, none at `slow_factor` times the 95th percentile.

local lib = require("ruvector.policy")

local policy = {
   name = "latency_first",
   kind = "verdict",
   version = "1.0.0",
   contract = 1,
   describe = "Quick searches are good ones, as long as recall stays above a floor.",
   defaults = {
      recall_floor = 0.9, -- share of the target recall that must be met
      slow_factor = 1.5,
      success_score = 0.5,
      min_judged = 20, -- searches of the index before its quantiles mean anything
   },
}

local config = policy.defaults

local function latency_score(trajectory, context)
   local quick, slow = context.latency_p50_us, context.latency_p95_us
   if not (trajectory.latency_us and quick and slow) then return nil end
   if (context.judged or 0) < config.min_judged then return nil end
   local limit = slow * config.slow_factor
   if limit <= quick then return nil end
   return lib.clamp((limit - trajectory.latency_us) / (limit - quick), 0, 1)
end

local function recall_score(trajectory)
   local recall = trajectory.recall or trajectory.expected_recall
   if not recall or not trajectory.target_recall then return nil end
   return recall >= trajectory.target_recall * config.recall_floor and 1 or 0
end

function policy.judge(trajectory, context)
   local latency, recall = latency_score(trajectory, context), recall_score(trajectory)
   local recommendations = {}
   if recall == 0 then recommendations[1] = "recall below its floor: raise effort" end
   if latency and latency < config.success_score then
      recommendations[#recommendations + 1] =
         "slow for this index: lower the target recall, or use compact storage"
   end
   return {
      success = recall ~= 0 and (latency == nil or latency >= config.success_score),
      confidence = latency and (trajectory.recall and 1 or 0.7) or 0.3,
      scores = { latency = latency, recall = recall },
      recommendations = recommendations,
   }
end

function policy.self_test(self)
   local index = { judged = 100, latency_p50_us = 100, latency_p95_us = 400 }
   local function judge(latency_us, recall)
      return self.judge({ latency_us = latency_us, recall = recall, target_recall = 0.95 }, index).success
   end
   if not judge(90, 0.9) then return "a quick search with enough recall must succeed" end
   if judge(90, 0.5) then return "no speed makes up for recall below the floor" end
   if judge(600, 1) then return "a slow search must fail" end
   return true
end

return policy
