-- distance_bench.lua - nanoseconds per distance, for every SIMD level, kernel and length.
--
--   make bench            or   LUA_PATH='lua/?.lua' luajit examples/benchmarks/distance_bench.lua
--
-- One query against rows that lie one after the other in a working set larger than the caches, so
-- that every row comes from memory, as in an exact scan. The bound is the time that this machine
-- takes just to read the same bytes, measured in the same run: a kernel at 1.0x of it cannot be
-- made faster by better arithmetic. A second table takes rows in random order, as a graph search
-- does, one by one and through the batch call, which prefetches. A third has blocks of rows that are in
-- the cache, as the exact pass of learning has: pair by pair, in tiles, and by an exact search that has
-- codes say which rows are compared, in turns, and the ratio to the first. Each figure is the best of
-- several passes. RUVECTOR_BENCH_MB sets the working set (default 192).

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

ffi.cdef([[
   typedef struct { long seconds, nanoseconds; } bench_time;
   int clock_gettime(int clock, bench_time *time);
]])

local BYTES = (tonumber(os.getenv("RUVECTOR_BENCH_MB")) or 192) * 2 ^ 20
local DIMS = { 128, 384, 768, 1536 }
local SLICE_NS = 45e6 -- the time given to one figure
local PASS_BYTES = 4e6

local clock = ffi.new("bench_time")
local function now()
   ffi.C.clock_gettime(1, clock) -- CLOCK_MONOTONIC
   return tonumber(clock.seconds) * 1e9 + tonumber(clock.nanoseconds)
end

-- Non-zero bytes in every page, so that each page is backed by memory of its own. 0x3C3C is a half
-- near 1.06, 0x3C3C3C3C a float near 0.01.
local memory = ffi.new("uint8_t[?]", BYTES)
ffi.fill(memory, BYTES, 0x3C)
local address = ffi.cast("char *", memory)

-- The best nanoseconds per row over as many passes of visit(first, last) as slice_ns allows. A
-- pass goes on where the last one ended, so that its rows have left the caches.
local function measure(total_rows, pass_rows, slice_ns, visit)
   local best, first, started = math.huge, 0, now()
   repeat
      if first + pass_rows > total_rows then first = 0 end
      local from = now()
      visit(first, first + pass_rows - 1)
      best = math.min(best, (now() - from) / pass_rows)
      first = first + pass_rows
   until now() - started > slice_ns
   return best
end

local TYPES = {
   float = { ctype = "const float *", size = 4 },
   half = { ctype = "const uint16_t *", size = 2 },
   int8 = { ctype = "const int8_t *", size = 1 },
}
local KERNELS = {
   { "l2_squared", "float" }, { "inner_product", "float" }, { "cosine", "float" }, { "l1", "float" },
   { "l2_squared_half", "half" }, { "inner_product_half", "half" }, { "l1_half", "half" },
   { "l2_squared_int8", "int8" }, { "inner_product_int8", "int8" }, { "l1_int8", "int8" },
}

-- A loop of its own for each measurement, so that LuaJIT compiles one trace for one signature.
local LOOPS = {}
for kind, info in pairs(TYPES) do
   local scale = kind == "int8" and "0.01, " or ""
   LOOPS[kind] = ([[
      local ffi, kernel, query, address, dim, row_bytes = ...
      return function(first, last)
         for row = first, last do
            kernel(query, ffi.cast("%s", address + row * row_bytes), %sdim)
         end
      end]]):format(info.ctype, scale)
end

local function loop(kernel, kind, query, dim)
   local build = assert(loadstring(LOOPS[kind]))
   return build(ffi, kernel, query, address, dim, dim * TYPES[kind].size)
end

-- Bytes per nanosecond at which memory can be read: libc's memchr for a byte that is not there,
-- over stretches that stay behind the caches.
ffi.cdef("void *memchr(const void *start, int byte, size_t size);")
local function read_bandwidth()
   local stretch = 2 ^ 18
   local function read(first, last)
      for i = first, last do assert(ffi.C.memchr(address + i * stretch, 0xFF, stretch) == nil) end
   end
   return stretch / measure(BYTES / stretch, math.floor(PASS_BYTES / stretch), 16 * SLICE_NS, read)
end

