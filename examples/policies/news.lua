-- news.lua - a distillation for queries whose subjects come and go within days.
--
-- The shipped policy lets a recorded search count half after two weeks. Where yesterday's questions
-- say little about today's, that mixes topics that nobody asks for any more into every table. Here a
-- search counts half after `half_life_hours`, and when few recent ones are left the margin grows with
-- what they do not know: the interval of a share by Wilson's score.
--
-- Only one pattern is made, for the whole index: regions would be of yesterday's topics.

local lib = require("ruvector.policy")
local kernels_of = require("ruvector.kernels")

local policy = {
   name = "news",
   kind = "distillation",
   version = "1.0.0",
   contract = 1,
   describe = "Recent searches decide: a half-life of hours, and a margin that grows when few are left.",
   defaults = {
      half_life_hours = 36,
      confidence = 0.8, -- of the interval that makes the margin
      entry_points = 8,
   },
}

-- Weights of the samples, and how many full ones they amount to.
local function weigh(batch, config)
   local weights, total = {}, 0
   for i = 1, batch.count do
      weights[i] = lib.decay(math.max(batch.age_s[i], 0) / 3600, config.half_life_hours)
      total = total + weights[i]
   end
   return weights, total
end

-- The target and its margin: what lies between a share and the upper end of its interval, for as many
-- neighbours as the recent searches have; at most half the way to 1.
local function careful(target, neighbours, config)
   local _, high = kernels_of.wilson(target * neighbours, neighbours, config.confidence)
   return math.min(high, (1 + target) / 2)
end

function policy.distill(batch, kernels, config)
   local weights, total = weigh(batch, config)
   if batch.count < math.max(batch.min_samples, 1) or total < 1 then return {} end
   kernels.weigh(weights)
   local slacks, efs, recalls = {}, {}, {}
   for i, target in ipairs(batch.targets) do
      local wanted = careful(target, total * batch.k, config)
      local slack, ef = kernels.slack_quantile(wanted), kernels.ef_quantile(wanted)
      if slack == math.huge then slack = kernels.highest_slack() end
      if ef == math.huge then ef = kernels.highest_ef() end
      slacks[i] = lib.clamp(slack, slacks[i - 1] or 0, 10)
      efs[i] = lib.clamp(ef, efs[i - 1] or batch.k, 100000)
      recalls[i] = math.max(kernels.recall_at(slacks[i]), recalls[i - 1] or 0)
   end
   return {
      {
         cluster = 0, confidence = total / (total + 100), probes = 1, entry_points = config.entry_points,
         table_slack = slacks, table_ef = efs, table_recall = recalls,
      },
   }
end

function policy.self_test(self)
   local weights, total = weigh({ count = 2, age_s = { 0, 36 * 3600 } }, self.defaults)
   if weights[1] ~= 1 or weights[2] ~= 0.5 or total ~= 1.5 then
      return "a search must count half after its half-life"
   end
   if careful(0.95, 100, self.defaults) <= careful(0.95, 10000, self.defaults) then
      return "few samples must ask for a larger margin"
   end
   return true
end

return policy
