-- bank_spec.lua - the ReasoningBank: patterns, how they are kept, found, merged and pruned.
-- bank_flat_spec.lua has the flat form, bank_json_spec.lua the JSON form.

local engine = require("ruvector.engine")
local B = require("support.bank")
local ffi, lib = engine.ffi, engine.lib

local err = engine.error_buffer()
local L2, IP, COSINE, L1 = lib.RV_METRIC_L2, lib.RV_METRIC_IP, lib.RV_METRIC_COSINE, lib.RV_METRIC_L1
local grid = lib.rv_target_grid()

local function floats(...) return engine.floats { ... } end

local function refused(status, pattern_text, call, ...)
   local got = call(...)
   if got ~= status then assert.equal(status, got) end
   if not engine.message(err):find(pattern_text, 1, true) then assert.equal(pattern_text,
      engine.message(err)) end
end

describe("a pattern's table", function()
   local p = B.pattern()

   it("has a row for each recall of the grid, from 0.5 to 0.999", function()
      assert.equal(12, B.TARGETS)
      assert.equal(0.5, grid[0])
      assert.equal(0.999, grid[11])
      for i = 1, 11 do assert.is_true(grid[i] > grid[i - 1]) end
   end)

   it("gives exactly its rows at the targets of the grid", function()
      for i = 0, 11 do
         assert.equal(p.table_slack[i], lib.rv_pattern_slack_at(p, grid[i]))
         assert.equal(p.table_ef[i], lib.rv_pattern_ef_at(p, grid[i]))
         assert.equal(p.table_recall[i], lib.rv_pattern_recall_at(p, grid[i]))
      end
   end)

   it("is linear in log(1 - target) between them", function()
      for i = 0, 10 do
         for _, share in ipairs { 0.25, 0.5, 0.9 } do
            local from, to = math.log(1 - grid[i]), math.log(1 - grid[i + 1])
            local target = 1 - math.exp((1 - share) * from + share * to)
            local slack = p.table_slack[i] + share * (p.table_slack[i + 1] - p.table_slack[i])
            local ef = p.table_ef[i] + share * (p.table_ef[i + 1] - p.table_ef[i])
            assert.near(slack, lib.rv_pattern_slack_at(p, target), 1e-6)
            assert.equal(math.ceil(ef - 1e-6), lib.rv_pattern_ef_at(p, target))
         end
      end
      assert.is_true(lib.rv_pattern_slack_at(p, 0.985) > (p.table_slack[8] + p.table_slack[9]) / 2 - 0.02)
   end)

   it("never falls with a rising target", function()
      local random = B.random(5)
      for _ = 1, 20 do
         local q = B.random_pattern(random)
         local slack, ef = -1, 0
         for target = 0.4, 1.0001, 0.0007 do
            assert.is_true(lib.rv_pattern_slack_at(q, target) >= slack and lib.rv_pattern_ef_at(q,
               target) >= ef)
            slack, ef = lib.rv_pattern_slack_at(q, target), lib.rv_pattern_ef_at(q, target)
         end
      end
   end)

   it("ends with its last row for targets beyond the grid, 1 and not a number", function()
      for _, target in ipairs { 0.9995, 1, 2, 1 / 0, 0 / 0 } do
         assert.equal(p.table_slack[11], lib.rv_pattern_slack_at(p, target))
         assert.equal(p.table_ef[11], lib.rv_pattern_ef_at(p, target))
      end
      for _, target in ipairs { 0.3, 0, -1, -1 / 0 } do
         assert.equal(p.table_slack[0], lib.rv_pattern_slack_at(p, target))
      end
   end)
end)

describe("the check of a pattern", function()
   it("accepts valid ones", function()
      local random = B.random(1)
      for _ = 1, 200 do engine.check(lib.rv_pattern_check(B.random_pattern(random), err), err) end
      engine.check(lib.rv_pattern_check(B.index_pattern(), err), err)
   end)

   it("names the field, its value and its range", function()
      local nan, inf = 0 / 0, 1 / 0
      local cases = {
         { "scope", 2, "scope is 2; must be 0 (index) or 1 (region)" },
         { "k", 0, "k is 0; must be at least 1" },
         { "optimal_ef_search", 0, "optimal_ef_search is 0" },
         { "optimal_probes", 0, "optimal_probes is 0" },
         { "target_recall", 0.25, "target_recall is 0.25; must be 0.5 to 1" },
         { "target_recall", 1.5, "target_recall is 1.5" }, { "target_recall", nan, "target_recall is" },
         { "slack", -1, "slack is -1; must be finite and at least 0" }, { "slack", inf, "slack is inf" },
         { "expected_recall", 1.25, "expected_recall is 1.25; must be 0 to 1" },
         { "confidence", -0.5, "confidence is -0.5" }, { "confidence", nan, "confidence is" },
         { "radius", -1, "radius is -1" }, { "radius", nan, "radius is" },
         { "mean_distances", inf, "mean_distances is inf" },
         { "entry_count", 9, "entry_count is 9; must be at most 8" },
      }
      for _, case in ipairs(cases) do
         refused(lib.RV_ERR_RANGE, case[3], lib.rv_pattern_check, B.pattern { [case[1]] = case[2] }, err)
      end
      refused(lib.RV_ERR_RANGE, "radius is 0.5; must be 0 for an index-wide pattern", lib.rv_pattern_check,
         B.index_pattern { radius = 0.5 }, err)
   end)

   it("looks at every row of the tables", function()
      for i = 1, 11 do
         local p = B.pattern()
         p.table_slack[i] = p.table_slack[i - 1] - 0.001
         refused(lib.RV_ERR_RANGE, "table_slack[" .. i .. "] is", lib.rv_pattern_check, p, err)
         p = B.pattern()
         p.table_ef[i] = p.table_ef[i - 1] - 1
         refused(lib.RV_ERR_RANGE, "table_ef[" .. i .. "] is", lib.rv_pattern_check, p, err)
         p = B.pattern()
         p.table_recall[i] = 1.0001
         refused(lib.RV_ERR_RANGE, "table_recall[" .. i .. "] is", lib.rv_pattern_check, p, err)
         p = B.pattern()
         p.table_slack[i] = 0 / 0
         refused(lib.RV_ERR_RANGE, "table_slack[" .. i .. "] is", lib.rv_pattern_check, p, err)
      end
      refused(lib.RV_ERR_RANGE, "table_ef[0] is 0", lib.rv_pattern_check, B.pattern { table_ef = { 0 } }, err)
   end)
end)

