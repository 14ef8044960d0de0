-- conservative.lua - an interpolation for searches that must not miss, such as compliance.
--
-- Nothing learned may make a search lazier than the calibration of the whole index: patterns near the
-- query can only add effort, never take it away, and `margin` is added on top. The price is the work
-- that regional patterns would have saved.

local policy = {
   name = "conservative",
   kind = "interpolation",
   version = "1.0.0",
   contract = 1,
   describe = "The most careful of the index-wide and the nearby patterns, and a margin on top.",
   defaults = {
      margin = 0.1, -- of the slack, and 0.01 at least
      min_similarity = 0.5, -- patterns farther away have no say
   },
}

local config = policy.defaults
local max, min, ceil = math.max, math.min, math.ceil

function policy.interpolate(_, patterns, defaults)
   local slack, ef_search, probes = defaults.slack, defaults.ef_search, defaults.probes
   for i = 1, #patterns do
      local pattern = patterns[i]
      if pattern.similarity >= config.min_similarity then
         slack = max(slack, pattern.slack)
         ef_search = max(ef_search, pattern.ef_search)
         probes = max(probes, pattern.probes)
      end
   end
   return {
      slack = min(slack + max(slack * config.margin, 0.01), 10),
      ef_search = min(ceil(ef_search * (1 + config.margin)), 100000),
      probes = min(ceil(probes * (1 + config.margin)), 100000),
   }
end

function policy.self_test(self)
   local defaults = { similarity = 1, slack = 0.2, ef_search = 80, probes = 4, confidence = 1 }
   local easier = { similarity = 0.9, slack = 0.1, ef_search = 40, probes = 2, confidence = 1 }
   local plan = self.interpolate({}, { easier }, defaults)
   if plan.slack <= 0.2 or plan.ef_search <= 80 then return "an easier pattern must not take effort away" end
   return true
end

return policy
