-- overhead.lua - what deciding how to search, and recording how it went, cost a query.
--
--   decision, alone    the lookup of the nearest among 256 region patterns in the flat bank, and the
--                      interpolation policy: the library that the server runs, called in a loop
--   decision, in place ruvector_get_search_params with and without adaptive search: the whole decision
--                      of this server with what it learned, the remembered queries included
--   recording          searches in a loop inside the server, recorded and not recorded, in turns; and not
--                      recorded once more, which shows the noise
--
-- Processor time counts everywhere, inside the server that of the backend by /proc: other processes change
-- it little.

local ffi = require("ffi")
local curve = require("ruvector.curve")
local engine = require("ruvector.engine")
local pg = require("ruvector.pg")
local policy_host = require("ruvector.policy_host")
local measure = require("demo.measure")
local common = require("benchmarks.common")
local report = require("benchmarks.learning.report")
local system = require("benchmarks.index.system")
local twins = require("benchmarks.learning.twins")

local lib = engine.lib
local M = {}

local PATTERNS, NEAREST = 256, 3
local CALLS, BATCHES = 2000, 15
local ROUNDS, QUERIES = 80, 150
local DECISIONS = 2000
local DECISION_US, SHARE = 5, 0.01

-- ---- the decision alone ------------------------------------------------------------------------

local function index_pattern(k)
   local p = ffi.new("rv_pattern")
   p.scope, p.k, p.samples, p.index_epoch = lib.RV_PATTERN_INDEX, k, 1000, 1
   p.optimal_ef_search, p.optimal_probes = 60, 4
   p.target_recall, p.slack, p.expected_recall = 0.95, 0.125, 0.96
   p.confidence, p.mean_distances = 0.75, 400
   for i = 0, engine.TARGETS - 1 do
      p.table_slack[i], p.table_ef[i], p.table_recall[i] = i / 32, 10 + 5 * i, 0.5 + i / 32
   end
   return p
end

-- A flat bank with an index-wide pattern and PATTERNS regions, whose centroids are rows of the set.
local function flat_bank(set)
   local out, err, id = ffi.new("rv_bank *[1]"), engine.error_buffer(), ffi.new("uint64_t[1]")
   local metric = set.metric == "l2" and lib.RV_METRIC_L2 or lib.RV_METRIC_COSINE
   engine.check(lib.rv_bank_create(engine.allocator, metric, set.rows.dim, PATTERNS + 1, out, err), err)
   local bank, pattern = ffi.gc(out[0], lib.rv_bank_destroy), index_pattern(measure.K)
   engine.check(lib.rv_bank_put(bank, pattern, nil, id, err), err)
   for i = 0, PATTERNS - 1 do
      pattern.id, pattern.scope, pattern.radius = 0, lib.RV_PATTERN_REGION, 0.5
      local row = i * math.floor(set.rows.count / PATTERNS)
      engine.check(lib.rv_bank_put(bank, pattern, set.rows.data + row * set.rows.dim, id, err), err)
   end
   local size = ffi.new("size_t[1]")
   lib.rv_bank_flatten(bank, nil, 0, size, err)
   local flat = ffi.new("uint64_t[?]", tonumber(size[0]) / 8)
   engine.check(lib.rv_bank_flatten(bank, flat, size[0], size, err), err)
   return flat
end

-- Microseconds of this process per call(i), the median of batches.
local function microseconds(call)
   local times = {}
   for batch = 1, BATCHES do
      local started = os.clock()
      for i = 1, CALLS do call(i) end
      times[batch] = (os.clock() - started) / CALLS * 1e6
   end
   return curve.median(times)
end

local function decision_alone(set)
   local flat, host = flat_bank(set), policy_host.new()
   local cause, failure = host:load("policies")
   assert(cause == "ok", failure.reason)
   local matches, count = ffi.new("rv_bank_match[?]", NEAREST), ffi.new("uint32_t[1]")
   local err, queries = engine.error_buffer(), set.queries
   local lookup = microseconds(function(i)
      local query = queries.data + (i % queries.count) * queries.dim
      engine.check(lib.rv_bank_flat_lookup(flat, engine.allocator, query, NEAREST, matches, count, nil, err),
         err)
   end)
   local input, plan = ffi.new("rv_interpolate_input[1]"), ffi.new("rv_interpolation[1]")
   local function advice(to, similarity)
      to.similarity, to.slack, to.ef_search, to.probes = similarity, 0.125, 60, 4
      to.expected_recall, to.confidence, to.samples = 0.96, 0.75, 100
   end
   input[0].k, input[0].target_recall, input[0].pattern_count = measure.K, 0.95, NEAREST
   advice(input[0].defaults, 1)
   for i = 0, NEAREST - 1 do advice(input[0].patterns[i], 0.9) end
   local interpolate = microseconds(function()
      local status = engine.host().rv_host_interpolate(host.c, input, plan, host.failure)
      assert(status == engine.host().RV_HOST_OK, "the policy failed")
   end)
   host:destroy()
   return lookup, interpolate