describe("merging two patterns", function()
   local function merge(a, b, weight)
      local out = ffi.new("rv_pattern")
      engine.check(lib.rv_pattern_merge(nil, a, nil, b, nil, 0, weight, out, nil, err), err)
      return out
   end

   it("takes weighted means of figures and sums of samples and usage", function()
      local a = B.pattern { id = 3, samples = 100, usage = 7, slack = 0.25, confidence = 0.5, radius = 1,
         optimal_ef_search = 40, created_us = 5, updated_us = 6 }
      local b = B.pattern { id = 9, samples = 20, usage = 5, slack = 0.5, confidence = 1, radius = 2,
         optimal_ef_search = 80, created_us = 8, updated_us = 9 }
      b.table_ef[11], b.table_slack[11] = 1000, 8
      local out = merge(a, b, 0.25)
      assert.equal(3, tonumber(out.id))
      assert.equal(120, out.samples)
      assert.equal(12, tonumber(out.usage))
      assert.near(0.3125, out.slack, 1e-6)
      assert.near(0.625, out.confidence, 1e-6)
      assert.near(1.25, out.radius, 1e-6)
      assert.equal(50, out.optimal_ef_search)
      assert.equal(5, tonumber(out.created_us))
      assert.equal(9, tonumber(out.updated_us))
      assert.near(a.table_slack[11] * 0.75 + 2, out.table_slack[11], 1e-6)
      assert.equal(math.floor(a.table_ef[11] * 0.75 + 250 + 0.5), out.table_ef[11])
   end)

   it("puts newer entry points first, without repeats, and drops the oldest beyond eight", function()
      local a = B.pattern { entry_points = { 1, 2, 3, 4, 5, 6 } }
      local b = B.pattern { entry_points = { 9, 2, 8, 9, 7 } }
      local out = merge(a, b, 0.5)
      local points = {}
      for i = 0, out.entry_count - 1 do points[i + 1] = tonumber(out.entry_points[i]) end
      assert.same({ 9, 2, 8, 7, 1, 3, 4, 5 }, points)
   end)

   it("moves the centroid by its weight, also in place", function()
      local a, b = floats(0, 4), floats(8, 0)
      local out = ffi.new("rv_pattern")
      engine.check(lib.rv_pattern_merge(nil, B.pattern(), a, B.pattern(), b, 2, 0.25, out, a, err), err)
      assert.equal(2, a[0])
      assert.equal(3, a[1])
   end)

   it("reads the headline figures off the table when they were made for different targets", function()
      local a, b = B.pattern { target_recall = 0.95, slack = 3 }, B.pattern { target_recall = 0.99,
         slack = 7 }
      local out = merge(a, b, 0.5)
      assert.near(0.99, out.target_recall, 1e-6)
      assert.near(lib.rv_pattern_slack_at(out, 0.99), out.slack, 1e-6)
      assert.equal(lib.rv_pattern_ef_at(out, b.target_recall), out.optimal_ef_search)
   end)

   it("gives a valid pattern for any two and any weight, and leaves equal ones as they are", function()
      local random = B.random(3)
      for _ = 1, 500 do
         local a = B.random_pattern(random, { k = 10, index_epoch = 1 })
         local b = B.random_pattern(random, { k = 10, index_epoch = 1 })
         local out = merge(a, b, random.uniform())
         engine.check(lib.rv_pattern_check(out, err), err)
         local same = merge(a, a, random.uniform())
         for i = 0, 11 do
            assert.equal(a.table_slack[i], same.table_slack[i])
            assert.equal(a.table_ef[i], same.table_ef[i])
         end
         assert.equal(a.slack, same.slack)
      end
   end)

   it("keeps counts at their limit instead of wrapping", function()
      local a = B.pattern { samples = 4294967290, usage = -1ULL }
      local out = merge(a, a, 0.5)
      assert.equal(4294967295, out.samples)
      assert.equal(-1ULL, out.usage)
   end)

   it("refuses patterns of another k, epoch or scope, and weights outside 0 to 1", function()
      local a, out = B.pattern(), ffi.new("rv_pattern")
      for _, b in ipairs { B.pattern { k = 11 }, B.pattern { index_epoch = 1 }, B.index_pattern() } do
         refused(lib.RV_ERR_INVALID, "differ", lib.rv_pattern_merge, nil, a, nil, b, nil, 0, 0.5, out, nil,
            err)
      end
      for _, weight in ipairs { -0.1, 1.1, 0 / 0 } do
         refused(lib.RV_ERR_RANGE, "weight", lib.rv_pattern_merge, nil, a, nil, a, nil, 0, weight, out, nil,
            err)
      end
   end)
end)

