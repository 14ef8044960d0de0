-- verdict.lua - was this search good, how sure is that, and what would help?
--
-- Up to four signals are scored from 0 (bad) to 1 (good); one that is not known is left out:
--
--   recall     1 when the target was met, 0 when it was missed by `recall_tolerance`. Where no exact
--              check was made, the recall that the bank promised stands in, at `promised_share` of
--              the weight
--   latency    1 up to the index's median, 0 from `latency_factor` times its 95th percentile
--   diversity  1 when the results lie as far from each other as `diversity_full` asks, 0 when they
--              are all the same row
--   feedback   the share of relevant rows among those judged by the user. Relevant rows that the
--              search missed although they were nearer than its last result count as bad: that is
--              the index's doing. Missed rows that lie farther are the embedding's doing, and no
--              search effort brings them back, so they do not count here
--
-- The mean of the scores by weight makes the success; a relevant row that the index missed makes a
-- failure by itself. The confidence is the share of the weights that was known, and falls when the
-- scores disagree.
--
-- A recommendation begins with one of these words, up to a colon if there is one; programs may
-- rely on them, and on nothing behind the colon:
--
--   raise target      an adaptive search found less than declared, which holds on average only
--   raise effort      a static search found less than declared, and more effort would have helped
--   index too coarse  the declared recall was out of reach, or took many times the usual work
--   lower effort      a static search did far more work than the declared recall takes
--   index miss        a relevant row nearer than the last result was not returned (feedback)
--   embedding miss    a relevant row lies farther than the results (feedback): effort cannot help
--   duplicate rows    the results are nearly copies of each other

local max, min, sqrt = math.max, math.min, math.sqrt
local format = string.format

-- The largest that an index takes.
local MAX_M, MAX_LISTS = 100, 32768

local policy = {
   name = "verdict",
   contract = 1,
   version = "1.1.0",
   describe = "Scores recall, latency, diversity and user feedback; "
      .. "success is their weighted mean above a threshold.",
   defaults = {
      success_threshold = 0.70,
      weight_recall = 0.5,
      weight_latency = 0.2,
      weight_diversity = 0.1,
      weight_feedback = 0.2,
      recall_tolerance = 0.2,
      promised_share = 0.5,
      latency_factor = 2,
      min_judged = 20, -- searches before the index's latencies mean something
      diversity_full = 0.5,
      coarse_factor = 8, -- needing this many times the usual work means a coarse index
      waste_factor = 3, -- doing this many times the needed work is waste
      duplicate_diversity = 0.05,
   },
}

local function clamp(value) return min(max(value, 0), 1) end

local function score_recall(trajectory, config)
   local recall = trajectory.recall or trajectory.expected_recall
   if not recall or not trajectory.target_recall then return nil end
   return clamp(1 - (trajectory.target_recall - recall) / config.recall_tolerance)
end

local function score_latency(trajectory, context, config)
   local median, slow = context.latency_p50_us, context.latency_p95_us
   if not trajectory.latency_us or not median or not slow then return nil end
   if (context.judged or 0) < config.min_judged or median <= 0 then return nil end
   local worst = slow * config.latency_factor
   if worst <= median then return nil end
   return clamp((worst - trajectory.latency_us) / (worst - median))
end

local function score_diversity(trajectory, config)
   return trajectory.diversity and clamp(trajectory.diversity / config.diversity_full)
end

local function score_feedback(feedback)
   local relevant = feedback.relevant or 0
   local rows = relevant + (feedback.irrelevant or 0) + (feedback.missed_near or 0)
   if rows <= 0 then return nil end
   return relevant / rows
end

-- Weighted mean of the known scores, the weight behind it, and how far they lie apart (0 to 1/2).
local function combine(scores, weights)
   local weight, sum, squares = 0, 0, 0
   for signal, score in pairs(scores) do
      weight = weight + weights[signal]
      sum = sum + weights[signal] * score
   end
   if weight <= 0 then return nil, 0, 0 end
   local mean = sum / weight
   for signal, score in pairs(scores) do
      squares = squares + weights[signal] * (score - mean) ^ 2
   end
   return mean, weight, sqrt(squares / weight)
end

-- Twice the parameter that the index was built with, as far as there is a larger one.
local function finer_index(context)
   if (context.lists or 0) >= MAX_LISTS then return "rebuild as ruhnsw" end
   if (context.lists or 0) > 0 then
      return "rebuild with lists = " .. format("%d", min(2 * context.lists, MAX_LISTS))
   end
   if (context.m or MAX_M) >= MAX_M then return "rebuild with larger ef_construction" end
   return "rebuild with m = " .. format("%d", min(2 * context.m, MAX_M))
end

-- What to do about the work, where the recall that it bought is known.
local function effort_advice(trajectory, context, config)
   local needed, usual = trajectory.needed_distances, context.mean_distances
   if trajectory.recall >= trajectory.target_recall then
      local wasted = needed and (trajectory.distances or 0) > config.waste_factor * needed
      return wasted and not trajectory.adaptive and "lower effort: adaptive search would do far less" or nil
   end
   if not needed or (usual and usual > 0 and needed > config.coarse_factor * usual) then
      return "index too coarse: " .. finer_index(context)
   end
   if trajectory.adaptive then return "raise target" end
   return "raise effort: ef_search or probes are low for the target; adaptive search would choose them"
end

local function recommend(trajectory, context, config)
   local advice = {}
   local function add(text) advice[#advice + 1] = text end

   if (trajectory.feedback.missed_near or 0) > 0 then
      add("index miss: a relevant row nearer than the last result was not found; raise target")
   end
   if (trajectory.feedback.missed_far or 0) > 0 then add("embedding miss: effort cannot help") end
   if trajectory.recall and trajectory.target_recall then add(effort_advice(trajectory, context, config)) end
   if trajectory.diversity and trajectory.diversity < config.duplicate_diversity then
      add("duplicate rows: the results are nearly the same")
   end
   return advice
end

function policy.judge(trajectory, context)
   local config = context.defaults
   local scores = {
      recall = score_recall(trajectory, config),
      latency = score_latency(trajectory, context, config),
      diversity = score_diversity(trajectory, config),
      feedback = score_feedback(trajectory.feedback),
   }
   local weights = {
      recall = config.weight_recall,
      latency = config.weight_latency,
      diversity = config.weight_diversity,
      feedback = config.weight_feedback,
   }
   local all = weights.recall + weights.latency + weights.diversity + weights.feedback
   if not trajectory.recall then weights.recall = weights.recall * config.promised_share end

   local mean, weight, spread = combine(scores, weights)
   local index_miss = (trajectory.feedback.missed_near or 0) > 0
   return {
      -- with nothing known nothing speaks against the search, and the confidence is 0
      success = not index_miss and (mean == nil or mean >= config.success_threshold),
      confidence = mean and clamp(weight / all * (1 - 2 * spread)) or 0,
      scores = scores,
      recommendations = recommend(trajectory, context, config),
   }
end

function policy.self_test(self)
   local context = { judged = 100, latency_p50_us = 500, latency_p95_us = 2000, defaults = self.defaults }
   local good = { recall = 1, target_recall = 0.95, latency_us = 400, diversity = 1, feedback = {} }
   local bad = { recall = 0.5, target_recall = 0.95, latency_us = 9000, feedback = { missed_near = 1 } }
   if not self.judge(good, context).success then return "a fast search with full recall must be a success" end
   if self.judge(bad, context).success then return "a slow search that missed half must be a failure" end
   return true
end

return policy
