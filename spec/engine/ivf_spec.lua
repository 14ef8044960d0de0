-- The search over lists: against a search by brute force, with every metric and code, in windows; its
-- stop rules; the deep trace against the searches whose efforts it names; failing allocations.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

-- Compiled code must not be called back.
require("jit").off(true, true)

local METRICS = { l2 = lib.RV_METRIC_L2, ip = lib.RV_METRIC_IP, cosine = lib.RV_METRIC_COSINE,
   l1 = lib.RV_METRIC_L1 }
local STORAGES = { float32 = lib.RV_IVF_FLOAT32, float16 = lib.RV_IVF_FLOAT16, int8 = lib.RV_IVF_INT8 }
local EXACT = ffi.cast("uint64_t", -1LL)

local function generator(seed)
   local rng = ffi.new("rv_prng")
   lib.rv_prng_seed(rng, seed)
   return function() return lib.rv_prng_normal(rng) end
end

-- An inverted file in memory: rows in clusters, their lists, and a source for the engine.
local function make(metric, storage, rows, lists, dim, seed)
   local normal = generator(seed)
   local m = { metric = metric, storage = storage, rows = rows, lists = lists, dim = dim, visited = {} }
   m.centres = engine.floats(function() return normal() end, lists * dim)
   m.vectors = ffi.new("float[?]", rows * dim)
   for row = 0, rows - 1 do
      for i = 0, dim - 1 do
         m.vectors[row * dim + i] = m.centres[row % lists * dim + i] + 0.8 * normal()
      end
      if metric == METRICS.cosine then
         lib.rv_normalize(m.vectors + row * dim, m.vectors + row * dim, dim)
      end
   end
   if metric == METRICS.cosine or metric == METRICS.ip then
      for l = 0, lists - 1 do lib.rv_normalize(m.centres + l * dim, m.centres + l * dim, dim) end
   end
   m.max_norm = 0
   m.spread = 2.5
   m.members = {}
   for l = 0, lists - 1 do m.members[l] = {} end
   local nearest, distance = ffi.new("uint32_t[1]"), ffi.new("float[1]")
   for row = 0, rows - 1 do
      nearest[0], distance[0] = 0, math.huge
      lib.rv_ivf_nearest(metric, m.vectors + row * dim, dim, m.centres, 4 * dim, lists, 0, nearest, distance)
      table.insert(m.members[nearest[0]], row)
      m.max_norm = math.max(m.max_norm, lib.rv_norm(m.vectors + row * dim, dim))
   end
   m.code_size = tonumber(lib.rv_ivf_code_size(storage, dim))
   m.codes = ffi.new("char[?]", rows * m.code_size)
   m.scales, m.errors = ffi.new("float[?]", rows), ffi.new("float[?]", rows)
   for row = 0, rows - 1 do
      lib.rv_ivf_encode(storage, metric, m.vectors + row * dim, dim, m.codes + row * m.code_size,
         m.scales + row, m.errors + row)
   end
   m.scorer = ffi.new("rv_ivf_scorer")
   m.source = ffi.new("rv_ivf_source")
   local out, key = ffi.new("rv_ivf_candidate[1]"), ffi.new("float[1]")
   m.scan = ffi.cast("rv_status (*)(void *, uint32_t, rv_ivf *, uint64_t *, rv_error *)",
      function(_, list, ivf, scored, err)
         m.visited[#m.visited + 1] = list
         for _, row in ipairs(m.members[list]) do
            lib.rv_ivf_score(m.scorer, m.codes + row * m.code_size, m.scales + row, m.errors + row, 1, key)
            out[0].key, out[0].list, out[0].row = key[0], list, row
            out[0].ref = storage == STORAGES.float32 and EXACT or row
            local status = lib.rv_ivf_push(ivf, out, 1, err)
            if status ~= lib.RV_OK then return status end
            scored[0] = scored[0] + 1
         end
         return lib.RV_OK
      end)
   m.exact = ffi.cast("bool (*)(void *, uint64_t, float *)", function(_, ref, distance_out)
      m.compared = (m.compared or 0) + 1
      if m.gone and m.gone[tonumber(ref)] then return false end
      distance_out[0] = lib.rv_ivf_exact(m.scorer, m.vectors + tonumber(ref) * dim)
      return true
   end)
   m.source.scan, m.source.exact = m.scan, m.exact
   m.normal = normal
   return m
end

local function release(m)
   m.scan:free()
   m.exact:free()
end

local function rule_of(fields)
   local rule = ffi.new("rv_ivf_rule")
   for key, value in pairs(fields) do rule[key] = value end
   return rule
end

-- Aims a model at a random query.
local function aim(m)
   m.query = engine.floats(function() return m.normal() end, m.dim)
   if m.metric == METRICS.cosine then lib.rv_normalize(m.query, m.query, m.dim) end
   lib.rv_ivf_scorer_init(m.scorer, m.metric, m.storage, m.query, m.dim, m.max_norm)
   m.distances = ffi.new("float[?]", m.lists)
   lib.rv_ivf_list_distances(m.scorer, m.centres, 4 * m.dim, m.lists, m.distances)
   m.visited = {}
end

local function create(m, allocator)
   local out = ffi.new("rv_ivf *[1]")
   local err = engine.error_buffer()
   local status = lib.rv_ivf_create(allocator or engine.allocator, m.source, out, err)
   if allocator then return status, out[0] end
   engine.check(status, err)
   return out[0]
end

local function start(m, ivf, rule)
   local err = engine.error_buffer()
   engine.check(lib.rv_ivf_start(ivf, rule, m.scorer, m.spread, m.distances, m.lists, err), err)
end

-- The next up to `limit` rows: { row =, distance = }.
local function take(ivf, limit)
   local out, result, err = {}, ffi.new("rv_ivf_result[1]"), engine.error_buffer()
   while #out < limit do
      local status = lib.rv_ivf_next(ivf, result, err)
      if status == lib.RV_ERR_NOTFOUND then break end
      engine.check(status, err)
      out[#out + 1] = { row = tonumber(result[0].row), distance = result[0].distance,
         list = result[0].list }
   end
   return out
end

-- Every row of some lists (a set; nil: all), nearest first.
local function brute_force(m, lists)
   local out = {}
   for list = 0, m.lists - 1 do
      if not lists or lists[list] then
         for _, row in ipairs(m.members[list]) do
            out[#out + 1] = { row = row, distance = lib.rv_ivf_exact(m.scorer, m.vectors + row * m.dim) }
         end
      end
   end
   table.sort(out, function(a, b)
      if a.distance ~= b.distance then return a.distance < b.distance end
      return a.row < b.row
   end)
   return out
end

local function nearest_lists(m, count)
   local order, out = {}, {}
   for l = 0, m.lists - 1 do order[l + 1] = l end
   table.sort(order, function(a, b)
      if m.distances[a] ~= m.distances[b] then return m.distances[a] < m.distances[b] end
      return a < b
   end)
   for i = 1, count do out[order[i]] = true end
   return out, order
end

describe("the search over lists", function()
   for metric_name, metric in pairs(METRICS) do
      for storage_name, storage in pairs(STORAGES) do
         it(("finds what brute force finds, under %s from %s"):format(metric_name, storage_name), function()
            local m = make(metric, storage, 1500, 20, 13, 7)
            local ivf = create(m)
            for _, probes in ipairs { 1, 3, 20 } do
               aim(m)
               local expected = brute_force(m, (nearest_lists(m, probes)))
               start(m, ivf, rule_of { probes = probes })
               local found = take(ivf, #expected)
               assert.equal(#expected, #found)
               for i, row in ipairs(found) do
                  assert.equal(expected[i].distance, row.distance)
               end
               assert.equal(probes, #m.visited)
            end
            lib.rv_ivf_destroy(ivf)
            release(m)
         end)
      end
   end

   it("hands out every row once, list after list, whatever the windows", function()
      for _, fields in ipairs { { probes = 1 }, { probes = 7 }, { adaptive = true, window = 1 },
         { adaptive = true, window = 10, slack = 0.1 }, { adaptive = true, window = 5000 },
         { adaptive = true, window = 10, max_lists = 1 }, { adaptive = true, window = 10, max_rows = 1 } } do
         local m = make(METRICS.l2, STORAGES.int8, 1500, 20, 13, 8)
         local ivf = create(m)
         aim(m)
         start(m, ivf, rule_of(fields))
         local seen = {}
         local found = take(ivf, 2000)
         for _, row in ipairs(found) do
            assert.is_nil(seen[row.row])
            seen[row.row] = true
         end
         assert.equal(1500, #found)
         assert.equal(20, #m.visited)
         local stats = lib.rv_ivf_get_stats(ivf)
         assert.equal(1500, tonumber(lib.rv_ivf_rows(ivf)))
         assert.equal(20 + 1500 + 1500, tonumber(stats.distances)) -- centres, codes, vectors
         lib.rv_ivf_destroy(ivf)
         release(m)
      end
   end)

   it("compares few rows exactly when few are asked for", function()
      local m = make(METRICS.l2, STORAGES.int8, 3000, 10, 32, 9)
      local ivf = create(m)
      aim(m)
      start(m, ivf, rule_of { probes = 10 })
      take(ivf, 10)
      assert.is_true(m.compared >= 10 and m.compared < 40)
      lib.rv_ivf_destroy(ivf)
      release(m)
   end)

   it("leaves out rows that are gone when they are compared", function()
      local m = make(METRICS.l2, STORAGES.int8, 300, 5, 8, 10)
      local ivf = create(m)
      aim(m)
      local all = brute_force(m)
      m.gone = { [all[1].row] = true, [all[7].row] = true }
      start(m, ivf, rule_of { probes = 5 })
      local found = take(ivf, 1000)
      assert.equal(298, #found)
      assert.equal(all[2].row, found[1].row)
      lib.rv_ivf_destroy(ivf)
      release(m)
   end)

   it("puts keys that are not numbers last", function()
      local m = make(METRICS.l2, STORAGES.float32, 200, 2, 4, 11)
      for i = 0, 3 do m.codes[m.code_size * 3 + 4 * i + 2], m.codes[m.code_size * 3 + 4 * i + 3] = -1, 127 end
      local ivf = create(m)
      aim(m)
      start(m, ivf, rule_of { probes = 2 })
      local found = take(ivf, 1000)
      assert.equal(200, #found)
      assert.equal(3, found[200].row)
      assert.equal(math.huge, found[200].distance)
      lib.rv_ivf_destroy(ivf)
      release(m)
   end)

   it("stops adaptively at the first list beyond the slack", function()
      for name, metric in pairs(METRICS) do
         local m = make(metric, STORAGES.float32, 4000, 40, 8, 12)
         local ivf = create(m)
         for round = 1, 10 do
            local slack = round / 10
            aim(m)
            local unit = m.spread * (name == "ip" and m.max_norm * lib.rv_norm(m.query, m.dim) or 1)
            start(m, ivf, rule_of { adaptive = true, window = 10, slack = slack })
            local found = take(ivf, 10)
            local lists, expected, rows = {}, 0, 0
            local _, order = nearest_lists(m, 0)
            for i, list in ipairs(order) do
               if rows >= 10 and (m.distances[list] - m.distances[order[1]]) / unit > slack then break end
               lists[list], expected, rows = true, i, rows + #m.members[list]
            end
            assert.equal(expected, #m.visited)
            assert.equal(brute_force(m, lists)[10].row, found[10].row)
            assert.equal(tonumber(expected < 40 and lib.RV_STOP_RULE or lib.RV_STOP_EXHAUSTED),
               lib.rv_ivf_get_stats(ivf).reason)
         end
         lib.rv_ivf_destroy(ivf)
         release(m)
      end
   end)

   it("allows more in each later window, at least one list", function()
      local m = make(METRICS.l2, STORAGES.float32, 4000, 40, 8, 16)
      local ivf = create(m)
      aim(m)
      start(m, ivf, rule_of { adaptive = true, window = 5, slack = 0 })
      local _, order = nearest_lists(m, 0)
      for window = 1, 6 do
         take(ivf, 5 * 2 ^ (window - 1))
         assert.equal(window, #m.visited)
         assert.equal(order[window], m.visited[window])
      end
      lib.rv_ivf_destroy(ivf)
      release(m)
   end)

   it("halves the excess of preferred lists, once", function()
      local m = make(METRICS.l2, STORAGES.float32, 2000, 20, 8, 13)
      local ivf = create(m)
      aim(m)
      local _, order = nearest_lists(m, 0)
      local excess = {}
      for _, list in ipairs(order) do excess[list] = m.distances[list] - m.distances[order[1]] end
      for _, i in ipairs { 3, 9, 20 } do excess[order[i]] = excess[order[i]] / 2 end
      start(m, ivf, rule_of { adaptive = true, window = 10 })
      lib.rv_ivf_prefer(ivf, ffi.new("uint32_t[5]", { order[20], 999, order[20], order[3], order[9] }), 5)
      take(ivf, 5000)
      assert.equal(20, #m.visited)
      for i = 2, 20 do assert.is_true(excess[m.visited[i - 1]] <= excess[m.visited[i]] * (1 + 1e-6)) end
      lib.rv_ivf_destroy(ivf)
      release(m)
   end)

   it("refuses rules that make no sense", function()
      local m = make(METRICS.l2, STORAGES.float32, 10, 2, 2, 14)
      local ivf, err = create(m), engine.error_buffer()
      aim(m)
      for _, fields in ipairs { { probes = 0 }, { adaptive = true, window = 0 },
         { adaptive = true, window = 1, slack = -1 }, { adaptive = true, window = 1, slack = 0 / 0 } } do
         assert.equal(lib.RV_ERR_RANGE,
            lib.rv_ivf_start(ivf, rule_of(fields), m.scorer, m.spread, m.distances, 2, err))
      end
      start(m, ivf, rule_of { probes = 1 })
      assert.equal(lib.RV_ERR_STATE,
         lib.rv_ivf_set_rule(ivf, rule_of { adaptive = true, window = 1 }, err))
      lib.rv_ivf_destroy(ivf)
      release(m)
   end)

   it("leaks nothing when an allocation fails", function()
      local m = make(METRICS.l2, STORAGES.int8, 2000, 10, 8, 15)
      aim(m)
      local fail_at, failures = 1, 0
      while true do
         local a, err = ffi.new("rv_test_allocator"), engine.error_buffer()
         lib.rv_test_allocator_init(a, fail_at)
         local status, ivf = create(m, a.allocator)
         if status == lib.RV_OK then
            status = lib.rv_ivf_start(ivf, rule_of { probes = 3 }, m.scorer, m.spread, m.distances, 10, err)
            local result = ffi.new("rv_ivf_result[1]")
            while status == lib.RV_OK do status = lib.rv_ivf_next(ivf, result, err) end
            lib.rv_ivf_destroy(ivf)
         end
         assert.equal(0, tonumber(a.live))
         if status == lib.RV_ERR_NOTFOUND then break end
         assert.equal(lib.RV_ERR_NOMEM, status)
         fail_at, failures = fail_at + 1, failures + 1
      end
      assert.is_true(failures >= 5)
      release(m)
   end)
end)

describe("the deep trace over lists", function()
   for storage_name, storage in pairs(STORAGES) do
      it("names the least slack and probes of each true neighbour, from " .. storage_name, function()
         local m = make(METRICS.l2, storage, 4000, 40, 8, 21)
         local ivf, err = create(m), engine.error_buffer()
         local limits = ffi.new("rv_trace_limits", { k = 10, max_slack = 10, max_ef = 1000,
            max_distances = 1e9 })
         local efforts, summary = ffi.new("rv_effort[10]"), ffi.new("rv_trace_summary[1]")
         for _ = 1, 20 do
            aim(m)
            local all = brute_force(m)
            local truth = ffi.new("float[10]")
            for i = 0, 9 do truth[i] = all[i + 1].distance end
            engine.check(lib.rv_ivf_trace(ivf, limits, m.scorer, m.spread, m.distances, 40, truth, 10,
               efforts, summary, err), err)
            assert.equal(10, summary[0].found)
            local function found_with(rule)
               start(m, ivf, rule)
               local hits = 0
               for _, row in ipairs(take(ivf, 10)) do
                  if row.distance <= truth[9] * (1 + 1e-6) then hits = hits + 1 end
               end
               return hits
            end
            for i = 0, 9 do
               assert.is_true(i == 0 or efforts[i].slack >= efforts[i - 1].slack)
               local slack = efforts[i].slack
               assert.is_true(found_with(rule_of { adaptive = true, window = 10, slack = slack }) > i)
               assert.is_true(found_with(rule_of { probes = efforts[i].ef }) > i)
               if efforts[i].ef > 1 then
                  assert.is_true(found_with(rule_of { probes = efforts[i].ef - 1 }) <= i)
               end
               if slack > 0 then
                  local less = slack * (1 - 1e-5)
                  assert.is_true(found_with(rule_of { adaptive = true, window = 10, slack = less }) <= i)
               end
            end
            for i = 0, summary[0].nearest_count - 1 do
               assert.is_true(summary[0].nearest[i] >= 1 and summary[0].nearest[i] <= 40)
            end
         end
         lib.rv_ivf_destroy(ivf)
         release(m)
      end)
   end

   it("ends at its limits, and says what was not found", function()
      local m = make(METRICS.l2, STORAGES.float32, 4000, 40, 8, 22)
      local ivf, err = create(m), engine.error_buffer()
      local efforts, summary = ffi.new("rv_effort[10]"), ffi.new("rv_trace_summary[1]")
      aim(m)
      local all = brute_force(m)
      local truth = ffi.new("float[10]")
      for i = 0, 9 do truth[i] = all[i + 1].distance end
      local limits = ffi.new("rv_trace_limits", { k = 10, max_slack = 10, max_ef = 1, max_distances = 1e9 })
      engine.check(lib.rv_ivf_trace(ivf, limits, m.scorer, m.spread, m.distances, 40, truth, 10, efforts,
         summary, err), err)
      assert.equal(1, #m.visited)
      assert.is_true(summary[0].found < 10)
      assert.equal(math.huge, efforts[9].slack)
      assert.equal(4294967295, efforts[9].ef)
      limits.k = 5
      assert.equal(lib.RV_ERR_RANGE, lib.rv_ivf_trace(ivf, limits, m.scorer, m.spread, m.distances, 40, truth,
         10, efforts, summary, err))
      lib.rv_ivf_destroy(ivf)
      release(m)
   end)
end)

describe("the codes of a list", function()
   it("bound the distance from below, closely", function()
      for _, metric in pairs(METRICS) do
         for _, storage in ipairs { STORAGES.float16, STORAGES.int8 } do
            local m = make(metric, storage, 500, 1, 65, 31)
            local key = ffi.new("float[1]")
            for _ = 1, 5 do
               aim(m)
               for row = 0, m.rows - 1 do
                  lib.rv_ivf_score(m.scorer, m.codes + row * m.code_size, m.scales + row, m.errors + row, 1,
                     key)
                  local exact = lib.rv_ivf_exact(m.scorer, m.vectors + row * m.dim)
                  assert(key[0] <= exact, "a lower bound is above")
                  local size = lib.rv_norm(m.query, m.dim) * m.max_norm
                  assert(exact - key[0] <= 0.05 * math.max(math.abs(exact), size), "a lower bound is loose")
               end
            end
            release(m)
         end
      end
   end)

   it("with the rest of the bits bound the distance of what comes back from both", function()
      for _, metric in pairs(METRICS) do
         local dim, rows = 65, 500
         local m = make(metric, STORAGES.int8, rows, 1, dim, 33)
         local rest, back = ffi.new("int8_t[?]", 3 * dim), ffi.new("float[?]", dim)
         local code, scale = ffi.new("int8_t[?]", dim), ffi.new("float[1]")
         local err, key = ffi.new("float[1]"), ffi.new("float[1]")
         aim(m)
         for row = 0, rows - 1 do
            lib.rv_ivf_encode_fixed(metric, m.vectors + row * dim, dim, code, rest, scale, err)
            lib.rv_fixed_decode(code, rest, 3, scale[0], back, dim)
            local least = lib.rv_ivf_code_error(metric, back, code, scale[0], dim)
            assert(err[0] >= least and err[0] <= least * 1.001)
            lib.rv_ivf_score(m.scorer, code, scale, err, 1, key)
            assert(key[0] <= lib.rv_ivf_exact(m.scorer, back), "a lower bound is above")
         end
         release(m)
      end
   end)

   it("are zero with an infinite error where they cannot hold a vector", function()
      local vector = ffi.new("float[2]", { 1e6, 1 })
      local code, scale, err = ffi.new("uint16_t[2]", { 7, 7 }), ffi.new("float[1]"), ffi.new("float[1]")
      lib.rv_ivf_encode(STORAGES.float16, METRICS.l2, vector, 2, code, scale, err)
      assert.same({ 0, 0, math.huge }, { code[0], code[1], err[0] })
      local scorer, key = ffi.new("rv_ivf_scorer"), ffi.new("float[1]")
      for _, metric in pairs(METRICS) do
         lib.rv_ivf_scorer_init(scorer, metric, STORAGES.float16, vector, 2, 1e6)
         lib.rv_ivf_score(scorer, code, scale, err, 1, key)
         assert.is_true(key[0] <= lib.rv_ivf_exact(scorer, vector))
      end
   end)
end)

describe("the number of lists", function()
   it("is a thousandth of the rows, and the square root of many", function()
      for rows, lists in pairs { [0] = 1, [999] = 1, [2500] = 2, [200000] = 200, [1e6] = 1000,
         [4e6] = 2000, [1e12] = 32768 } do
         assert.equal(lists, lib.rv_ivf_default_lists(rows))
      end
      assert.equal(1, lib.rv_ivf_default_lists(0 / 0))
   end)
end)
