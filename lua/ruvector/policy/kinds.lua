-- kinds.lua - what the policy tool has to know of each kind of policy: inputs to try it on, how to
-- call it, and how two answers differ.
--
-- Inputs are drawn from the whole range of the contract (lua/README.md), its ends included, by a
-- generator with a seed: the same seed gives the same inputs on every machine.

local policy_host = require("ruvector.policy_host")

local M = {}

-- ---- drawing -------------------------------------------------------------------------------

local Draw = {}
Draw.__index = Draw

--- A source of numbers. The multiplier and the modulus are Lehmer's (Park and Miller, 1988).
function M.draw(seed) return setmetatable({ state = seed % 2147483646 + 1 }, Draw) end

--- A number from 0 to 1.
function Draw:unit()
   self.state = self.state * 48271 % 2147483647
   return (self.state - 1) / 2147483646
end

--- A number from low to high; one time in ten an end of the range.
function Draw:from(low, high)
   local share = self:unit()
   if share < 0.05 then return low end
   if share < 0.10 then return high end
   return low + (high - low) * self:unit()
end

function Draw:whole(low, high) return math.floor(self:from(low, high) + 0.5) end

--- A number whose logarithm is even from low to high: for efforts and times.
function Draw:scale(low, high) return math.exp(self:from(math.log(low), math.log(high))) end

function Draw:chance(share) return self:unit() < share end

-- ---- verdict -------------------------------------------------------------------------------

local function verdict_input(draw)
   local k = draw:whole(1, 200)
   local function maybe(value) return draw:chance(0.8) and value or nil end
   return {
      k = k, returned = draw:whole(0, k), latency_us = draw:scale(1, 1e7),
      distances = draw:scale(1, 1e6), hops = draw:scale(1, 1e5), pages = draw:scale(1, 1e5),
      ef_search = draw:whole(1, 1000), slack = draw:from(0, 10), adaptive = draw:chance(0.5) and 1 or 0,
      target_recall = draw:from(0.5, 1), expected_recall = maybe(draw:from(0, 1)),
      recall = maybe(draw:from(0, 1)), score = maybe(draw:from(0, 10)),
      needed_distances = maybe(draw:scale(1, 1e6)), diversity = maybe(draw:from(0, 1)),
      feedback_relevant = draw:chance(0.3) and draw:whole(0, 20) or nil,
      feedback_irrelevant = draw:chance(0.3) and draw:whole(0, 20) or nil,
      feedback_missed_near = draw:chance(0.1) and draw:whole(0, 5) or nil,
      feedback_missed_far = draw:chance(0.1) and draw:whole(0, 5) or nil,
      index_judged = maybe(draw:whole(0, 10000)), index_latency_p50_us = maybe(draw:scale(1, 1e6)),
      index_latency_p95_us = maybe(draw:scale(1, 1e7)), index_mean_distances = maybe(draw:scale(1, 1e6)),
      index_mean_recall = maybe(draw:from(0, 1)), index_m = maybe(draw:whole(2, 100)),
   }
end

local function numbers_differ(a, b) return math.abs(a - b) > 1e-9 * math.max(1, math.abs(a), math.abs(b)) end

