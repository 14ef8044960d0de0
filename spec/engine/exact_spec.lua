-- Exact search of a batch: what a full sort gives, in any order of feeding.

local engine = require("ruvector.engine")
local proximity = require("support.proximity")
local ffi, lib = engine.ffi, engine.lib

local METRICS = { l2 = lib.RV_METRIC_L2, ip = lib.RV_METRIC_IP, cosine = lib.RV_METRIC_COSINE,
   l1 = lib.RV_METRIC_L1 }

local function random_rows(count, dim, seed, grid)
   local random = proximity.generator(seed)
   local rows = ffi.new("float[?]", math.max(count * dim, 1))
   for i = 0, count * dim - 1 do
      rows[i] = grid and math.floor(random.normal() * 1.5) or random.normal()
   end
   return rows
end

local function create(metric, unit, queries, count, dim, k, allocator)
   local out, err = ffi.new("rv_exact *[1]"), engine.error_buffer()
   local status = tonumber(lib.rv_exact_create(allocator or engine.allocator, metric, unit, queries, count,
      dim, k, out, err))
   if status ~= lib.RV_OK then return nil, status, engine.message(err) end
   return ffi.gc(out[0], lib.rv_exact_destroy)
end

-- Feeds rows (a list of row numbers) in blocks of some size; the id of row i is 10 * i + 3.
local function feed(exact, rows, dim, order, block)
   for start = 1, #order, block do
      local count = math.min(block, #order - start + 1)
      local pointers, ids = ffi.new("const float *[?]", count), ffi.new("uint64_t[?]", count)
      for i = 0, count - 1 do
         pointers[i], ids[i] = rows + order[start + i] * dim, 10 * order[start + i] + 3
      end
      assert.equal(lib.RV_OK, tonumber(lib.rv_exact_feed(exact, pointers, ids, count, nil)))
   end
end

local function result(exact, query, k)
   local hits = ffi.new("rv_exact_hit[?]", k)
   local list = {}
   for i = 0, lib.rv_exact_result(exact, query, hits) - 1 do
      list[i + 1] = { id = tonumber(hits[i].id), distance = hits[i].distance }
   end
   return list
end

local function reference(metric, unit, query, rows, count, dim, k)
   local distance = unit and lib.rv_raw_distance_unit or lib.rv_raw_distance
   local all = {}
   for i = 0, count - 1 do
      all[i + 1] = { id = 10 * i + 3, distance = distance(metric, query, rows + i * dim, dim) }
   end
   table.sort(all, function(a, b)
      if a.distance ~= b.distance then return a.distance < b.distance end
      return a.id < b.id
   end)
   return { unpack(all, 1, math.min(k, count)) }
end

local function ascending(count)
   local order = {}
   for i = 0, count - 1 do order[i + 1] = i end
   return order
end

local function shuffled(count, seed)
   local order, random = ascending(count), proximity.generator(seed)
   for i = count, 2, -1 do
      local j = 1 + random.below(i)
      order[i], order[j] = order[j], order[i]
   end
   return order
end

describe("exact search", function()
   for name, metric in pairs(METRICS) do
      it("gives what a full sort gives, under " .. name, function()
         local cases = { { 1, 1, 1 }, { 200, 7, 10 }, { 333, 24, 25 }, { 5, 3, 10 }, { 64, 4, 64 } }
         for _, case in ipairs(cases) do
            local count, dim, k = unpack(case)
            local rows, queries = random_rows(count, dim, 1), random_rows(6, dim, 2)
            local exact = assert(create(metric, false, queries, 6, dim, k))
            feed(exact, rows, dim, ascending(count), 64)
            for q = 0, 5 do
               local expected = reference(metric, false, queries + q * dim, rows, count, dim, k)
               assert.same(expected, result(exact, q, k))
            end
            assert.equal(6 * count, tonumber(lib.rv_exact_distances(exact)))
         end
      end)
   end

   -- Enough queries that codes say which rows are looked at.
   local MANY = 40

   local function assert_exact(metric, unit, rows, queries, count, dim, k)
      local exact = assert(create(metric, unit, queries, MANY, dim, k))
      feed(exact, rows, dim, ascending(count), 64)
      for q = 0, MANY - 1 do
         assert.same(reference(metric, unit, queries + q * dim, rows, count, dim, k), result(exact, q, k))
      end
   end

   for name, metric in pairs(METRICS) do
      it("gives the same for many queries, under " .. name, function()
         local cases = { { 900, 7, 10 }, { 700, 33, 25 }, { 1500, 128, 1 }, { 500, 200, 10 }, { 30, 3, 40 } }
         for _, case in ipairs(cases) do
            local count, dim, k = unpack(case)
            assert_exact(metric, false, random_rows(count, dim, 1), random_rows(MANY, dim, 2), count, dim, k)
         end
      end)

      it("drops no row for being tied, huge, tiny or zero, under " .. name, function()
         local count, dim, k = 1200, 6, 15
         local rows, queries = random_rows(count, dim, 3, true), random_rows(MANY, dim, 4, true)
         assert_exact(metric, false, rows, queries, count, dim, k)
         for i = 0, count - 1 do
            local scale = ({ 1, 1e-30, 1e-12, 1e12, 1e18, 0 })[1 + i % 6]
            for j = 0, dim - 1 do rows[i * dim + j] = rows[i * dim + j] * scale end
         end
         for i = 0, MANY - 1 do
            local scale = ({ 1, 1e-15, 1e11, 0 })[1 + i % 4]
            for j = 0, dim - 1 do queries[i * dim + j] = queries[i * dim + j] * scale end
         end
         -- a distance to a zero vector is not a number under cosine, and as far as can be
         local exact = assert(create(metric, false, queries, MANY, dim, k))
         feed(exact, rows, dim, ascending(count), 64)
         for q = 0, MANY - 1 do
            local alone = assert(create(metric, false, queries + q * dim, 1, dim, k))
            feed(alone, rows, dim, ascending(count), 64)
            assert.same(result(alone, 0, k), result(exact, q, k))
         end
      end)

      it("drops no row that is nearly as near as others, under " .. name, function()
         -- rows that differ by less than their codes, and by little more than the rounding of a distance
         local count, dim, k = 2000, 64, 10
         local base, noise = random_rows(1, dim, 5), random_rows(count, dim, 6)
         local queries = random_rows(MANY, dim, 7)
         for i = 0, count - 1 do
            for j = 0, dim - 1 do noise[i * dim + j] = base[j] + noise[i * dim + j] * 1e-5 end
         end
         assert_exact(metric, false, noise, queries, count, dim, k)
      end)
   end

   it("takes many unit vectors at their word", function()
      local count, dim = 1500, 48
      local rows, queries = random_rows(count, dim, 1), random_rows(MANY, dim, 2)
      for i = 0, count - 1 do lib.rv_normalize(rows + i * dim, rows + i * dim, dim) end
      for i = 0, MANY - 1 do lib.rv_normalize(queries + i * dim, queries + i * dim, dim) end
      assert_exact(lib.RV_METRIC_COSINE, true, rows, queries, count, dim, 10)
   end)

   it("takes unit vectors at their word", function()
      local rows, queries = random_rows(100, 9, 1), random_rows(3, 9, 2)
      for i = 0, 99 do lib.rv_normalize(rows + i * 9, rows + i * 9, 9) end
      for i = 0, 2 do lib.rv_normalize(queries + i * 9, queries + i * 9, 9) end
      local exact = assert(create(lib.RV_METRIC_COSINE, true, queries, 3, 9, 10))
      feed(exact, rows, 9, ascending(100), 64)
      for q = 0, 2 do
         local expected = reference(lib.RV_METRIC_COSINE, true, queries + q * 9, rows, 100, 9, 10)
         assert.same(expected, result(exact, q, 10))
      end
   end)

   it("orders ties by id, whatever the order and size of the blocks", function()
      -- few distinct rows on a grid: nearly every distance is tied
      local count, dim, k = 400, 2, 30
      local rows, queries = random_rows(count, dim, 3, true), random_rows(4, dim, 4, true)
      for round, block in ipairs({ 1, 7, 64, 100, 400 }) do
         local exact = assert(create(lib.RV_METRIC_L2, false, queries, 4, dim, k))
         feed(exact, rows, dim, shuffled(count, round), block)
         for q = 0, 3 do
            local expected = reference(lib.RV_METRIC_L2, false, queries + q * dim, rows, count, dim, k)
            assert.same(expected, result(exact, q, k))
         end
      end
   end)

   it("may be read while it is fed", function()
      local rows, queries = random_rows(100, 4, 1), random_rows(1, 4, 2)
      local exact = assert(create(lib.RV_METRIC_L2, false, queries, 1, 4, 5))
      assert.same({}, result(exact, 0, 5))
      for i = 0, 99 do
         feed(exact, rows, 4, { i }, 1)
         local expected = reference(lib.RV_METRIC_L2, false, queries, rows, i + 1, 4, 5)
         assert.same(expected, result(exact, 0, 5))
      end
   end)

   it("takes NaN for the farthest distance", function()
      local rows, queries = engine.floats({ 0 / 0, 5, 0 / 0 }), engine.floats({ 1 })
      local exact = assert(create(lib.RV_METRIC_L2, false, queries, 1, 1, 3))
      feed(exact, rows, 1, { 0, 1, 2 }, 3)
      local hits = result(exact, 0, 3)
      assert.equal(3, #hits)
      assert.equal(13, hits[1].id)
      assert.equal(math.huge, hits[3].distance)
   end)

   it("works without queries and without rows", function()
      local exact = assert(create(lib.RV_METRIC_L2, false, engine.floats({ 0 }), 0, 1, 3))
      feed(exact, engine.floats({ 1 }), 1, { 0 }, 1)
      assert.equal(0, tonumber(lib.rv_exact_distances(exact)))
   end)

   it("refuses a k of 0, a bad dimension and an unknown metric", function()
      local queries = engine.floats({ 0 })
      local _, status, message = create(lib.RV_METRIC_L2, false, queries, 1, 1, 0)
      assert.equal(lib.RV_ERR_RANGE, status)
      assert.matches("k is 0", message)
      _, status = create(lib.RV_METRIC_L2, false, queries, 1, 0, 1)
      assert.equal(lib.RV_ERR_DIMENSION, status)
      _, status = create(lib.RV_METRIC_L2, false, queries, 1, 16001, 1)
      assert.equal(lib.RV_ERR_DIMENSION, status)
      _, status = create(ffi.cast("rv_metric", 0), false, queries, 1, 1, 1)
      assert.equal(lib.RV_ERR_INVALID, status)
   end)

   it("leaks nothing when memory ends", function()
      local queries = random_rows(MANY, 4, 1)
      for fail_at = 1, 7 do
         local tester = ffi.new("rv_test_allocator")
         lib.rv_test_allocator_init(tester, fail_at)
         local exact, status = create(lib.RV_METRIC_L2, false, queries, MANY, 4, 5, tester.allocator)
         assert.equal(fail_at < 7, exact == nil)
         if exact then
            lib.rv_exact_destroy(ffi.gc(exact, nil))
         else
            assert.equal(lib.RV_ERR_NOMEM, status)
         end
         assert.equal(0, tonumber(tester.live))
      end
   end)
end)
