-- feedback_first.lua - a verdict for retrieval that feeds a language model.
--
-- What users found relevant counts most: the answer is built from the first few rows, and a row that
-- was relevant but not returned is a wrong answer. Where there is feedback it decides; where there is
-- none, recall does. Diversity has a say in both, since ten copies of one passage are one passage.
-- An embedding miss (a relevant row that lies far away) fails the search without asking for effort:
-- no effort finds it, another embedding might.

local lib = require("ruvector.policy")

local policy = {
   name = "feedback_first",
   kind = "verdict",
   version = "1.0.0",
   contract = 1,
   describe = "Users' feedback decides; without it recall does. Near copies among the results cost.",
   defaults = {
      feedback_weight = 0.7,
      recall_weight = 0.2,
      diversity_weight = 0.1,
      recall_tolerance = 0.1,
      diversity_full = 0.4,
      success_score = 0.7,
      far_miss_cost = 0.5, -- of an embedding miss, in relevant rows
   },
}

local config = policy.defaults

local function feedback_score(feedback)
   local relevant, missed = feedback.relevant or 0, feedback.missed_near or 0
   local far = (feedback.missed_far or 0) * config.far_miss_cost
   local rows = relevant + (feedback.irrelevant or 0) + missed + far
   if rows == 0 then return nil end
   return lib.clamp(relevant / rows, 0, 1)
end

local function recall_score(trajectory)
   local recall = trajectory.recall or trajectory.expected_recall
   if not recall or not trajectory.target_recall then return nil end
   return lib.clamp(1 - (trajectory.target_recall - recall) / config.recall_tolerance, 0, 1)
end

local function recommend(feedback, diversity)
   local texts = {}
   if (feedback.missed_near or 0) > 0 then texts[#texts + 1] = "index miss: raise effort" end
   if (feedback.missed_far or 0) > 0 then texts[#texts + 1] = "embedding miss: effort cannot help" end
   if diversity and diversity < 0.25 then
      texts[#texts + 1] = "near copies among the results: remove duplicates"
   end
   return texts
end

function policy.judge(trajectory)
   local feedback = trajectory.feedback
   local scores = {
      feedback = feedback_score(feedback),
      recall = recall_score(trajectory),
      diversity = trajectory.diversity and lib.clamp(trajectory.diversity / config.diversity_full, 0, 1),
   }
   local values, weights = {}, {}
   for _, name in ipairs({ "feedback", "recall", "diversity" }) do
      if scores[name] then
         values[#values + 1], weights[#weights + 1] = scores[name], config[name .. "_weight"]
      end
   end
   local score = #values > 0 and lib.weighted_mean(values, weights) or 1
   local index_miss = (feedback.missed_near or 0) > 0
   return {
      success = score >= config.success_score and not index_miss,
      confidence = scores.feedback and 1 or (trajectory.recall and 0.6 or 0.2),
      scores = scores,
      recommendations = recommend(feedback, scores.diversity),
   }
end

function policy.self_test(self)
   local function judge(feedback, recall)
      local trajectory = { feedback = feedback, recall = recall, target_recall = 0.95, diversity = 0.5 }
      return self.judge(trajectory).success
   end
   if not judge({}, 0.95) then return "without feedback a search at its target must succeed" end
   if judge({ relevant = 1, irrelevant = 5 }, 1) then return "irrelevant rows must fail it" end
   if judge({ relevant = 9, missed_near = 1 }, 1) then return "a missed relevant row must fail it" end
   return true
end

return policy
