-- policy_host.lua - the policy host through FFI: plain tables in and out.
--
-- What the specs and the policy tool call is the library that the server runs, so a policy that
-- passes here behaves the same there.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib
local C = engine.host()

-- A log callback must not be reached from compiled code.
if jit then jit.off(true, true) end

local M = {}

M.KINDS = { verdict = 0, distillation = 1, interpolation = 2, retention = 3, tuning = 4, selection = 5,
   healing = 6 }
M.TARGETS = {}
for i = 0, engine.TARGETS - 1 do
   M.TARGETS[i + 1] = lib.rv_target_grid()[i]
end

local Host = {}
Host.__index = Host

local function cause_name(cause) return ffi.string(C.rv_host_cause_name(cause)) end

local function failure_table(failure)
   local f = failure[0]
   return {
      cause = cause_name(f.cause),
      kind = ffi.string(C.rv_policy_kind_name(f.kind)),
      file = ffi.string(f.file),
      line = f.line,
      reason = ffi.string(f.reason),
   }
end

--- The version of what a policy of a kind gets and returns.
function M.contract(kind) return C.rv_policy_contract(M.KINDS[kind]) end

--- Wraps an rv_host pointer that the caller made.
function M.wrap(c, allocator)
   return setmetatable({ c = c, allocator = allocator, failure = ffi.new("rv_host_failure[1]") }, Host)
end

--- A host. options: directory, fuel, memory, allocator (an rv_allocator pointer).
function M.new(options)
   options = options or {}
   local self = setmetatable({ failure = ffi.new("rv_host_failure[1]") }, Host)
   local c, out, err = ffi.new("rv_host_options[1]"), ffi.new("rv_host *[1]"), engine.error_buffer()
   self.allocator = options.allocator or engine.allocator
   c[0].directory, c[0].fuel, c[0].memory = options.directory, options.fuel or 0, options.memory or 0
   c[0].allocator = self.allocator
   engine.check(C.rv_host_create(c, out, err), err)
   self.c = out[0]
   return self
end

function Host:destroy()
   C.rv_host_destroy(self.c)
   self.c = nil
   if self.callback then self.callback:free() end
   self.callback = nil
end

--- Loads a directory; the cause's name and what failed.
function Host:load(directory)
   local cause = C.rv_host_load(self.c, directory, self.failure)
   return cause_name(cause), failure_table(self.failure)
end

--- What was loaded as a string of bytes, for import.
function Host:export()
   local size, err = ffi.new("size_t[1]"), engine.error_buffer()
   C.rv_host_export(self.c, nil, 0, size, err)
   local block = ffi.new("char[?]", size[0])
   engine.check(C.rv_host_export(self.c, block, size[0], size, err), err)
   return ffi.string(block, size[0])
end