describe("a bank", function()
   it("is made for a metric, 1 to 16,000 dimensions and 1 to 100,000 patterns", function()
      local out = ffi.new("rv_bank *[1]")
      local function create(...) return lib.rv_bank_create(engine.allocator, ...) end
      refused(lib.RV_ERR_DIMENSION, "0 dimensions; must be 1 to 16000", create, L2, 0, 10, out, err)
      refused(lib.RV_ERR_DIMENSION, "16001 dimensions", create, L2, 16001, 10, out, err)
      refused(lib.RV_ERR_RANGE, "max_patterns is 0", create, L2, 8, 0, out, err)
      refused(lib.RV_ERR_RANGE, "max_patterns is 100001", create, L2, 8, 100001, out, err)
      refused(lib.RV_ERR_INVALID, "no metric 9", create, ffi.cast("rv_metric", 9), 8, 10, out, err)
      local bank = B.new(COSINE, 8, 10)
      assert.equal(8, lib.rv_bank_dim(bank))
      assert.equal(tonumber(COSINE), tonumber(lib.rv_bank_metric(bank)))
      assert.equal(0, lib.rv_bank_count(bank))
      assert.is_true(lib.rv_bank_get(bank, 0, nil) == nil)
      assert.is_true(lib.rv_bank_index_pattern(bank) == nil)
      lib.rv_bank_destroy(nil)
   end)

   describe("asked to put", function()
      it("assigns ids, and lists the index-wide pattern first and the rest by id", function()
         local bank = B.new(L2, 2)
         assert.equal(1, B.put(bank, B.pattern(), floats(1, 0)))
         assert.equal(9, B.put(bank, B.pattern { id = 9 }, floats(9, 0)))
         assert.equal(4, B.put(bank, B.pattern { id = 4 }, floats(4, 0)))
         assert.equal(10, B.put(bank, B.index_pattern()))
         assert.equal(11, B.put(bank, B.pattern(), floats(11, 0)))
         assert.equal(5, B.check(bank))
         local row, ids, xs = ffi.new("const float *[1]"), {}, {}
         for i = 0, 4 do
            ids[i + 1] = tonumber(lib.rv_bank_get(bank, i, row).id)
            xs[i + 1] = row[0] ~= nil and row[0][0] or 0
         end
         assert.same({ 10, 1, 4, 9, 11 }, ids)
         assert.same({ 0, 1, 4, 9, 11 }, xs)
      end)

      it("replaces a pattern whose id is taken, and the former index-wide one", function()
         local bank = B.new(L2, 2)
         B.put(bank, B.pattern { id = 5 }, floats(1, 1))
         B.put(bank, B.pattern { id = 5, k = 99 }, floats(2, 2))
         assert.equal(1, B.check(bank))
         assert.equal(99, lib.rv_bank_get(bank, 0, nil).k)
         B.put(bank, B.index_pattern())
         B.put(bank, B.index_pattern { k = 7 })
         assert.equal(2, B.check(bank))
         assert.equal(7, lib.rv_bank_index_pattern(bank).k)
         B.put(bank, B.index_pattern { id = 5, k = 8 }) -- takes the region's id, and its place
         assert.equal(1, B.check(bank))
         assert.equal(8, lib.rv_bank_index_pattern(bank).k)
         B.put(bank, B.pattern { id = 5 }, floats(3, 3))
         assert.equal(1, B.check(bank))
         assert.is_true(lib.rv_bank_index_pattern(bank) == nil)
      end)

      it("copies what it is given", function()
         local bank, p, row = B.new(L2, 2), B.pattern { entry_points = { 1, 2 } }, floats(1, 2)
         p.entry_points[5] = 99
         B.put(bank, p, row)
         p.k, row[0] = 5, 9
         local kept = ffi.new("const float *[1]")
         local got = lib.rv_bank_get(bank, 0, kept)
         assert.equal(10, got.k)
         assert.equal(1, kept[0][0])
         assert.equal(0, tonumber(got.entry_points[5]))
      end)

      it("refuses invalid patterns and centroids and stays as it was", function()
         local bank = B.fill(B.new(L2, 2), 3, function() return floats(1, 2) end)
         local before, id = B.contents(bank), ffi.new("uint64_t[1]")
         local function put(p, row) return lib.rv_bank_put(bank, p, row, id, err) end
         refused(lib.RV_ERR_RANGE, "slack is -1", put, B.pattern { slack = -1 }, floats(1, 2))
         refused(lib.RV_ERR_RANGE, "centroid[1] is nan", put, B.pattern(), floats(1, math.abs(0 / 0)))
         refused(lib.RV_ERR_RANGE, "centroid[0] is inf", put, B.pattern(), floats(1 / 0, 1))
         refused(lib.RV_ERR_INVALID, "needs its centroid", put, B.pattern(), nil)
         refused(lib.RV_ERR_INVALID, "has no centroid", put, B.index_pattern(), floats(1, 2))
         assert.equal(before, B.contents(bank))
      end)

      it("holds no more than max_patterns, and says so", function()
         local bank = B.fill(B.new(L2, 2, 3), 2, function() return floats(1, 2) end)
         B.put(bank, B.index_pattern())
         local before = B.contents(bank)
         refused(lib.RV_ERR_FULL, "limit of 3 patterns", lib.rv_bank_put, bank, B.pattern(), floats(1, 1),
            nil, err)
         assert.equal(before, B.contents(bank))
         B.put(bank, B.pattern { id = 2, k = 3 }, floats(5, 5)) -- replacing is no growth
         B.put(bank, B.index_pattern { k = 3 })
         assert.equal(3, B.check(bank))
      end)

      it("runs out of ids only after the last 64-bit number", function()
         local bank = B.new(L2, 2)
         B.put(bank, B.pattern { id = -1ULL }, floats(1, 1))
         refused(lib.RV_ERR_FULL, "no pattern id is left", lib.rv_bank_put, bank, B.pattern(), floats(1, 1),
            nil, err)
      end)
   end)

   it("removes by id, and says when there is none", function()
      local bank = B.fill(B.new(L2, 2), 3, function() return floats(1, 2) end)
      local index = B.put(bank, B.index_pattern())
      engine.check(lib.rv_bank_remove(bank, 2, err), err)
      engine.check(lib.rv_bank_remove(bank, index, err), err)
      assert.equal(2, B.check(bank))
      refused(lib.RV_ERR_NOTFOUND, "no pattern 2", lib.rv_bank_remove, bank, 2, err)
      assert.equal(5, B.put(bank, B.pattern(), floats(1, 1)), "ids are not used again")
   end)

   it("agrees with a plain table over thousands of puts and removes", function()
      local random = B.random(11)
      local bank, model, count = B.new(L2, 3, 200), {}, 0
      for _ = 1, 4000 do
         local id = 1 + random.below(300)
         if random.uniform() < 0.6 then
            local status = lib.rv_bank_put(bank, B.pattern { id = id, k = id }, B.vector(random, 3), nil, err)
            if model[id] or count < 200 then
               assert.equal(lib.RV_OK, status)
               count = count + (model[id] and 0 or 1)
               model[id] = true
            else
               assert.equal(lib.RV_ERR_FULL, status)
            end
         else
            assert.equal(model[id] and lib.RV_OK or lib.RV_ERR_NOTFOUND, lib.rv_bank_remove(bank, id, err))
            count = count - (model[id] and 1 or 0)
            model[id] = nil
         end
      end
      assert.equal(count, B.check(bank))
      for i = 0, count - 1 do assert.is_true(model[tonumber(lib.rv_bank_get(bank, i, nil).id)]) end
   end)
end)