end

-- ---- inside the server -------------------------------------------------------------------------

-- Nanoseconds of processor time of a backend that is idle now.
local function processor_ns(pid)
   local file = assert(io.open("/proc/" .. pid .. "/schedstat", "r"))
   local ns = file:read("*n")
   file:close()
   return ns
end

local SEARCHES = [[
CREATE OR REPLACE FUNCTION pg_temp.run_searches(wanted int[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
   v ruvector;
   query int;
BEGIN
   FOREACH query IN ARRAY wanted LOOP
      SELECT q.embedding INTO v FROM queries q WHERE q.id = query;
      PERFORM t.id FROM %s t ORDER BY t.embedding %s v LIMIT %d;
   END LOOP;
END $$]]

local DECIDES = [[
CREATE OR REPLACE FUNCTION pg_temp.run_decisions(wanted int[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
   v ruvector;
   query int;
BEGIN
   FOREACH query IN ARRAY wanted LOOP
      SELECT q.embedding INTO v FROM queries q WHERE q.id = query;
      PERFORM ruvector_get_search_params('%s_embedding', v, %d);
   END LOOP;
END $$]]

-- Processor microseconds per query of a function under each of several settings, in turns: an array of
-- medians, and an array of the medians of the rounds' ratios to the first setting.
local function in_turns(db, pid, sql, queries, settings)
   local times, medians, ratios = {}, {}, {}
   for side in ipairs(settings) do times[side] = {} end
   for _ = 1, ROUNDS do
      for side, setting in ipairs(settings) do
         db:exec(setting)
         local before = processor_ns(pid)
         db:exec(sql, pg.array(queries))
         table.insert(times[side], (processor_ns(pid) - before) / 1000 / #queries)
      end
   end
   for side in ipairs(settings) do
      medians[side], ratios[side] = curve.median(times[side]), curve.median_ratio(times[side], times[1])
   end
   return medians, ratios
end

--- Measures on a server whose table `learned` has learned. learning_budget: what to set it back to.
-- Returns a table of figures, times in microseconds.
function M.run(server, set, learning_budget)
   local out, db = {}, twins.connect(server)
   out.lookup_us, out.interpolate_us = decision_alone(set)
   out.decision_us = out.lookup_us + out.interpolate_us
   local pid = db:backend_pid()
   db:exec(SEARCHES:format(twins.LEARNED, system.OPERATORS[set.metric], measure.K))
   db:exec(DECIDES:format(twins.LEARNED, measure.K))
   db:exec("SET ruvector.trajectory_sample_rate = 0")
   local some = measure.range(set.first, math.min(set.last, set.first + QUERIES - 1))
   local decisions = in_turns(db, pid, "SELECT pg_temp.run_decisions($1)",
      measure.range(0, math.min(set.queries.count, DECISIONS) - 1),
      { "SET ruvector.adaptive_search = off", "SET ruvector.adaptive_search = on" })
   out.decision_in_place_us = decisions[2] - decisions[1]
   -- The worker must not learn from these, only drain them.
   server:apply({ ["ruvector.learning_budget"] = 0.001 }, db)
   local off, on = "SET ruvector.trajectory_sample_rate = 0", "SET ruvector.trajectory_sample_rate = 1"
   local searches, ratios = in_turns(db, pid, "SELECT pg_temp.run_searches($1)", some, { off, on, off })
   server:apply({ ["ruvector.learning_budget"] = learning_budget }, db)
   out.search_us, out.recorded_search_us = searches[1], searches[2]
   out.recording_share, out.noise_share = ratios[2] - 1, ratios[3] - 1
   out.decision_share = out.decision_us / out.search_us
   db:exec(("SELECT ruvector_disable_learning('%s')"):format(twins.LEARNED)) -- it has test queries now
   db:close()
   return out
end

--- Prints the figures.
function M.print(o)
   local function us(value) return ("%.2f"):format(value) end
   common.markdown({ "overhead", "us" }, {
      { ("look-up of the %d nearest of %d patterns"):format(NEAREST, PATTERNS), us(o.lookup_us) },
      { "interpolation policy", us(o.interpolate_us) },
      { "whole decision in this server, remembered queries included", us(o.decision_in_place_us) },
      { "search, not recorded", us(o.search_us) },
      { "search, recorded", us(o.recorded_search_us) },
      { ("search, not recorded, once more: %+.4f of the first"):format(o.noise_share),
         us(o.search_us * (1 + o.noise_share)) },
   })
end

--- The limits, appended to criteria.
function M.judge(criteria, set, o)
   local decision = ("decision with %d patterns"):format(PATTERNS)
   report.at_most(criteria, set, decision .. ", us", o.decision_us, DECISION_US, "%.2f")
   report.at_most(criteria, set, decision .. ", share of a search", o.decision_share, SHARE, "%.4f")
   report.at_most(criteria, set, "recording, share of a search", o.recording_share, SHARE, "%.4f")
end

return M
