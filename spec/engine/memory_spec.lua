-- memory_spec.lua - remembered queries: growing, flat, looked up, and what is refused.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local L2, IP, COSINE, L1 = 1, 2, 3, 4
local DIM = 24
local err = engine.error_buffer()

-- Queries around a few centres, so that "near" means something.
local function make_queries(count, seed, dim)
   local rng = ffi.new("rv_prng[1]")
   lib.rv_prng_seed(rng, seed)
   local centres, queries = {}, {}
   for c = 1, 8 do
      centres[c] = engine.floats(function() return lib.rv_prng_normal(rng) end, dim or DIM)
   end
   for q = 1, count do
      local centre = centres[tonumber(lib.rv_prng_below(rng, 8)) + 1]
      queries[q] = engine.floats(function(i) return centre[i] + 0.2 * lib.rv_prng_normal(rng) end,
         dim or DIM)
   end
   return queries
end

local function create(metric, capacity, allocator, dim)
   local out = ffi.new("rv_memory *[1]")
   local status = lib.rv_memory_create(allocator or engine.allocator, metric, dim or DIM, capacity,
      out, err)
   if status ~= lib.RV_OK then return nil, status end
   return out[0]
end

-- Query q is answered by the nodes 10 q, 10 q + 1, ...
local function add(memory, query, first, count)
   local nodes = ffi.new("rv_node[?]", math.max(count or 3, 1))
   for i = 0, (count or 3) - 1 do nodes[i] = first + i end
   return lib.rv_memory_add(memory, query, nodes, count or 3, err)
end

local function filled(metric, queries, capacity)
   local memory = create(metric, capacity or 1000)
   for q, query in ipairs(queries) do engine.check(add(memory, query, 10 * q), err) end
   return memory
end

local function flatten(memory)
   local size = ffi.new("size_t[1]")
   assert.equal(lib.RV_ERR_FULL, lib.rv_memory_flatten(memory, nil, 0, size, err))
   local buffer = ffi.new("uint64_t[?]", tonumber(size[0]) / 8)
   local status = lib.rv_memory_flatten(memory, buffer, size[0], size, err)
   if status == lib.RV_ERR_NOMEM then -- one allocation fails in some specs, the next one does not
      status = lib.rv_memory_flatten(memory, buffer, size[0], size, err)
   end
   engine.check(status, err)
   return buffer, tonumber(size[0])
end

local function lookup(buffer, query, skip_equal)
   local match = ffi.new("rv_memory_match[1]")
   engine.check(lib.rv_memory_lookup(buffer, engine.allocator, query, skip_equal or false, match, err),
      err)
   local nodes = {}
   for i = 0, match[0].count - 1 do nodes[i + 1] = tonumber(match[0].nodes[i]) end
   return nodes, tonumber(match[0].distances)
end

local function contains(list, value)
   for _, item in ipairs(list) do
      if item == value then return true end
   end
   return false
end

