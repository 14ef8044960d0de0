-- interpolation.lua - the parameters of one search, from the patterns nearest to its query.
--
-- Every adaptive search asks this question, so keep it short: it runs in the query's own time.
--
--   slack      the mean of what the patterns and the index-wide defaults say, in log(1 + slack),
--              weighted by similarity and confidence; at most `slack_ratio` times the default and
--              at least the default divided by it
--   ef_search  the hard bound on the beam is made from it. Blended like the slack, but never below
--              the default and at most `effort_ratio` times it: a bound that is too low would cut
--              recall without anyone noticing, a high one costs nothing while the slack stops sooner
--   probes     the same, for an index with lists
--
-- Without patterns the answer is the defaults. The defaults keep a weight of their own
-- (`default_weight`, measured in patterns of similarity and confidence 1), so a lone or a far pattern
-- moves little.

local log, exp, ceil = math.log, math.exp, math.ceil
local max, min = math.max, math.min

local policy = {
   name = "interpolation",
   contract = 1,
   version = "1.0.1",
   describe = "Blends what the nearest patterns say, by similarity and confidence, "
      .. "shrunk to the index-wide pattern.",
   defaults = {
      similarity_power = 8, -- how fast a pattern loses weight with distance
      default_weight = 0.5,
      slack_ratio = 3,
      slack_floor = 0.02, -- the slack may always rise to this, also from a default of 0
      effort_ratio = 4,
   },
}

-- Locals are quicker than fields, and this is asked by every search.
local power, default_weight = policy.defaults.similarity_power, policy.defaults.default_weight
local slack_ratio, slack_floor = policy.defaults.slack_ratio, policy.defaults.slack_floor
local effort_ratio = policy.defaults.effort_ratio

function policy.interpolate(_, patterns, defaults)
   local default_slack, default_ef, default_probes = defaults.slack, defaults.ef_search, defaults.probes
   local weight = default_weight
   local slack = weight * log(1 + default_slack)
   local ef_search = weight * log(default_ef)
   local probes = weight * log(default_probes)
   for i = 1, #patterns do
      local pattern = patterns[i]
      local share = pattern.similarity ^ power * pattern.confidence
      weight = weight + share
      slack = slack + share * log(1 + pattern.slack)
      ef_search = ef_search + share * log(pattern.ef_search)
      probes = probes + share * log(pattern.probes)
   end
   return {
      slack = min(max(exp(slack / weight) - 1, default_slack / slack_ratio),
         max(default_slack * slack_ratio, slack_floor)),
      -- whole efforts, from the default to effort_ratio times it
      ef_search = min(max(ceil(exp(ef_search / weight) - 1e-9), default_ef), default_ef * effort_ratio),
      probes = min(max(ceil(exp(probes / weight) - 1e-9), default_probes), default_probes * effort_ratio),
   }
end

function policy.self_test(self)
   local query = { k = 10, target_recall = 0.95 }
   local defaults = { similarity = 1, slack = 0.2, ef_search = 80, probes = 4, confidence = 1 }
   local alone = self.interpolate(query, {}, defaults)
   if math.abs(alone.slack - 0.2) > 1e-9 or alone.ef_search ~= 80 or alone.probes ~= 4 then
      return "without patterns the answer must be the defaults"
   end
   local harder = { similarity = 1, slack = 0.4, ef_search = 200, probes = 8, confidence = 1 }
   local blended = self.interpolate(query, { harder }, defaults)
   if blended.slack <= 0.2 or blended.slack >= 0.4 then return "a blend must lie between its parts" end
   return true
end

return policy