-- What a lookup must give, from the definitions alone.
local function true_distance(metric, a, b, dim)
   local sum, aa, bb = 0, 0, 0
   for i = 0, dim - 1 do
      if metric == L2 then sum = sum + (a[i] - b[i]) ^ 2
      elseif metric == L1 then sum = sum + math.abs(a[i] - b[i])
      else sum, aa, bb = sum + a[i] * b[i], aa + a[i] ^ 2, bb + b[i] ^ 2 end
   end
   if metric == L2 then return math.sqrt(sum) end
   if metric == L1 then return sum end
   return math.sqrt(math.max(0, 2 - 2 * sum / math.sqrt(aa * bb)))
end

local function true_nearest(bank, metric, query, k)
   local list, row, dim = {}, ffi.new("const float *[1]"), lib.rv_bank_dim(bank)
   for i = 0, lib.rv_bank_count(bank) - 1 do
      local p = lib.rv_bank_get(bank, i, row)
      if row[0] ~= nil then
         local d = true_distance(metric, query, row[0], dim)
         local similarity = (metric == L2 or metric == L1) and (d == 0 and 1 or 1 - d / (d + p.radius))
            or math.max(0, 1 - d * d / 2)
         list[#list + 1] = { id = tonumber(p.id), distance = d, similarity = similarity }
      end
   end
   table.sort(list, function(a, b)
      if a.distance ~= b.distance then return a.distance < b.distance end
      return a.id < b.id
   end)
   for i = #list, k + 1, -1 do list[i] = nil end
   return list
end

local metrics = { L2 = L2, ["inner product"] = IP, cosine = COSINE, L1 = L1 }

describe("a lookup", function()
   for name, metric in pairs(metrics) do
      it("finds the exact nearest patterns by " .. name .. ", with distance and similarity", function()
         local random = B.random(21)
         local bank = B.new(metric, 19)
         B.put(bank, B.index_pattern())
         for i = 1, 300 do B.put(bank, B.pattern { radius = 0.1 + i / 100 }, B.vector(random, 19)) end
         for _ = 1, 40 do
            local query, k = B.vector(random, 19), 1 + random.below(12)
            local expected, got = true_nearest(bank, metric, query, k), B.lookup(bank, query, k)
            assert.equal(#expected, #got)
            for i = 1, k do
               assert.equal(expected[i].id, got[i].id)
               assert.near(expected[i].distance, got[i].distance, 1e-4 * (1 + expected[i].distance))
               assert.near(expected[i].similarity, got[i].similarity, 1e-4)
            end
         end
      end)
   end

   it("gives an exact hit similarity 1 and distance 0, even with radius 0", function()
      for _, metric in pairs(metrics) do
         local bank = B.new(metric, 2)
         B.put(bank, B.pattern { radius = 0 }, floats(3, 4))
         local match = B.lookup(bank, floats(3, 4), 1)[1]
         assert.near(1, match.similarity, 1e-6)
         assert.near(0, match.distance, 1e-3)
      end
   end)

   it("gives similarity 0 to a direction more than a right angle away, and to a zero vector", function()
      local bank = B.new(COSINE, 2)
      B.put(bank, B.pattern(), floats(1, 0))
      assert.equal(0, B.lookup(bank, floats(-1, 0.1), 1)[1].similarity)
      assert.equal(0, B.lookup(bank, floats(0, 0), 1)[1].similarity)
   end)

   it("breaks ties by id", function()
      local bank = B.fill(B.new(L2, 2), 20, function() return floats(1, 1) end)
      local ids = {}
      for i, match in ipairs(B.lookup(bank, floats(0, 0), 5)) do ids[i] = match.id end
      assert.same({ 1, 2, 3, 4, 5 }, ids)
   end)

   it("gives what there is when there is less than asked for, or nothing", function()
      local bank = B.new(L2, 2)
      assert.same({}, B.lookup(bank, floats(0, 0), 5))
      B.put(bank, B.index_pattern())
      assert.same({}, B.lookup(bank, floats(0, 0), 5))
      B.put(bank, B.pattern(), floats(1, 1))
      assert.equal(1, #B.lookup(bank, floats(0, 0), 5))
   end)

   it("refuses a query with a value that is not finite", function()
      local bank, out, count = B.new(L2, 2), ffi.new("rv_bank_match[1]"), ffi.new("uint32_t[1]")
      refused(lib.RV_ERR_RANGE, "query[1] is nan", lib.rv_bank_lookup, bank, floats(0, math.abs(0 / 0)), 1,
         out,
         count, err)
   end)

   for name, metric in pairs(metrics) do
      it("above 512 patterns finds nearly all of the nearest by " .. name .. ", and sees every change",
         function()
         local random = B.random(31)
         local next_centroid = B.clustered(random, 24, 40)
         local bank = B.fill(B.new(metric, 24, 3000), 1500, next_centroid)
         local found, total = 0, 0
         for _ = 1, 100 do
            local query = next_centroid()
            local expected, got, seen = true_nearest(bank, metric, query, 5), B.lookup(bank, query, 5), {}
            assert.equal(5, #got)
            for i, match in ipairs(got) do
               seen[match.id] = true
               if i > 1 then assert.is_true(got[i - 1].distance <= match.distance) end
            end
            for _, match in ipairs(expected) do found, total = found + (seen[match.id] and 1 or 0),
               total + 1 end
         end
         assert.is_true(found / total >= 0.97, "recall " .. found / total)

         local query = B.vector(random, 24)
         local id = B.put(bank, B.pattern(), query)
         assert.equal(id, B.lookup(bank, query, 1)[1].id)
         engine.check(lib.rv_bank_remove(bank, id, err), err)
         assert.not_equal(id, B.lookup(bank, query, 1)[1].id)
      end)
   end
end)

describe("learning a pattern", function()
   local id = ffi.new("uint64_t[1]")
   local function learn(bank, pattern, row, rate, similarity, merge)
      engine.check(lib.rv_bank_learn(bank, pattern, row, rate or 0, similarity or 0.9, merge, nil, id, err),
         err)
      return tonumber(id[0])
   end

   it("adds one that resembles nothing, and merges one that does", function()
      local bank = B.new(COSINE, 2)
      assert.equal(1, learn(bank, B.pattern { samples = 30 }, floats(1, 0)))
      assert.equal(2, learn(bank, B.pattern { samples = 30 }, floats(0, 1)))
      assert.equal(1, learn(bank, B.pattern { samples = 10, slack = 0.525 }, floats(2, 0.2)))
      assert.equal(2, B.check(bank))
      local row = ffi.new("const float *[1]")
      local p = lib.rv_bank_get(bank, 0, row)
      assert.equal(40, p.samples)
      assert.near(0.125 + 0.25 * 0.4, p.slack, 1e-6)
      assert.near(1.25, row[0][0], 1e-6)
      assert.near(0.05, row[0][1], 1e-6)
   end)

   it("gives the new one a weight of at least the learning rate", function()
      local bank = B.new(L2, 2)
      learn(bank, B.pattern { samples = 99, slack = 0 }, floats(1, 0))
      learn(bank, B.pattern { samples = 1, slack = 1 }, floats(1, 0), 0.3)
      assert.near(0.3, lib.rv_bank_get(bank, 0, nil).slack, 1e-6)
      learn(bank, B.pattern { samples = 300, slack = 1 }, floats(1, 0), 0.3)
      assert.near(0.3 + 0.75 * 0.7, lib.rv_bank_get(bank, 0, nil).slack, 1e-6)
   end)

   it("merges with the nearest of the same k and epoch only", function()
      local bank = B.new(L2, 1)
      learn(bank, B.pattern { radius = 10 }, floats(0))
      learn(bank, B.pattern { radius = 10, k = 20 }, floats(0.1))
      learn(bank, B.pattern { radius = 10, index_epoch = 5 }, floats(0.2))
      assert.equal(3, B.check(bank))
      assert.equal(2, learn(bank, B.pattern { radius = 10, k = 20 }, floats(0)))
      assert.equal(3, learn(bank, B.pattern { radius = 10, index_epoch = 5 }, floats(0)))
      assert.equal(1, learn(bank, B.pattern { radius = 10 }, floats(0.2)))
      assert.equal(3, B.check(bank))
   end)

   it("measures L2 and L1 against the larger radius of the two", function()
      for _, metric in ipairs { L2, L1 } do
         local bank = B.new(metric, 1)
         learn(bank, B.pattern { radius = 1 }, floats(0), 0, 0.5)
         assert.equal(2, learn(bank, B.pattern { radius = 0.9 }, floats(1.01), 0, 0.5)) -- similarity 0.4975
         bank = B.new(metric, 1)
         learn(bank, B.pattern { radius = 1 }, floats(0), 0, 0.5)
         assert.equal(1, learn(bank, B.pattern { radius = 0.2 }, floats(0.99), 0, 0.5)) -- 0.5025
         bank = B.new(metric, 1)
         learn(bank, B.pattern { radius = 0.2 }, floats(0), 0, 0.5)
         assert.equal(1, learn(bank, B.pattern { radius = 1 }, floats(0.99), 0, 0.5))
      end
   end)

   it("merges index-wide patterns of the same k and epoch, and replaces any other", function()
      local bank = B.new(L2, 2)
      assert.equal(1, learn(bank, B.index_pattern { samples = 10 }))
      assert.equal(1, learn(bank, B.index_pattern { samples = 10 }))
      assert.equal(20, lib.rv_bank_index_pattern(bank).samples)
      assert.equal(2, learn(bank, B.index_pattern { samples = 10, index_epoch = 78 }))
      assert.equal(10, lib.rv_bank_index_pattern(bank).samples)
      assert.equal(1, B.check(bank))
   end)

   it("asks the caller's merge, holds it to the contract, and keeps id, k and epoch", function()
      local bank, seen = B.new(L2, 2), {}
      learn(bank, B.pattern { samples = 30 }, floats(1, 1))
      local answer = lib.RV_OK
      local merge = ffi.cast("rv_merge_fn", function(_, _, a_row, b, b_row, dim, weight, out, out_row)
         seen = { dim = dim, weight = weight, a = a_row[0], b = b_row[0] }
         if answer ~= lib.RV_OK then return answer end
         ffi.copy(out, b, ffi.sizeof("rv_pattern"))
         out.id, out.k, out.index_epoch, out.slack = 500, 3, 9, seen.slack or 0.75
         out_row[0], out_row[1] = 7, seen.y or 8
         if seen.b == 3 then out.slack = -1 end
         if seen.b == 4 then out_row[1] = 0 / 0 end
         return lib.RV_OK
      end)
      local function with(x, status, text)
         local before = B.contents(bank)
         local got = lib.rv_bank_learn(bank, B.pattern { samples = 10, radius = 100 }, floats(x, 1), 0, 0.5,
            merge,
            nil, id, err)
         assert.equal(status, got)
         if status ~= lib.RV_OK then
            if text then assert.matches(text, engine.message(err), 1, true) end
            assert.equal(before, B.contents(bank))
         end
      end
      jit.off(with)
      with(2, lib.RV_OK)
      assert.same({ dim = 2, weight = 0.25, a = 1, b = 2 }, seen)
      local p = lib.rv_bank_get(bank, 0, nil)
      assert.same({ 1, 10, 77, 0.75 }, { tonumber(p.id), p.k, tonumber(p.index_epoch), p.slack })
      with(3, lib.RV_ERR_RANGE, "slack is -1")
      with(4, lib.RV_ERR_RANGE, "merged centroid[1] is")
      answer = lib.RV_ERR_CANCELLED
      with(5, lib.RV_ERR_CANCELLED)
      merge:free()
   end)

   it("refuses invalid patterns, rates and similarities, and a full bank", function()
      local bank = B.new(L2, 1, 1)
      local function try(p, row, rate, similarity)
         return lib.rv_bank_learn(bank, p, row, rate, similarity, nil, nil, id, err)
      end
      refused(lib.RV_ERR_RANGE, "k is 0", try, B.pattern { k = 0 }, floats(1), 0, 0.9)
      refused(lib.RV_ERR_RANGE, "learning_rate is 2", try, B.pattern(), floats(1), 2, 0.9)
      refused(lib.RV_ERR_RANGE, "similarity -1", try, B.pattern(), floats(1), 0, -1)
      refused(lib.RV_ERR_RANGE, "centroid[0] is", try, B.pattern(), floats(0 / 0), 0, 0.9)
      refused(lib.RV_ERR_INVALID, "needs its centroid", try, B.pattern(), nil, 0, 0.9)
      refused(lib.RV_ERR_INVALID, "has no centroid", try, B.index_pattern(), floats(1), 0, 0.9)
      learn(bank, B.pattern(), floats(1))
      refused(lib.RV_ERR_INVALID, "needs its centroid", try, B.pattern(), nil, 0, 0.9)
      refused(lib.RV_ERR_FULL, "limit of 1", try, B.pattern(), floats(100), 0, 0.9)
   end)
end)

describe("consolidation", function()
   local merged = ffi.new("uint32_t[1]")

   it("merges until no two patterns are alike", function()
      for name, metric in pairs(metrics) do
         local random = B.random(41)
         local next_centroid = B.clustered(random, 6, 12)
         local radius = metric == L1 and 10 or 3
         local bank = B.fill(B.new(metric, 6), 200, next_centroid, { radius = radius, samples = 10 })
         B.put(bank, B.index_pattern())
         engine.check(lib.rv_bank_consolidate(bank, 0.7, nil, nil, merged, err), err)
         local left = B.check(bank)
         assert.equal(201 - left, merged[0], name)
         assert.is_true(left > 2 and left < 150, name .. ": " .. left)
         local samples, row = 0, ffi.new("const float *[1]")
         for i = 1, left - 1 do
            local p = lib.rv_bank_get(bank, i, row)
            samples = samples + p.samples
            for _, match in ipairs(B.lookup(bank, row[0], 2)) do
               assert.is_true(match.id == tonumber(p.id) or match.similarity < 0.7)
            end
         end
         assert.equal(2000, samples, "no sample is lost")
      end
   end)

   it("keeps the pattern created first, and weighs by samples", function()
      local bank = B.new(L2, 1)
      B.put(bank, B.pattern { created_us = 9, samples = 30, slack = 1 }, floats(0))
      B.put(bank, B.pattern { created_us = 5, samples = 10, slack = 0 }, floats(0.01))
      engine.check(lib.rv_bank_consolidate(bank, 0.9, nil, nil, merged, err), err)
      local p = lib.rv_bank_get(bank, 0, nil)
      assert.same({ 1, 2, 0.75 }, { merged[0], tonumber(p.id), p.slack })
   end)

   it("leaves patterns of another k or epoch apart", function()
      local bank = B.new(L2, 1)
      for _, fields in ipairs { { k = 1 }, { k = 2 }, { index_epoch = 1 }, { index_epoch = 2 } } do
         B.put(bank, B.pattern(fields), floats(1))
      end
      engine.check(lib.rv_bank_consolidate(bank, 0, nil, nil, merged, err), err)
      assert.equal(0, merged[0])
      assert.equal(4, B.check(bank))
   end)

   it("ends at the first refused merge and keeps what was merged until then", function()
      local bank = B.fill(B.new(L2, 1), 10, function() return floats(1) end)
      local calls = 0
      local merge = ffi.cast("rv_merge_fn", function(_, a, a_row, b, b_row, dim, weight, out, out_row)
         calls = calls + 1
         if calls == 4 then return lib.RV_ERR_CANCELLED end
         return lib.rv_pattern_merge(nil, a, a_row, b, b_row, dim, weight, out, out_row, nil)
      end)
      local function run() return lib.rv_bank_consolidate(bank, 0.9, merge, nil, merged, err) end
      jit.off(run)
      assert.equal(lib.RV_ERR_CANCELLED, run())
      merge:free()
      assert.equal(3, merged[0])
      assert.equal(7, B.check(bank))
   end)

   it("refuses a similarity outside 0 to 1", function()
      refused(lib.RV_ERR_RANGE, "similarity is 1.5", lib.rv_bank_consolidate, B.new(L2, 1), 1.5, nil, nil,
         merged, err)
   end)
end)

describe("pruning", function()
   it("drops the region patterns that are not to be kept, never the index-wide one", function()
      local bank = B.fill(B.new(L2, 1), 20, function() return floats(1) end)
      B.put(bank, B.index_pattern())
      local pruned, asked = ffi.new("uint32_t[1]"), 0
      local keep = ffi.cast("rv_keep_fn", function(_, p)
         asked = asked + 1
         return tonumber(p.id) % 3 == 0
      end)
      local function run() return lib.rv_bank_prune(bank, keep, nil, pruned, err) end
      jit.off(run)
      engine.check(run(), err)
      keep:free()
      assert.same({ 14, 20, 7 }, { pruned[0], asked, B.check(bank) })
      assert.is_true(lib.rv_bank_index_pattern(bank) ~= nil)
   end)
end)

describe("a reduced bank", function()
   local function reduced(bank, regions, allocator)
      local out = ffi.new("rv_bank *[1]")
      local status = lib.rv_bank_most_used(bank, allocator or engine.allocator, regions, out, err)
      if not allocator then
         engine.check(status, err)
         return ffi.gc(out[0], lib.rv_bank_destroy)
      end
      if status == lib.RV_OK then lib.rv_bank_destroy(out[0]) end
      return status
   end

   it("has the index-wide pattern and the regions used most, the younger of equals", function()
      local bank = B.new(L2, 2)
      B.put(bank, B.index_pattern { usage = 0 })
      for i, usage in ipairs { 5, 9, 1, 9, 0 } do
         B.put(bank, B.pattern { usage = usage, updated_us = i }, floats(i, i))
      end
      local function ids(regions)
         local list, small = {}, reduced(bank, regions)
         for i = 1, B.check(small) do list[i] = tonumber(lib.rv_bank_get(small, i - 1, nil).id) end
         return list
      end
      assert.same({ 1 }, ids(0))
      assert.same({ 1, 5 }, ids(1))
      assert.same({ 1, 2, 3, 5 }, ids(3))
      assert.equal(B.contents(bank), B.contents(reduced(bank, 99)))
   end)

   it("is made without memory or not at all", function()
      local bank = B.fill(B.new(L2, 2), 5, function() return floats(1, 2) end)
      assert.is_true(B.fail_each_allocation(function(allocator) return reduced(bank, 3, allocator) end) >= 4)
   end)
end)

describe("without memory", function()
   it("creating a bank and putting patterns fails cleanly", function()
      local failures = B.fail_each_allocation(function(allocator)
         local out = ffi.new("rv_bank *[1]")
         local status = lib.rv_bank_create(allocator, L2, 2, 100, out, err)
         if status ~= lib.RV_OK then return status end
         local bank, before = out[0], ""
         for i = 1, 40 do
            status = lib.rv_bank_put(bank, B.pattern { id = 100 - i }, floats(i, i), nil, err)
            if status ~= lib.RV_OK then
               assert(B.contents(bank) == before)
               break
            end
            before = B.contents(bank)
         end
         B.check(bank)
         lib.rv_bank_destroy(bank)
         return status
      end)
      assert.is_true(failures > 40)
   end)

   -- Every operation on a full-grown bank: its allocator begins to fail only once it is set up.
   local function sweep(count, operation)
      local a, failures = ffi.new("rv_test_allocator"), 0
      for fail_at = 1, 100000 do
         lib.rv_test_allocator_init(a, 0)
         local random = B.random(51)
         local bank = B.fill(B.new(L2, 4, 5000, a.allocator), count, B.clustered(random, 4, 9),
            { radius = 2 })
         B.put(bank, B.index_pattern())
         local before = B.contents(bank)
         a.fail_at = a.calls + fail_at
         local status, changes = operation(bank, a.allocator)
         local hit = a.calls >= a.fail_at
         assert(status == (hit and lib.RV_ERR_NOMEM or lib.RV_OK), "status " .. tonumber(status))
         if hit and not changes then assert(B.contents(bank) == before, "changed by a failed call") end
         B.check(bank)
         lib.rv_bank_destroy(bank)
         assert(a.live == 0, "leaked " .. tonumber(a.live) .. " at allocation " .. fail_at)
         if not hit then break end
         failures = failures + 1
      end
      return failures
   end

   it("learning leaves the bank as it was", function()
      local id = ffi.new("uint64_t[1]")
      for _, row in ipairs { floats(100, 0, 0, 0), floats(0, 0, 0, 0) } do
         for _, similarity in ipairs { 0, 1 } do
            assert.is_true(sweep(32, function(bank)
               return lib.rv_bank_learn(bank, B.pattern(), row, 0.1, similarity, nil, nil, id, err)
            end) >= 1)
         end
      end
      assert.equal(1, sweep(3, function(bank)
         return lib.rv_bank_learn(bank, B.index_pattern(), nil, 0.1, 0.9, nil, nil, id, err)
      end))
   end)

   it("consolidation leaves a valid bank", function()
      local merged = ffi.new("uint32_t[1]")
      assert.is_true(sweep(40, function(bank)
         return lib.rv_bank_consolidate(bank, 0.6, nil, nil, merged, err), true
      end) > 3)
   end)

   it("a lookup through the graph fails cleanly", function()
      local out, count = ffi.new("rv_bank_match[3]"), ffi.new("uint32_t[1]")
      assert.is_true(sweep(520, function(bank)
         return lib.rv_bank_lookup(bank, floats(1, 2, 3, 4), 3, out, count, err)
      end) > 5)
   end)
end)