local function levels()
   local list = {}
   for _, name in ipairs({ "RV_SIMD_SCALAR", "RV_SIMD_AVX2", "RV_SIMD_AVX512", "RV_SIMD_NEON" }) do
      local kernels = lib.rv_kernels_for(lib[name])
      -- NEON is emulated where it is not native: its time would say nothing
      local emulated = name == "RV_SIMD_NEON" and not jit.arch:find("^arm")
      if kernels ~= nil and not emulated then list[#list + 1] = kernels end
   end
   return list
end

local function sequential(bandwidth)
   print(("\nSequential rows, ns per distance (and how many times the bound)\n%-8s %-20s"):format("level",
      "kernel") .. ("%20s"):rep(#DIMS):format(unpack(DIMS)))
   for _, kind in ipairs({ "float", "half", "int8" }) do
      local line = ("%-8s %-20s"):format("bound", "read " .. kind .. " rows")
      for _, dim in ipairs(DIMS) do
         line = line .. ("%20s"):format(("%.1f       "):format(dim * TYPES[kind].size / bandwidth))
      end
      print(line)
   end
   local query = engine.floats(function(i) return (i % 7) / 7 end, DIMS[#DIMS])
   for _, kernels in ipairs(levels()) do
      for _, kernel in ipairs(KERNELS) do
         local name, kind = kernel[1], kernel[2]
         local line = ("%-8s %-20s"):format(ffi.string(kernels.name), name)
         for _, dim in ipairs(DIMS) do
            local row_bytes = dim * TYPES[kind].size
            local ns = measure(math.floor(BYTES / row_bytes), math.ceil(PASS_BYTES / row_bytes),
               SLICE_NS, loop(kernels[name], kind, query, dim))
            line = line .. ("%20s"):format(("%.1f (%4.1fx)"):format(ns, ns * bandwidth / row_bytes))
         end
         print(line)
      end
   end
end

local function random_order()
   print(("\nRandom rows, float l2, level %s, ns per distance\n%-29s"):format(
      ffi.string(lib.rv_kernels_active().name), "") .. ("%20s"):rep(#DIMS):format(unpack(DIMS)))
   local query = engine.floats(function(i) return (i % 7) / 7 end, DIMS[#DIMS])
   local rng = ffi.new("rv_prng")
   local fan = 32 -- rows per batch, about one node's neighbours
   local out = ffi.new("float[?]", fan)
   local one, batched = ("%-29s"):format("one by one"), ("%-29s"):format("batch of " .. fan)
   for _, dim in ipairs(DIMS) do
      local total = math.floor(BYTES / (dim * 4))
      local batches = 8192
      local rows = ffi.new("const float *[?]", batches * fan)
      lib.rv_prng_seed(rng, dim)
      for i = 0, batches * fan - 1 do
         rows[i] = ffi.cast("const float *", address + tonumber(lib.rv_prng_below(rng, total)) * dim * 4)
      end
      local l2 = lib.rv_kernels_active().l2_squared
      one = one .. ("%20.1f"):format(measure(batches, 256, 4 * SLICE_NS, function(first, last)
         for i = first * fan, last * fan + fan - 1 do l2(query, rows[i], dim) end
      end) / fan)
      batched = batched .. ("%20.1f"):format(measure(batches, 256, 4 * SLICE_NS, function(first, last)
         for i = first, last do
            lib.rv_raw_distance_batch(lib.RV_METRIC_L2, false, query, rows + i * fan, fan, dim, out)
         end
      end) / fan)
   end
   print(one .. "\n" .. batched)
end

-- An exact search of the nearest row that has seen the block already, so that of each block it is fed only
-- the nearest rows are compared, as late in a pass.
local function exact_search(metric, queries, count, block, rows, dim)
   local out, err, ids = ffi.new("rv_exact *[1]"), engine.error_buffer(), ffi.new("uint64_t[?]", rows)
   for i = 0, rows - 1 do ids[i] = i end
   engine.check(lib.rv_exact_create(engine.allocator, metric, false, queries, count, dim, 1, out, err), err)
   local exact = ffi.gc(out[0], lib.rv_exact_destroy)
   local function run() lib.rv_exact_feed(exact, block, ids, rows, nil) end
   run()
   return run
end

-- The exact pass: some queries against one block of rows. The ways take turns, so that they see the
-- same machine.
local function blocks()
   local queries, rows = 64, 64
   local heading = "\nRows in the cache (%d), %d queries, level %s, ns per distance "
      .. "(and the share of pair by pair)\n%-29s"
   print(heading:format(rows, queries, ffi.string(lib.rv_kernels_active().name), "")
      .. ("%20s"):rep(#DIMS):format(unpack(DIMS)))
   -- Vectors that differ, or nothing would be left out.
   local rng, count = ffi.new("rv_prng"), (queries + rows) * DIMS[#DIMS]
   local floats, out = ffi.new("float[?]", count), ffi.new("float[?]", queries * rows)
   lib.rv_prng_seed(rng, 1)
   for i = 0, count - 1 do floats[i] = lib.rv_prng_normal(rng) end
   for name, metric in pairs({ l2 = lib.RV_METRIC_L2, ip = lib.RV_METRIC_IP, l1 = lib.RV_METRIC_L1 }) do
      local lines = { ("%-29s"):format(name .. " pair by pair"), ("%-29s"):format(name .. " in tiles"),
         ("%-29s"):format(name .. " by an exact search") }
      for _, dim in ipairs(DIMS) do
         local block = ffi.new("const float *[?]", rows)
         for i = 0, rows - 1 do block[i] = floats + (queries + i) * dim end
         local ways = {
            function()
               for q = 0, queries - 1 do
                  lib.rv_raw_distance_batch(metric, false, floats + q * dim, block, rows, dim, out + q * rows)
               end
            end,
            function()
               lib.rv_raw_distance_block(metric, false, floats, queries, block, rows, dim, out)
            end,
            exact_search(metric, floats, queries, block, rows, dim),
         }
         local best, repeats = { math.huge, math.huge, math.huge }, math.ceil(2e6 / (queries * rows * dim))
         local started = now()
         repeat
            for way, run in ipairs(ways) do
               local from = now()
               for _ = 1, repeats do run() end
               best[way] = math.min(best[way], (now() - from) / (repeats * queries * rows))
            end
         until now() - started > 4 * SLICE_NS
         lines[1] = lines[1] .. ("%20.1f"):format(best[1])
         for way = 2, 3 do
            lines[way] = lines[way] .. ("%20s"):format(("%.1f (%.2f)"):format(best[way], best[way] / best[1]))
         end
      end
      print(table.concat(lines, "\n"))
   end
end

local bandwidth = read_bandwidth()
print(("working set %d MB, read bandwidth %.1f GB/s, level in use: %s"):format(BYTES / 2 ^ 20, bandwidth,
   ffi.string(lib.rv_kernels_active().name)))
sequential(bandwidth)
random_order()
blocks()
