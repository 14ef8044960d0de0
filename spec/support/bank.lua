-- bank.lua - makes banks and patterns for the specs of the ReasoningBank.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local M = { TARGETS = engine.TARGETS }

--- A random generator: below(n), uniform(), normal().
function M.random(seed)
   local rng = ffi.new("rv_prng")
   lib.rv_prng_seed(rng, seed)
   return {
      below = function(n) return tonumber(lib.rv_prng_below(rng, n)) end,
      uniform = function() return lib.rv_prng_uniform(rng) end,
      normal = function() return lib.rv_prng_normal(rng) end,
      bits = function() return lib.rv_prng_next(rng) end,
   }
end

--- A valid pattern; fields overrides any of it.
function M.pattern(fields)
   local p = ffi.new("rv_pattern")
   p.scope, p.k, p.samples = lib.RV_PATTERN_REGION, 10, 50
   p.index_epoch, p.created_us, p.updated_us = 77, 1000, 2000
   p.optimal_ef_search, p.optimal_probes = 60, 4
   p.target_recall, p.slack, p.expected_recall = 0.95, 0.125, 0.96
   p.confidence, p.radius, p.mean_distances = 0.75, 0.5, 400
   for i = 0, M.TARGETS - 1 do
      p.table_slack[i], p.table_ef[i], p.table_recall[i] = i / 32, 10 + 5 * i, 0.5 + i / 32
   end
   for name, value in pairs(fields or {}) do
      if type(value) == "table" then
         for i, v in ipairs(value) do p[name][i - 1] = v end
         if name == "entry_points" then p.entry_count = #value end
      else
         p[name] = value
      end
   end
   if p.scope == lib.RV_PATTERN_INDEX and not (fields or {}).radius then p.radius = 0 end
   return p
end

function M.index_pattern(fields)
   local all = { scope = lib.RV_PATTERN_INDEX }
   for name, value in pairs(fields or {}) do all[name] = value end
   return M.pattern(all)
end

--- A pattern with random contents, all of them valid.
function M.random_pattern(random, fields)
   local p = M.pattern()
   p.k, p.samples, p.usage = 1 + random.below(100), random.below(100000), random.bits()
   p.index_epoch, p.created_us, p.updated_us = random.bits(), ffi.cast("int64_t", random.bits()), -5
   p.optimal_ef_search, p.optimal_probes = 1 + random.below(1000), 1 + random.below(100)
   p.target_recall, p.slack = 0.5 + random.uniform() / 2, math.abs(random.normal())
   p.expected_recall, p.confidence = random.uniform(), random.uniform()
   p.radius, p.mean_distances = random.uniform() * 3, random.uniform() * 1e5
   local slack, ef = 0, 1
   for i = 0, M.TARGETS - 1 do
      slack, ef = slack + random.uniform() / 7, ef + random.below(50)
      p.table_slack[i], p.table_ef[i], p.table_recall[i] = slack, ef, random.uniform()
   end
   p.entry_count = random.below(9)
   for i = 0, p.entry_count - 1 do p.entry_points[i] = random.bits() end
   for name, value in pairs(fields or {}) do p[name] = value end
   return p
end

function M.new(metric, dim, max_patterns, allocator)
   local out, err = ffi.new("rv_bank *[1]"), engine.error_buffer()
   engine.check(lib.rv_bank_create(allocator or engine.allocator, metric, dim, max_patterns or 1000, out,
      err), err)
   if allocator then return out[0] end
   return ffi.gc(out[0], lib.rv_bank_destroy)
end

--- Puts a pattern; returns its id as a number.
function M.put(bank, pattern, centroid)
   local id, err = ffi.new("uint64_t[1]"), engine.error_buffer()
   engine.check(lib.rv_bank_put(bank, pattern, centroid, id, err), err)
   return tonumber(id[0])
end

function M.vector(random, dim)
   return engine.floats(function() return random.normal() end, dim)
end

--- Centroids that lie in clusters, as those of real queries do.
function M.clustered(random, dim, clusters)
   local centres = {}
   for i = 1, clusters do centres[i] = M.vector(random, dim) end
   return function()
      local centre = centres[1 + random.below(clusters)]
      return engine.floats(function(i) return centre[i] + 0.7 * random.normal() end, dim)
   end