describe("a memory of queries", function()
   it("gives the nodes of a query that it remembers, those first", function()
      for _, metric in ipairs { L2, IP, COSINE, L1 } do
         local queries = make_queries(300, metric)
         local memory = filled(metric, queries)
         local buffer = flatten(memory)
         for q = 1, #queries, 7 do
            local nodes = lookup(buffer, queries[q])
            assert.same({ 10 * q, 10 * q + 1, 10 * q + 2 }, { nodes[1], nodes[2], nodes[3] })
         end
         lib.rv_memory_destroy(memory)
      end
   end)

   it("finds the nearest past query mostly, with few distances", function()
      local queries = make_queries(2000, 5)
      local memory = filled(COSINE, queries, 4000)
      local buffer = flatten(memory)
      local found, work, asked = 0, 0, 0
      for _, query in ipairs(make_queries(2100, 5)) do
         asked = asked + 1
         if asked > 2000 then
            local best, best_distance = nil, math.huge
            for q, past in ipairs(queries) do
               local distance = lib.rv_raw_distance(COSINE, query, past, DIM)
               if distance < best_distance then best, best_distance = q, distance end
            end
            local nodes, distances = lookup(buffer, query)
            if contains(nodes, 10 * best) then found = found + 1 end
            work = work + distances
         end
      end
      assert.is_true(found >= 70, found .. " of 100")
      assert.is_true(work / 100 < 250, work / 100 .. " distances")
      lib.rv_memory_destroy(memory)
   end)

   it("leaves out an equal query when asked to, and no other", function()
      local queries = make_queries(200, 9)
      local memory = filled(COSINE, queries)
      local buffer = flatten(memory)
      local answered = 0
      for q = 1, #queries do
         local nodes = lookup(buffer, queries[q], true)
         assert.is_false(contains(nodes, 10 * q))
         if #nodes > 0 then answered = answered + 1 end
      end
      assert.is_true(answered >= 0.9 * #queries) -- the rest lie out of reach of all others
      lib.rv_memory_destroy(memory)
   end)

   -- Else a calibration on remembered queries would promise more than others get.
   it("does no more for an equal query that it leaves out than for one it never saw", function()
      local all = make_queries(2400, 6)
      local queries, unseen = {}, {}
      for q, query in ipairs(all) do table.insert(q <= 2000 and queries or unseen, query) end
      local memory = filled(COSINE, queries, 4000)
      local buffer = flatten(memory)
      -- The mean number of the nearest past queries, of four, that a lookup finds.
      local function found(asked, skip_equal)
         local sum = 0
         for a, query in ipairs(asked) do
            local order = {}
            for q, past in ipairs(queries) do
               if not skip_equal or q ~= a then
                  order[#order + 1] = { q = q, distance = lib.rv_raw_distance(COSINE, query, past, DIM) }
               end
            end
            table.sort(order, function(x, y) return x.distance < y.distance end)
            local nodes = lookup(buffer, query, skip_equal)
            for i = 1, 4 do
               if contains(nodes, 10 * order[i].q) then sum = sum + 1 end
            end
         end
         return sum / #asked
      end
      local remembered = {}
      for q = 1, #unseen do remembered[q] = queries[q] end
      local left_out, fresh = found(remembered, true), found(unseen, false)
      assert.is_true(left_out <= fresh + 0.15, left_out .. " of 4, " .. fresh .. " for new queries")
      assert.is_true(left_out >= fresh - 0.4, left_out .. " of 4, " .. fresh .. " for new queries")
      lib.rv_memory_destroy(memory)
   end)

   it("says nothing about a query far from all it knows", function()
      local memory = filled(L2, make_queries(200, 3))
      local buffer = flatten(memory)
      assert.same({}, (lookup(buffer, engine.floats(function() return 100 end, DIM))))
      lib.rv_memory_destroy(memory)
   end)

   it("gives each node once", function()
      local memory = create(COSINE, 100)
      for _, query in ipairs(make_queries(50, 2)) do engine.check(add(memory, query, 7, 5), err) end
      local nodes = lookup(flatten(memory), make_queries(1, 2)[1])
      assert.same({ 7, 8, 9, 10, 11 }, nodes)
      lib.rv_memory_destroy(memory)
   end)

   it("keeps at most RV_MEMORY_ENTRIES nodes of a query", function()
      local memory = filled(COSINE, make_queries(20, 6))
      local query = make_queries(1, 4)[1]
      engine.check(add(memory, query, 1000, 20), err)
      local nodes = lookup(flatten(memory), query)
      assert.is_true(contains(nodes, 1007))
      assert.is_false(contains(nodes, 1008))
      lib.rv_memory_destroy(memory)
   end)

   it("of a single query answers that query alone", function()
      local memory = create(L1, 100)
      local query = engine.floats(function(i) return i % 2 * 127 end, DIM) -- its own code
      engine.check(add(memory, query, 100, 20), err)
      assert.same({}, (lookup(flatten(memory), make_queries(1, 4)[1])))
      assert.equal(8, #lookup(flatten(memory), query))
      lib.rv_memory_destroy(memory)
   end)

   it("replaces what it knew of the same query", function()
      local memory = filled(COSINE, make_queries(20, 6))
      local query = make_queries(1, 4)[1]
      engine.check(add(memory, query, 1000), err)
      engine.check(add(memory, query, 2000), err)
      assert.equal(21, lib.rv_memory_count(memory))
      local nodes = lookup(flatten(memory), query)
      assert.same({ 2000, 2001, 2002 }, { nodes[1], nodes[2], nodes[3] })
      assert.is_false(contains(nodes, 1000))
      lib.rv_memory_destroy(memory)
   end)

   it("forgets the older half when it is full", function()
      local queries = make_queries(101, 6)
      local memory = filled(COSINE, queries, 100)
      assert.equal(51, lib.rv_memory_count(memory))
      local buffer = flatten(memory)
      assert.is_false(contains(lookup(buffer, queries[1]), 10))
      assert.is_true(contains(lookup(buffer, queries[101]), 1010))
      assert.is_true(contains(lookup(buffer, queries[60]), 600))
      lib.rv_memory_destroy(memory)
   end)

   it("refuses what cannot be remembered, and stays as it was", function()
      local memory = filled(COSINE, make_queries(20, 6))
      local query = make_queries(1, 1)[1]
      assert.equal(lib.RV_ERR_INVALID, add(memory, query, 1, 0))
      query[3] = math.huge
      assert.equal(lib.RV_ERR_RANGE, add(memory, query, 1))
      assert.matches("element 4", engine.message(err))
      assert.equal(20, lib.rv_memory_count(memory))
      lib.rv_memory_destroy(memory)
      local _, status = create(COSINE, 3)
      assert.equal(lib.RV_ERR_RANGE, status)
      _, status = create(COSINE, 100, nil, 0)
      assert.equal(lib.RV_ERR_DIMENSION, status)
   end)
end)

describe("the flat form of a memory", function()
   it("of an empty memory is sound and finds nothing", function()
      local memory = create(L2, 100)
      local buffer, size = flatten(memory)
      engine.check(lib.rv_memory_flat_check(buffer, size, err), err)
      assert.same({}, (lookup(buffer, make_queries(1, 1)[1])))
      lib.rv_memory_destroy(memory)
   end)

   it("answers the same after going there and back", function()
      for _, metric in ipairs { L2, IP, COSINE, L1 } do
         local queries = make_queries(300, 8)
         local memory = filled(metric, queries)
         local buffer = flatten(memory)
         local out = ffi.new("rv_memory *[1]")
         engine.check(lib.rv_memory_unflatten(engine.allocator, buffer, 1000, out, err), err)
         local again = flatten(out[0])
         for q = 1, #queries do
            assert.same(lookup(buffer, queries[q]), lookup(again, queries[q]))
         end
         lib.rv_memory_destroy(memory)
         lib.rv_memory_destroy(out[0])
      end
   end)

   it("is refused when any byte was changed or it was cut", function()
      local memory = filled(COSINE, make_queries(60, 8))
      local buffer, size = flatten(memory)
      local bytes = ffi.cast("uint8_t *", buffer)
      for at = 0, size - 1, 3 do
         local former = bytes[at]
         bytes[at] = bit.bxor(former, 0x41)
         assert.not_equal(lib.RV_OK, lib.rv_memory_flat_check(buffer, size, err))
         bytes[at] = former
      end
      assert.equal(lib.RV_OK, lib.rv_memory_flat_check(buffer, size, err))
      for _, cut in ipairs { 0, 8, 63, 64, size - 8 } do
         assert.not_equal(lib.RV_OK, lib.rv_memory_flat_check(buffer, cut, err))
      end
      lib.rv_memory_destroy(memory)
   end)
end)

describe("a memory without memory", function()
   it("fails cleanly at every allocation, leaks nothing, and stays usable", function()
      local queries = make_queries(40, 11)
      for fail_at = 1, 400 do
         local test = ffi.new("rv_test_allocator[1]")
         lib.rv_test_allocator_init(test, fail_at)
         local memory = create(COSINE, 16, test[0].allocator)
         if memory then
            for q, query in ipairs(queries) do
               local status = add(memory, query, 10 * q)
               assert.is_true(status == lib.RV_OK or status == lib.RV_ERR_NOMEM)
            end
            local buffer, size = flatten(memory)
            engine.check(lib.rv_memory_flat_check(buffer, size, err), err)
            assert.is_true(contains(lookup(buffer, queries[40]), 400))
            lib.rv_memory_destroy(memory)
         end
         assert.equal(0, tonumber(test[0].live))
      end
   end)
end)
