-- retention.lua - what stays in the bank, and how two patterns become one.
--
--   merge(a, b, weight)   a is the older pattern, b the newer; weight (0 to 1) is b's share. Efforts
--                         are averaged on a logarithmic scale, where the effort for a recall is
--                         nearly even; everything else plainly. Entry points and usage are joined
--                         by the host.
--   keep(pattern, now)    a pattern is dropped when it is hardly used and weak and has not been
--                         renewed for long. Any one of the three saves it.
--
-- now, created_s and updated_s are seconds on one and the same clock.

local log, exp = math.log, math.exp
local max, min, floor = math.max, math.min, math.floor

local policy = {
   name = "retention",
   contract = 1,
   version = "1.0.0",
   describe = "Merges alike patterns by weight; drops those that are little used, weak and old.",
   defaults = {
      min_usage = 2, -- searches
      min_confidence = 0.3,
      max_idle_days = 30,
      max_samples = 1000000, -- the count of a merged pattern stops growing here
   },
}

local config = policy.defaults

local function mean(a, b, weight) return (1 - weight) * a + weight * b end

-- The weighted mean of log(offset + value), back on the plain scale.
local function effort_mean(a, b, weight, offset)
   return exp(mean(log(offset + a), log(offset + b), weight)) - offset
end

-- Entry by entry; what never fell in both never falls in the mean. max keeps rounding from undoing that.
local function table_mean(a, b, weight, how, offset)
   local merged = {}
   for i = 1, #a do
      merged[i] = max(how(a[i], b[i], weight, offset), merged[i - 1] or 0)
   end
   return merged
end

function policy.merge(a, b, weight)
   return {
      centroid_weight = weight,
      samples = floor(min(a.samples + b.samples, config.max_samples)),
      confidence = min(mean(a.confidence, b.confidence, weight), 1),
      radius = mean(a.radius, b.radius, weight),
      mean_distances = mean(a.mean_distances, b.mean_distances, weight),
      probes = floor(mean(a.probes, b.probes, weight) + 0.5),
      table_slack = table_mean(a.table_slack, b.table_slack, weight, effort_mean, 1),
      table_ef = table_mean(a.table_ef, b.table_ef, weight, effort_mean, 0),
      table_recall = table_mean(a.table_recall, b.table_recall, weight, mean),
   }
end

function policy.keep(pattern, now)
   local idle_days = (now - pattern.updated_s) / 86400
   return pattern.usage >= config.min_usage
      or pattern.confidence >= config.min_confidence
      or idle_days <= config.max_idle_days
end

function policy.self_test(self)
   local old = {
      samples = 100, confidence = 0.4, radius = 1, mean_distances = 500, probes = 1,
      table_slack = { 0.1, 0.2 }, table_ef = { 20, 40 }, table_recall = { 0.5, 0.9 },
   }
   local new = {
      samples = 300, confidence = 0.8, radius = 2, mean_distances = 700, probes = 3,
      table_slack = { 0.1, 0.4 }, table_ef = { 20, 80 }, table_recall = { 0.5, 0.8 },
   }
   local merged = self.merge(old, new, 0.5)
   if merged.samples ~= 400 then return "a merged pattern has the samples of both" end
   if merged.table_slack[2] <= 0.2 or merged.table_slack[2] >= 0.4 then
      return "a merged slack must lie between the two"
   end
   local weak = { usage = 0, confidence = 0.1, updated_s = 0 }
   if self.keep(weak, 365 * 86400) then return "an unused, weak and old pattern must go" end
   if not self.keep(weak, 3600) then return "a pattern renewed an hour ago must stay" end
   return true
end

return policy
