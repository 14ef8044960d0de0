-- decision_bench.lua - what it costs to decide how to search: the parts of ruv_choose(), in microseconds.
--
--   make build && LUA_PATH='lua/?.lua;;' luajit examples/benchmarks/decision_bench.lua [patterns] [dim]
--
-- A search with a plan reads the plan and asks the interpolation policy. It looks for region patterns only
-- where regions pay, and for remembered queries only where memory pays: that lookup replaces the descent
-- through the upper layers and counts as part of the search's work.

local engine = require("ruvector.engine")
local policy_host = require("ruvector.policy_host")
local clock = require("ruvector.clock")
local ffi, lib = engine.ffi, engine.lib

local PATTERNS, DIM = tonumber(arg[1] or 256), tonumber(arg[2] or 128)
local QUERIES, ROUNDS = 1000, 5

local rng = ffi.new("rv_prng")
lib.rv_prng_seed(rng, 1)
local err = engine.error_buffer()

local function vector()
   local out = ffi.new("float[?]", DIM)
   for i = 0, DIM - 1 do out[i] = lib.rv_prng_normal(rng) end
   return out
end

local queries = {}
for i = 1, QUERIES do queries[i] = vector() end

local function pattern_of(scope)
   local p = ffi.new("rv_pattern")
   p.index_epoch, p.scope, p.k, p.samples = 1, scope, 10, 100
   p.optimal_ef_search, p.optimal_probes, p.target_recall, p.radius = 40, 1, 0.95, scope
   for i = 0, engine.TARGETS - 1 do p.table_slack[i], p.table_ef[i], p.table_recall[i] = 0.1, 40, 0.9 end
   return p
end

-- The flat form of something that flattens in two calls.
local function flat_of(flatten, object)
   local size = ffi.new("size_t[1]")
   flatten(object, nil, 0, size, err)
   local buffer = ffi.new("uint64_t[?]", tonumber(size[0]) / 8 + 8)
   engine.check(flatten(object, buffer, ffi.sizeof(buffer), size, err), err)
   return buffer
end

local function make_bank()
   local out = ffi.new("rv_bank *[1]")
   engine.check(lib.rv_bank_create(engine.allocator, lib.RV_METRIC_COSINE, DIM, PATTERNS + 1, out, err), err)
   engine.check(lib.rv_bank_put(out[0], pattern_of(0), nil, nil, err), err)
   for _ = 1, PATTERNS do engine.check(lib.rv_bank_put(out[0], pattern_of(1), vector(), nil, err), err) end
   return flat_of(lib.rv_bank_flatten, out[0])
end

local function make_memory(count)
   local out, nodes = ffi.new("rv_memory *[1]"), ffi.new("rv_node[8]", { 1, 2, 3, 4, 5, 6, 7, 8 })
   engine.check(lib.rv_memory_create(engine.allocator, lib.RV_METRIC_COSINE, DIM, count, out, err), err)
   for _ = 1, count do engine.check(lib.rv_memory_add(out[0], vector(), nodes, 8, err), err) end
   return flat_of(lib.rv_memory_flatten, out[0])
end

local function make_plan()
   local samples, efforts, work = ffi.new("rv_traced[1]"), ffi.new("rv_effort[1]"), ffi.new("rv_work")
   efforts[0].slack, efforts[0].ef, efforts[0].distances = 0.1, 40, 500
   samples[0].efforts, samples[0].work, samples[0].count, samples[0].weight = efforts, work, 1, 1
   local options = ffi.new("rv_plan_options", { k = 10, miss_ratio = 1, truth_recall = 1, region_work = 1 })
   local plan = ffi.new("rv_plan")
   engine.check(lib.rv_plan_make(engine.allocator, samples, 1, options, nil, plan, err), err)
   return plan
end

-- The least mean of several rounds, in microseconds.
local function time(name, call)
   local best = math.huge
   for _ = 1, ROUNDS do
      local started = clock.now()
      for i = 1, QUERIES do call(queries[i]) end
      best = math.min(best, (clock.now() - started) / QUERIES * 1e6)
   end
   print(("%-44s %8.2f us"):format(name, best))
end

local bank, plan, choice = make_bank(), make_plan(), ffi.new("rv_plan_choice")
local matches, count, distances = ffi.new("rv_bank_match[3]"), ffi.new("uint32_t[1]"), ffi.new("uint32_t[1]")
local match = ffi.new("rv_memory_match")

time("plan", function() lib.rv_plan_choose(plan, 0.96, choice) end)
time(("nearest 3 of %d patterns x %d"):format(PATTERNS, DIM), function(query)
   lib.rv_bank_flat_lookup(bank, engine.allocator, query, 3, matches, count, distances, nil)
end)
for _, remembered in ipairs { 1000, 10000 } do
   local memory = make_memory(remembered)
   time(("entry points of %d remembered queries"):format(remembered), function(query)
      lib.rv_memory_lookup(memory, engine.allocator, query, false, match, nil)
   end)
end
local host = policy_host.new()
assert(host:load("policies") == "ok")
for _, near in ipairs { 0, 3 } do
   local patterns = {}
   for i = 1, near do
      patterns[i] = { similarity = 0.8, slack = 0.1, ef_search = 40, probes = 1, expected_recall = 0.95,
         confidence = 0.5, samples = 100 }
   end
   local defaults = { similarity = 1, slack = 0.1, ef_search = 40, probes = 1, expected_recall = 0.95,
      confidence = 0.5, samples = 100 }
   time(("interpolation with %d patterns, tables made too"):format(near), function()
      host:interpolate(defaults, patterns, 0.95)
   end)
end