end

function M.fill(bank, count, next_centroid, fields)
   for _ = 1, count do M.put(bank, M.pattern(fields), next_centroid()) end
   return bank
end

--- Everything in a bank as one string: two banks are equal when these are.
function M.contents(bank)
   local parts, row = {}, ffi.new("const float *[1]")
   for i = 0, lib.rv_bank_count(bank) - 1 do
      parts[#parts + 1] = ffi.string(lib.rv_bank_get(bank, i, row), ffi.sizeof("rv_pattern"))
      parts[#parts + 1] = row[0] ~= nil and ffi.string(row[0], 4 * lib.rv_bank_dim(bank)) or "-"
   end
   return table.concat(parts, "|")
end

--- Every pattern passes its check, ids rise, the index-wide pattern comes first.
function M.check(bank)
   local err, row, last = engine.error_buffer(), ffi.new("const float *[1]"), 0ULL
   local count = lib.rv_bank_count(bank)
   local index = lib.rv_bank_index_pattern(bank)
   for i = 0, count - 1 do
      local p = lib.rv_bank_get(bank, i, row)
      engine.check(lib.rv_pattern_check(p, err), err)
      if index ~= nil and i == 0 then
         assert(p == index and row[0] == nil and p.scope == lib.RV_PATTERN_INDEX)
      else
         assert(p.scope == lib.RV_PATTERN_REGION and row[0] ~= nil and p.id > last)
         last = p.id
         for d = 0, lib.rv_bank_dim(bank) - 1 do assert(row[0][d] - row[0][d] == 0, "finite") end
      end
   end
   assert(lib.rv_bank_get(bank, count, row) == nil)
   return count
end

--- The k nearest: a list of { id, similarity, distance }.
function M.lookup(bank, query, k)
   local out, count, err = ffi.new("rv_bank_match[?]", k), ffi.new("uint32_t[1]"), engine.error_buffer()
   engine.check(lib.rv_bank_lookup(bank, query, k, out, count, err), err)
   return M.matches(out, count[0])
end

function M.flat_lookup(flat, query, k, allocator)
   local out, count, err = ffi.new("rv_bank_match[?]", k), ffi.new("uint32_t[1]"), engine.error_buffer()
   engine.check(lib.rv_bank_flat_lookup(flat, allocator or engine.allocator, query, k, out, count,
      nil, err), err)
   return M.matches(out, count[0])
end

function M.matches(out, count)
   local list = {}
   for i = 0, count - 1 do
      list[i + 1] = { id = tonumber(out[i].pattern.id), similarity = out[i].similarity,
         distance = out[i].distance }
   end
   return list
end

--- The flat form in a buffer aligned to 8 bytes; returns the buffer and its size.
function M.flatten(bank)
   local size, err = ffi.new("size_t[1]"), engine.error_buffer()
   assert(lib.rv_bank_flatten(bank, nil, 0, size, err) == lib.RV_ERR_FULL)
   local bytes = tonumber(size[0])
   local buffer = ffi.new("uint64_t[?]", bytes / 8)
   engine.check(lib.rv_bank_flatten(bank, buffer, bytes, size, err), err)
   return buffer, bytes
end

--- Runs body(allocator) with its first, second, ... allocation failing until it succeeds; body
--- returns a status and cleans up after itself. Nothing may leak. Returns how many failed.
function M.fail_each_allocation(body)
   local a = ffi.new("rv_test_allocator")
   for fail_at = 1, 1000000 do
      lib.rv_test_allocator_init(a, fail_at)
      local status = body(a.allocator, a)
      if a.live ~= 0 then
         error(tostring(a.live) .. " blocks leaked when allocation " .. fail_at .. " failed")
      end
      if status == lib.RV_OK then
         if tonumber(a.calls) >= fail_at then error("a failed allocation was not reported: " .. fail_at) end
         return fail_at - 1
      end
      if status ~= lib.RV_ERR_NOMEM then error("status " .. tonumber(status)) end
   end
end

return M