local function verdict_differences(a, b)
   local found = {}
   if a.success ~= b.success then
      found[#found + 1] = ("success %s -> %s"):format(tostring(a.success), tostring(b.success))
   end
   for _, name in ipairs({ "confidence", "recall", "latency", "diversity", "feedback" }) do
      if numbers_differ(a[name], b[name]) then
         found[#found + 1] = ("%s %.3g -> %.3g"):format(name, a[name], b[name])
      end
   end
   local before, after = table.concat(a.recommendations, "; "), table.concat(b.recommendations, "; ")
   if before ~= after then
      found[#found + 1] = ("recommends %s"):format(after == "" and "nothing" or '"' .. after .. '"')
   end
   return found
end

-- ---- interpolation -------------------------------------------------------------------------

local function advice(draw)
   return {
      similarity = draw:from(0, 1), slack = draw:from(0, 2), ef_search = draw:whole(1, 2000),
      probes = draw:whole(1, 200), expected_recall = draw:from(0, 1), confidence = draw:from(0, 1),
      samples = draw:whole(1, 1e6),
   }
end

local function interpolation_input(draw)
   local patterns = {}
   for i = 1, draw:whole(0, 8) do patterns[i] = advice(draw) end
   local defaults = advice(draw)
   defaults.similarity = 1
   return { defaults = defaults, patterns = patterns, target = draw:from(0.5, 1) }
end

local function number_differences(names)
   return function(a, b)
      local found = {}
      for _, name in ipairs(names) do
         if numbers_differ(a[name], b[name]) then
            found[#found + 1] = ("%s %.4g -> %.4g"):format(name, a[name], b[name])
         end
      end
      return found
   end
end

-- ---- distillation --------------------------------------------------------------------------

local function distillation_sample(draw, k)
   local sample = { query = {}, slacks = {}, efs = {}, distances = {}, nearest = {} }
   local near = draw:chance(0.5) and 0 or 3
   for i = 1, 4 do sample.query[i] = near + draw:unit() end
   local slack, ef, distances = 0, 1, 50
   for i = 1, k do
      local lost = draw:chance(0.02)
      slack = slack + draw:from(0, 0.05)
      ef, distances = ef + draw:whole(0, 10), distances + draw:whole(0, 60)
      sample.slacks[i], sample.efs[i], sample.distances[i] = lost and math.huge or slack, ef, distances
   end
   table.sort(sample.slacks)
   for i = 1, draw:whole(1, 8) do sample.nearest[i] = draw:whole(0, 1000) end
   sample.recall, sample.confidence = draw:from(0, 1), draw:from(0, 1)
   sample.age_s, sample.success = draw:scale(1, 1e7), draw:chance(0.8)
   return sample
end

local function distillation_input(draw)
   local samples, k = {}, draw:whole(1, 20)
   for i = 1, draw:whole(1, 300) do samples[i] = distillation_sample(draw, k) end
   return policy_host.batch(samples, {
      k = k, dim = 4, target_recall = draw:from(0.5, 0.999), min_samples = draw:whole(1, 100),
   })
end

local function distillation_differences(a, b)
   if #a ~= #b then return { ("%d patterns -> %d"):format(#a, #b) } end
   local found = {}
   for i = 1, #a do
      for row = 1, #a[i].table_slack do
         if numbers_differ(a[i].table_slack[row], b[i].table_slack[row]) then
            found[#found + 1] = ("pattern %d: slack for recall %.3g: %.4g -> %.4g"):format(i,
               policy_host.TARGETS[row], a[i].table_slack[row], b[i].table_slack[row])
            break
         end
      end
   end
   return found
end

-- ---- retention -----------------------------------------------------------------------------

local function pattern(draw, scope)
   local slack, ef, recall = draw:from(0, 0.1), draw:whole(1, 20), draw:from(0, 0.5)
   local slacks, efs, recalls = {}, {}, {}
   for row = 0, #policy_host.TARGETS - 1 do
      slack, ef = slack + draw:from(0, 0.3), ef + draw:whole(0, 50)
      recall = recall + (1 - recall) * draw:unit() * 0.3
      slacks[row], efs[row], recalls[row] = slack, ef, recall
   end
   return policy_host.pattern({
      scope = scope, samples = draw:whole(1, 1e6), usage = draw:whole(0, 1e6),
      confidence = draw:from(0, 1), radius = scope == 0 and 0 or draw:from(0, 2),
      mean_distances = draw:scale(1, 1e6), optimal_probes = draw:whole(1, 100),
      created_us = draw:whole(0, 1e9), updated_us = 1e9 + draw:whole(0, 1e9),
      table_slack = function(row) return slacks[row] end,
      table_ef = function(row) return efs[row] end,
      table_recall = function(row) return recalls[row] end,
   })
end

local function retention_input(draw)
   local scope = draw:chance(0.2) and 0 or 1
   return {
      a = pattern(draw, scope), b = pattern(draw, scope), weight = draw:from(0, 1),
      now_us = 2e9 + draw:scale(1, 3e14),
   }
end

-- The host's calls for retention return the built-in's answer when the policy fails and tell the
-- cause only by its counters.
local function failures(host)
   local by_cause = {}
   for cause, count in pairs(host:info("retention").by_cause) do by_cause[cause] = count end
   return by_cause
end

local function run_retention(host, input)
   host.logged = host.logged or host:collect_log()
   local before, logged = failures(host), host.logged
   local merged = host:merge(input.a, { 1, 0 }, input.b, { 0, 1 }, input.weight)
   local kept = host:keep(input.a, input.now_us)
   local result = { samples = merged.samples, confidence = merged.confidence, kept = kept and 1 or 0,
      slack = merged.slack, ef_search = merged.optimal_ef_search }
   for cause, count in pairs(failures(host)) do
      if count > before[cause] then
         return result, cause, logged[#logged] or { line = 0, reason = cause }
      end
   end
   return result, "ok", {}
end

-- ---- tuning and selection ------------------------------------------------------------------

local GOALS = { "recall", "latency", "balanced" }

local function tuning_input(draw)
   local curve, effort, recall, distances = {}, 0, draw:from(0, 0.9), 0
   for i = 1, draw:whole(1, 64) do
      effort, distances = effort + draw:whole(1, 50), distances + draw:scale(1, 1e4)
      recall = math.min(recall + (1 - recall) * draw:from(-0.01, 0.5), 1)
      curve[i] = { effort = effort, recall = math.max(recall, 0), distances = distances,
         latency_us = distances * draw:from(0.1, 2) }
   end
   return { curve = curve, goal = GOALS[draw:whole(1, 3)] }
end

local function selection_side(draw)
   local side = { cost = draw:scale(1e-6, 1e9) }
   if draw:chance(0.5) then
      side.searches, side.latency_us = draw:whole(0, 1e6), draw:scale(1, 1e7)
      side.distances = draw:scale(1, 1e6)
   end
   if draw:chance(0.5) then side.recall = draw:from(0, 1) end
   return side
end

local function selection_input(draw)
   local limit, selectivity = draw:whole(1, 1000), draw:scale(1e-6, 1)
   return {
      hnsw = selection_side(draw), ivfflat = selection_side(draw),
      features = { limit = limit, selectivity = selectivity, k = limit / selectivity,
         rows = draw:scale(1, 1e9), target_recall = draw:from(0.5, 1) },
   }
end

-- ---- healing -------------------------------------------------------------------------------

local function healing_input(draw)
   local function maybe(value) return draw:chance(0.8) and value or -1 end
   return policy_host.situation({
      hour = draw:from(0, 24), weekday = draw:whole(1, 7), load = maybe(draw:from(0, 16)),
      searches_per_second = maybe(draw:scale(1e-3, 1e5)), idle_s = maybe(draw:scale(1e-3, 1e6)),
      asked = draw:chance(0.2) and 1 or 0, waiting = draw:whole(1, 8192), used = draw:whole(0, 1e6),
      held_out = draw:whole(0, 1e4), min_samples = draw:whole(10, 1000),
      since_round_s = maybe(draw:scale(0.01, 1e7)),
      round_s = maybe(draw:scale(1e-3, 1e4)), gain = draw:chance(0.8) and draw:from(-1, 1) or 0 / 0,
      rows = maybe(draw:scale(1, 1e9)), links = maybe(draw:from(0, 32)), room = draw:whole(1, 32),
      budget = draw:from(0.01, 1),
   })
end

local healing_numbers = number_differences({ "queries", "rows_per_query", "links_per_node", "min_requests",
   "min_gain" })

local function healing_differences(a, b)
   local found = healing_numbers(a, b)
   if a.run ~= b.run then
      table.insert(found, 1, ("run %s -> %s"):format(tostring(a.run), tostring(b.run)))
   end
   return found
end

-- ---- the table -----------------------------------------------------------------------------

--- By the name of a kind: `input(draw)`, `run(host, input)` giving result, cause and failure,
--- `differences(a, b)` giving a list of texts.
M.kinds = {
   verdict = {
      functions = "judge", input = verdict_input, differences = verdict_differences,
      run = function(host, input) return host:judge(input) end,
   },
   interpolation = {
      functions = "interpolate", input = interpolation_input,
      differences = number_differences({ "slack", "ef_search", "probes" }),
      run = function(host, input) return host:interpolate(input.defaults, input.patterns, input.target) end,
   },
   distillation = {
      functions = "distill", input = distillation_input, differences = distillation_differences,
      run = function(host, input) return host:distill(input) end,
   },
   tuning = {
      functions = "choose", input = tuning_input,
      differences = number_differences({ "point", "target_recall" }),
      run = function(host, input) return host:choose(input.curve, input.goal) end,
   },
   selection = {
      functions = "predict", input = selection_input, differences = number_differences({ "hnsw", "ivfflat" }),
      run = function(host, input) return host:predict(input.hnsw, input.ivfflat, input.features) end,
   },
   healing = {
      functions = "heal", input = healing_input, differences = healing_differences,
      run = function(host, input) return host:heal(input) end,
   },
   retention = {
      functions = "merge and keep", input = retention_input, run = run_retention,
      differences = number_differences({ "kept", "samples", "confidence", "slack", "ef_search" }),
   },
}

--- The names of the kinds in order, for messages.
function M.names()
   local names = {}
   for name in pairs(M.kinds) do names[#names + 1] = name end
   table.sort(names)
   return names
end

return M
