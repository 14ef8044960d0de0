-- lookup_bench.lua - microseconds to find the 3 nearest of 10,000 patterns of 768 dimensions.
--
--   make bench            or   LUA_PATH='lua/?.lua' luajit examples/benchmarks/lookup_bench.lua
--
-- The walk over a flat bank, as every adaptive search makes it, beside the scan of all centroids. Each lookup
-- is of another query, so that the codes it touches have left the nearer caches: median and tenth percentile
-- over all. Recall is the share of the true nearest three. Making the graph takes a quarter of a minute.
-- RUVECTOR_BENCH_PATTERNS sets how many patterns there are.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

ffi.cdef([[
   typedef struct { long seconds, nanoseconds; } lookup_time;
   int clock_gettime(int clock, lookup_time *time);
]])

local DIM, CLUSTERS, QUERIES, K, ROUNDS = 768, 300, 300, 3, 5
local COUNT = tonumber(os.getenv("RUVECTOR_BENCH_PATTERNS")) or 10000
local COSINE = lib.RV_METRIC_COSINE

local clock = ffi.new("lookup_time")
local function now()
   ffi.C.clock_gettime(1, clock) -- CLOCK_MONOTONIC
   return tonumber(clock.seconds) * 1e6 + tonumber(clock.nanoseconds) / 1e3
end

local rng, err = ffi.new("rv_prng"), engine.error_buffer()
lib.rv_prng_seed(rng, 11)
local centres = {}
for i = 1, CLUSTERS do centres[i] = engine.floats(function() return lib.rv_prng_normal(rng) end, DIM) end

local function vector()
   local centre = centres[1 + tonumber(lib.rv_prng_below(rng, CLUSTERS))]
   return engine.floats(function(i) return centre[i] + 0.7 * lib.rv_prng_normal(rng) end, DIM)
end

local function pattern()
   local p = ffi.new("rv_pattern")
   p.scope, p.k, p.target_recall = lib.RV_PATTERN_REGION, 10, 0.95
   p.optimal_ef_search, p.optimal_probes = 1, 1
   for i = 0, engine.TARGETS - 1 do p.table_ef[i] = 1 end
   return p
end

local function flat_bank(rows)
   local out, size = ffi.new("rv_bank *[1]"), ffi.new("size_t[1]")
   engine.check(lib.rv_bank_create(engine.allocator, COSINE, DIM, COUNT, out, err), err)
   for i = 0, COUNT - 1 do
      rows.keep[i] = vector()
      rows.pointers[i] = rows.keep[i]
      engine.check(lib.rv_bank_put(out[0], pattern(), rows.keep[i], nil, err), err)
   end
   lib.rv_bank_flatten(out[0], nil, 0, size, err)
   local flat = ffi.new("uint64_t[?]", tonumber(size[0]) / 8)
   engine.check(lib.rv_bank_flatten(out[0], flat, size[0], size, err), err)
   lib.rv_bank_destroy(out[0])
   return flat
end

local function quantile(values, q)
   table.sort(values)
   return values[math.max(1, math.ceil(q * #values))]
end

local rows = { keep = {}, pointers = ffi.new("const float *[?]", COUNT) }
local flat = flat_bank(rows)
local queries, third, scans, lookups = {}, {}, {}, {}
local distances = ffi.new("float[?]", COUNT)
for q = 1, QUERIES do
   queries[q] = vector()
   local from = now()
   lib.rv_raw_distance_batch(COSINE, false, queries[q], rows.pointers, COUNT, DIM, distances)
   scans[q] = now() - from
   local list = {}
   for i = 0, COUNT - 1 do list[i + 1] = distances[i] end
   table.sort(list)
   third[q] = list[K]
end

local out, count, work = ffi.new("rv_bank_match[?]", K), ffi.new("uint32_t[1]"), ffi.new("uint32_t[1]")
local found, computed = 0, 0
for round = 1, ROUNDS do
   for q = 1, QUERIES do
      local from = now()
      engine.check(lib.rv_bank_flat_lookup(flat, engine.allocator, queries[q], K, out, count, work, err), err)
      lookups[#lookups + 1] = now() - from
      computed = computed + work[0]
      for i = 0, round == 1 and count[0] - 1 or -1 do
         local distance = lib.rv_raw_distance(COSINE, queries[q], out[i].centroid, DIM)
         if distance <= third[q] + 1e-6 then found = found + 1 end
      end
   end
end

print(("\nThe %d nearest of %d patterns of %d dimensions"):format(K, COUNT, DIM))
print(("  lookup   %7.1f us median, %7.1f us at the tenth percentile, %d distances, recall %.3f"):format(
   quantile(lookups, 0.5), quantile(lookups, 0.1), computed / #lookups, found / (QUERIES * K)))
print(("  scan     %7.1f us median"):format(quantile(scans, 0.5)))