--- Loads what another host exported; the cause's name and what failed.
function Host:import(block)
   local cause = C.rv_host_import(self.c, block, #block, self.failure)
   return cause_name(cause), failure_table(self.failure)
end

local function info_table(i)
   local by_cause = {}
   for cause = 0, 8 do
      by_cause[cause_name(cause)] = tonumber(i.failures_by_cause[cause])
   end
   return {
      kind = ffi.string(C.rv_policy_kind_name(i.kind)), id = ffi.string(i.id),
      name = ffi.string(i.name), version = ffi.string(i.version), describe = ffi.string(i.describe),
      file = ffi.string(i.file), calls = tonumber(i.calls), failures = tonumber(i.failures),
      source = i.source ~= nil and ffi.string(i.source, i.source_size) or nil,
      by_cause = by_cause, mean_us = i.mean_us, worst_us = i.worst_us,
   }
end

function Host:info(kind)
   local info = ffi.new("rv_policy_info[1]")
   C.rv_host_info(self.c, M.KINDS[kind], info)
   return info_table(info[0])
end

--- Every policy that was loaded, by its id and in order.
function Host:policies()
   local list, info = {}, ffi.new("rv_policy_info[1]")
   for i = 0, C.rv_host_policy_count(self.c) - 1 do
      C.rv_host_policy(self.c, i, info)
      local policy = info_table(info[0])
      list[i + 1], list[policy.id] = policy, policy
   end
   return list
end

--- Lets a policy serve a kind; nil for the default one. The cause's name.
function Host:use(kind, id) return cause_name(C.rv_host_use(self.c, M.KINDS[kind], id)) end

--- What the last call cost, in instructions and bytes; counting makes them exact.
function Host:counting(on) C.rv_host_set_counting(self.c, on) end

function Host:cost()
   local cost = C.rv_host_last_cost(self.c)
   return tonumber(cost.instructions), tonumber(cost.bytes)
end

--- Collects logged failures into the returned list.
function Host:collect_log()
   local list = {}
   if self.callback then self.callback:free() end
   self.callback = ffi.cast("rv_host_log_fn", function(_, failure)
      list[#list + 1] = failure_table(failure)
   end)
   C.rv_host_set_log(self.c, self.callback, nil)
   return list
end

local SIGNALS = {
   "k", "returned", "latency_us", "distances", "hops", "pages", "ef_search", "slack", "adaptive",
   "target_recall", "expected_recall", "recall", "score", "needed_distances", "diversity",
   "feedback_relevant", "feedback_irrelevant", "feedback_missed_near", "feedback_missed_far",
   "index_judged", "index_latency_p50_us", "index_latency_p95_us", "index_mean_distances",
   "index_mean_recall", "index_m", "index_lists",
}

--- Judges a trajectory given by any of the fields of rv_judge_input; the rest is unknown.
function Host:judge(signals)
   local input, out = ffi.new("rv_judge_input[1]"), ffi.new("rv_judgement[1]")
   for _, name in ipairs(SIGNALS) do
      input[0][name] = (signals or {})[name] or -1
   end
   local cause = C.rv_host_judge(self.c, input, out, self.failure)
   local o, recommendations = out[0], {}
   for i = 0, o.recommendation_count - 1 do
      recommendations[i + 1] = ffi.string(o.recommendations[i])
   end
   return {
      success = o.success, confidence = o.confidence, latency = o.score_latency, recall = o.score_recall,
      diversity = o.score_diversity, feedback = o.score_feedback, recommendations = recommendations,
   }, cause_name(cause), failure_table(self.failure)
end

local function fill(struct, fields)
   for name, value in pairs(fields) do struct[name] = value end
end

--- One pattern as interpolation sees it, with some fields changed.
function M.advice(changes)
   local advice = {
      similarity = 1, slack = 0.2, ef_search = 80, probes = 4, expected_recall = 0.98, confidence = 1,
      samples = 100,
   }
   for name, value in pairs(changes or {}) do advice[name] = value end
   return advice
end

function Host:interpolate(defaults, patterns, target)
   local input, out = ffi.new("rv_interpolate_input[1]"), ffi.new("rv_interpolation[1]")
   input[0].k, input[0].target_recall = 10, target or 0.95
   fill(input[0].defaults, defaults)
   input[0].pattern_count = #patterns
   for i, pattern in ipairs(patterns) do fill(input[0].patterns[i - 1], pattern) end
   local cause = C.rv_host_interpolate(self.c, input, out, self.failure)
   return { slack = out[0].slack, ef_search = out[0].ef_search, probes = out[0].probes },
      cause_name(cause), failure_table(self.failure)
end

--- An rv_pattern with sensible fields, some changed; tables may be given as functions of the row.
function M.pattern(changes)
   local pattern = ffi.new("rv_pattern")
   pattern.scope, pattern.k, pattern.samples, pattern.optimal_probes = 1, 10, 100, 1
   pattern.target_recall, pattern.confidence, pattern.optimal_ef_search = 0.95, 0.5, 40
   pattern.radius, pattern.mean_distances = 0.5, 400
   for i = 0, engine.TARGETS - 1 do
      pattern.table_slack[i], pattern.table_ef[i] = 0.05 * i, 10 + 10 * i
      pattern.table_recall[i] = M.TARGETS[i + 1]
   end
   for name, value in pairs(changes or {}) do
      if type(value) == "function" then
         for i = 0, engine.TARGETS - 1 do pattern[name][i] = value(i) end
      else
         pattern[name] = value
      end
   end
   return pattern
end

--- Merges two patterns and their centroids (tables of numbers).
function Host:merge(a, a_centroid, b, b_centroid, weight)
   local dim, out, err = #a_centroid, ffi.new("rv_pattern"), engine.error_buffer()
   local centroid = engine.floats(a_centroid)
   local status = C.rv_host_merge(self.c, a, engine.floats(a_centroid), b, engine.floats(b_centroid),
      dim, weight, out, centroid, err)
   engine.check(status, err)
   local merged = {}
   for i = 0, dim - 1 do merged[i + 1] = centroid[i] end
   return out, merged
end

function Host:keep(pattern, now_us)
   local context = ffi.new("rv_keep_context[1]")
   context[0].host, context[0].now_us = self.c, now_us
   return C.rv_host_keep(context, pattern)
end

--- A batch for distill. samples: { query = {...}, slacks = {...}, efs = {...}, distances = {...},
--- nearest = {...}, work = function(slack) -> distances, age_s,
--- weight, confidence, recall, success }; math.huge is not found.
function M.batch(samples, options)
   options = options or {}
   local dim = options.dim or #(samples[1] or { query = { 0 } }).query
   local batch = { keep = {}, c = ffi.new("rv_distill_input[1]") }
   local array = ffi.new("rv_sample[?]", math.max(#samples, 1))
   for i, sample in ipairs(samples) do
      local count = #sample.slacks
      local query, efforts = engine.floats(sample.query), ffi.new("rv_effort[?]", math.max(count, 1))
      for j = 1, count do
         local slack = sample.slacks[j]
         local found = slack < math.huge
         efforts[j - 1].slack = slack
         efforts[j - 1].ef = found and (sample.efs and sample.efs[j] or 10 + 100 * slack) or 0xffffffff
         efforts[j - 1].distances = found and (sample.distances and sample.distances[j] or 100) or 0xffffffff
      end
      local s = array[i - 1]
      s.query, s.efforts, s.effort_count = query, efforts, count
      s.nearest_count = #(sample.nearest or {})
      for j, node in ipairs(sample.nearest or {}) do s.nearest[j - 1] = node end
      s.recall, s.confidence = sample.recall or -1, sample.confidence or 1
      s.age_s, s.success = sample.age_s or 0, sample.success ~= false
      s.weight = sample.weight or 1
      if sample.work then
         local work = ffi.new("rv_work")
         lib.rv_work_clear(work)
         for p = 0, ffi.sizeof(work.slack) / 4 - 1 do
            work.slack[p] = sample.work(lib.rv_work_slack_grid()[p])
         end
         s.work = work
         batch.keep[#batch.keep + 1] = work
      end
      batch.keep[#batch.keep + 1] = { query, efforts }
   end
   batch.keep[#batch.keep + 1] = array
   local c = batch.c[0]
   c.metric, c.dim, c.k = options.metric or 1, dim, options.k or 10
   c.samples, c.sample_count = array, #samples
   c.target_recall, c.min_samples = options.target_recall or 0.95, options.min_samples or 1
   c.learning_rate, c.index_epoch, c.now_us, c.seed = 0.01, options.epoch or 7, options.now_us or 1000, 42
   return batch
end

local function array_of(values)
   local list = {}
   for i = 0, engine.TARGETS - 1 do list[i + 1] = values[i] end
   return list
end

--- Distils; a list of patterns as plain tables (and their centroids), the cause, the failure.
function Host:distill(batch, allocator)
   local out = ffi.new("rv_distill_output[1]")
   allocator = allocator or self.allocator
   local cause = C.rv_host_distill(self.c, allocator, batch.c, out, self.failure)
   local patterns, dim = {}, batch.c[0].dim
   for i = 0, out[0].count - 1 do
      local p, err = out[0].patterns[i], engine.error_buffer()
      engine.check(lib.rv_pattern_check(p, err), err)
      local pattern = {
         scope = p.scope == 0 and "index" or "region", k = p.k, samples = p.samples, slack = p.slack,
         ef_search = p.optimal_ef_search, probes = p.optimal_probes, expected_recall = p.expected_recall,
         confidence = p.confidence, radius = p.radius, mean_distances = p.mean_distances,
         epoch = tonumber(p.index_epoch), created_us = tonumber(p.created_us), target = p.target_recall,
         table_slack = array_of(p.table_slack), table_ef = array_of(p.table_ef),
         table_recall = array_of(p.table_recall), entry_points = {}, centroid = {},
      }
      for j = 0, p.entry_count - 1 do pattern.entry_points[j + 1] = tonumber(p.entry_points[j]) end
      for j = 0, dim - 1 do pattern.centroid[j + 1] = out[0].centroids[i * dim + j] end
      patterns[i + 1] = pattern
   end
   local region_work = out[0].region_work
   C.rv_distill_output_free(allocator, out)
   return patterns, cause_name(cause), failure_table(self.failure), region_work
end

M.GOALS = { recall = 0, latency = 1, balanced = 2 }

--- Chooses among the points of a curve; point counts from 1.
function Host:choose(curve, goal)
   local points, out = ffi.new("rv_tuning_point[?]", #curve, curve), ffi.new("rv_tuning_choice[1]")
   local cause = C.rv_host_choose(self.c, points, #curve, M.GOALS[goal], out, self.failure)
   return { point = out[0].point + 1, target_recall = out[0].target_recall }, cause_name(cause),
      failure_table(self.failure)
end

--- What a search costs by either index; fields of rv_selection_index that are not given are unknown.
function Host:predict(hnsw, ivfflat, features)
   local input, out = ffi.new("rv_selection_input[1]"), ffi.new("rv_selection[1]")
   fill(input[0], { k = 10, limit = 10, rows = 1000, selectivity = 1, target_recall = 0.95 })
   fill(input[0], features or {})
   for name, index in pairs({ hnsw = hnsw, ivfflat = ivfflat }) do
      fill(input[0][name], { searches = -1, latency_us = -1, distances = -1, recall = -1 })
      fill(input[0][name], index)
   end
   local cause = C.rv_host_predict(self.c, input, out, self.failure)
   return { hnsw = out[0].hnsw, ivfflat = out[0].ivfflat }, cause_name(cause), failure_table(self.failure)
end

--- A situation of healing, with some fields changed; `nil` of the contract is written -1, of gain 0 / 0.
function M.situation(changes)
   local situation = {
      hour = 12, weekday = 3, load = 0.1, searches_per_second = 10, idle_s = 0, asked = 0,
      waiting = 1000, used = 0, held_out = 200, min_samples = 100,
      since_round_s = -1, round_s = -1, gain = 0 / 0,
      rows = 10000, links = 0, room = 8, budget = 0.1,
   }
   for name, value in pairs(changes or {}) do situation[name] = value end
   return situation
end

--- Whether a round of links may run in a situation (fields of rv_healing_input), and how large.
function Host:heal(situation)
   local input, out = ffi.new("rv_healing_input[1]"), ffi.new("rv_healing[1]")
   fill(input[0], situation)
   local cause = C.rv_host_heal(self.c, input, out, self.failure)
   local o = out[0]
   return {
      run = o.run, queries = o.queries, rows_per_query = o.rows_per_query, links_per_node = o.links_per_node,
      min_requests = o.min_requests, min_gain = o.min_gain,
   }, cause_name(cause), failure_table(self.failure)
end

return M
