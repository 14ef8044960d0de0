-- HNSW graphs in memory: equal to a model built the long way, sound, and safe when memory ends.

local engine = require("ruvector.engine")
local model = require("support.hnsw_model")
local proximity = require("support.proximity")
local ffi, lib = engine.ffi, engine.lib

local METRICS = { l2 = lib.RV_METRIC_L2, ip = lib.RV_METRIC_IP, cosine = lib.RV_METRIC_COSINE,
   l1 = lib.RV_METRIC_L1 }

local function options_of(fields)
   local options = ffi.new("rv_hnsw_options", { metric = lib.RV_METRIC_L2, dim = 8, m = 8,
      ef_construction = 40, seed = 1 })
   for key, value in pairs(fields or {}) do options[key] = value end
   return options
end

-- A graph with its error buffer; freed with the Lua object.
local function create(options, allocator)
   local out, err = ffi.new("rv_hnsw *[1]"), engine.error_buffer()
   local status = tonumber(lib.rv_hnsw_create(allocator or engine.allocator, options, out, err))
   if status ~= lib.RV_OK then return nil, status, engine.message(err) end
   return ffi.gc(out[0], lib.rv_hnsw_destroy)
end

local function destroy(graph) lib.rv_hnsw_destroy(ffi.gc(graph, nil)) end

local function random_rows(count, dim, seed, unit)
   local random = proximity.generator(seed)
   local rows = ffi.new("float[?]", math.max(count * dim, 1))
   for i = 0, count * dim - 1 do rows[i] = random.normal() end
   for i = 0, unit and count - 1 or -1 do lib.rv_normalize(rows + i * dim, rows + i * dim, dim) end
   return rows
end

local function insert(graph, row)
   local node, err = ffi.new("rv_node[1]"), engine.error_buffer()
   local status = tonumber(lib.rv_hnsw_insert(graph, row, node, err))
   return status, tonumber(node[0]), engine.message(err)
end

local function insert_or_find(graph, row)
   local node, duplicate, err = ffi.new("rv_node[1]"), ffi.new("bool[1]"), engine.error_buffer()
   engine.check(lib.rv_hnsw_insert_or_find(graph, row, node, duplicate, err), err)
   return tonumber(node[0]), duplicate[0]
end

local function build(options, rows, count, allocator)
   local graph = assert(create(options, allocator))
   for i = 0, count - 1 do
      local status, node, message = insert(graph, rows + i * options.dim)
      assert.equal(lib.RV_OK, status, message)
      assert.equal(i, node)
   end
   return graph
end

local function links_of(graph, node, level)
   local count = ffi.new("uint32_t[1]")
   local links = lib.rv_hnsw_links(graph, node, level, count)
   local list = {}
   for i = 0, count[0] - 1 do list[i + 1] = links[i] end
   return list
end

local function entry_of(graph)
   local entry = ffi.new("rv_node[1]")
   local level = lib.rv_hnsw_entry(graph, entry)
   return tonumber(entry[0]), level
end

-- Everything about a graph, comparable with assert.same.
local function describe_graph(graph)
   local nodes = {}
   local entry, level = entry_of(graph)
   for node = 0, tonumber(lib.rv_hnsw_count(graph)) - 1 do
      local levels = {}
      for l = 0, lib.rv_hnsw_level(graph, node) do levels[l] = links_of(graph, node, l) end
      nodes[node] = levels
   end
   return { nodes = nodes, entry = entry, level = level }
end

local function describe_model(graph)
   local nodes = {}
   for node, content in pairs(graph.nodes) do
      local levels = {}
      for l, links in pairs(content.links) do
         levels[l] = {}
         for i, link in ipairs(links) do levels[l][i] = link.node end
      end
      nodes[node] = levels
   end
   return { nodes = nodes, entry = graph.entry, level = graph.entry_level }
end

local function distance_of(options, a, b)
   local distance = options.unit and lib.rv_raw_distance_unit or lib.rv_raw_distance
   return distance(options.metric, a, b, options.dim)
end

-- What holds of every graph.
local function check_sound(graph, options)
   local count = tonumber(lib.rv_hnsw_count(graph))
   local highest = -1
   for node = 0, count - 1 do
      local level = lib.rv_hnsw_level(graph, node)
      highest = math.max(highest, level)
      for l = 0, level do
         local links = links_of(graph, node, l)
         assert.is_true(#links <= (l == 0 and 2 * options.m or options.m))
         assert.is_true(#links > 0 or count == 1 or l > 0)
         local seen, former = {}, -math.huge
         for _, other in ipairs(links) do
            assert.is_true(other ~= node and other < count and not seen[other])
            seen[other] = true
            assert.is_true(lib.rv_hnsw_level(graph, other) >= l)
            local distance = distance_of(options, lib.rv_hnsw_vector(graph, node),
               lib.rv_hnsw_vector(graph, other))
            assert.is_true(distance >= former)
            former = distance
         end
      end
   end
   local entry, level = entry_of(graph)
   assert.equal(highest, level)
   assert.equal(highest, lib.rv_hnsw_level(graph, entry))
end

-- How many nodes layer 0 leads to from the entry point.
local function reachable(graph)
   local entry = entry_of(graph)
   local seen, queue = { [entry] = true }, { entry }
   for _, node in ipairs(queue) do
      for _, other in ipairs(links_of(graph, node, 0)) do
         if not seen[other] then
            seen[other] = true
            queue[#queue + 1] = other
         end
      end
   end
   return #queue
end

local function search(graph, query, k, ef)
   local out, count = ffi.new("rv_beam_result[?]", math.max(k, 1)), ffi.new("uint32_t[1]")
   local stats, err = ffi.new("rv_beam_stats[1]"), engine.error_buffer()
   engine.check(lib.rv_hnsw_search(graph, engine.allocator, query, k, ef, out, count, stats, err), err)
   return out, count[0], stats[0]
end

describe("an HNSW graph", function()
   for name, metric in pairs(METRICS) do
      it("is link by link what the paper's algorithm gives, under " .. name, function()
         for seed = 1, 2 do
            local options = options_of({ metric = metric, dim = 5, m = 2 + seed, ef_construction = 12,
               seed = seed })
            local rows = random_rows(250, options.dim, seed)
            local expected = describe_model(model.build(rows, 250, options))
            assert.same(expected, describe_graph(build(options, rows, 250)))
         end
      end)
   end

   it("is so for unit vectors too", function()
      local options = options_of({ metric = lib.RV_METRIC_COSINE, unit = true, m = 4, ef_construction = 16 })
      local rows = random_rows(250, options.dim, 3, true)
      assert.same(describe_model(model.build(rows, 250, options)), describe_graph(build(options, rows, 250)))
   end)

   it("is so where distances are tied", function()
      -- every search finds all nodes, so that the order of ties in the search does not matter
      for seed = 1, 5 do
         local options = options_of({ dim = 2, m = 4, ef_construction = 100, seed = seed })
         local rows = random_rows(70, options.dim, seed)
         for i = 0, 70 * options.dim - 1 do rows[i] = math.floor(rows[i] * 3) end
         assert.same(describe_model(model.build(rows, 70, options)), describe_graph(build(options, rows, 70)))
      end
   end)

   it("is equal for equal seeds, and another for another", function()
      local rows = random_rows(600, 8, 1)
      local first = describe_graph(build(options_of({ seed = 5 }), rows, 600))
      assert.same(first, describe_graph(build(options_of({ seed = 5 }), rows, 600)))
      assert.is_not.same(first.nodes, describe_graph(build(options_of({ seed = 6 }), rows, 600)).nodes)
   end)

   for name, metric in pairs(METRICS) do
      it("is sound and finds at least 95% of the ten nearest at ef = 100, under " .. name, function()
         local count, dim, k = 3000, 12, 10
         local options = options_of({ metric = metric, dim = dim, ef_construction = 64, m = 12 })
         local rows = random_rows(count, dim, 11)
         local graph = build(options, rows, count)
         check_sound(graph, options)
         local queries, found = random_rows(50, dim, 12), 0
         for q = 0, 49 do
            local distances = {}
            for i = 0, count - 1 do
               distances[i + 1] = distance_of(options, queries + q * dim, rows + i * dim)
            end
            table.sort(distances)
            local hits, hit_count = search(graph, queries + q * dim, k, 100)
            assert.equal(k, hit_count)
            for i = 0, k - 1 do
               assert.is_true(i == 0 or hits[i].distance >= hits[i - 1].distance)
               if hits[i].distance <= distances[k] then found = found + 1 end
            end
         end
         assert.is_true(found >= 0.95 * 50 * k, found .. " of 500")
      end)
   end

   it("leads from its entry point to nearly every node, and to every one once connected", function()
      local connected, err, lost = ffi.new("uint64_t[1]"), engine.error_buffer(), 0
      for seed = 1, 6 do
         local count = 2000
         local options = options_of({ seed = seed, m = 2 + seed, ef_construction = 4 + 4 * seed })
         local rows = random_rows(count, options.dim, seed)
         -- clusters of equal vectors, larger than a list of links, lose touch most easily
         for i = 0, 200 * seed do
            ffi.copy(rows + i * options.dim, rows + i % 7 * options.dim, options.dim * 4)
         end
         local graph = build(options, rows, count)
         local reached = reachable(graph)
         engine.check(lib.rv_hnsw_connect(graph, connected, err), err)
         check_sound(graph, options)
         assert.equal(count, reachable(graph))
         assert.is_true(tonumber(connected[0]) <= count - reached)
         assert.equal(reached < count, connected[0] > 0)
         lost = lost + count - reached
         local before = describe_graph(graph)
         engine.check(lib.rv_hnsw_connect(graph, connected, err), err)
         assert.equal(0, tonumber(connected[0]))
         assert.same(before, describe_graph(graph))
      end
      assert.is_true(lost > 0)
      local random = random_rows(3000, 8, 1)
      assert.is_true(reachable(build(options_of(), random, 3000)) >= 2990)
   end)

   it("is connected already when it is empty", function()
      local connected = ffi.new("uint64_t[1]", 7)
      assert.equal(lib.RV_OK, tonumber(lib.rv_hnsw_connect(create(options_of()), connected, nil)))
      assert.equal(0, tonumber(connected[0]))
   end)

   it("copies the vectors, at the start of a cache line when they are long", function()
      local options = options_of({ dim = 100 })
      local rows = random_rows(40, 100, 1)
      local graph = build(options, rows, 40)
      for node = 0, 39 do
         local vector = lib.rv_hnsw_vector(graph, node)
         assert.equal(0, tonumber(ffi.cast("uintptr_t", vector) % 64))
         for i = 0, 99 do assert.equal(rows[node * 100 + i], vector[i]) end
      end
   end)

   it("holds vectors of any length over many chunks", function()
      for _, dim in ipairs({ 1, 3, 15, 16, 17, 16000 }) do
         local count = dim == 16000 and 70 or 300
         local options = options_of({ dim = dim, ef_construction = 16, m = 4 })
         local rows = random_rows(count, dim, dim)
         local graph = build(options, rows, count)
         check_sound(graph, options)
         for node = 0, count - 1 do
            local vector = lib.rv_hnsw_vector(graph, node)
            for i = 0, dim - 1 do assert(rows[node * dim + i] == vector[i]) end
         end
      end
   end)
end)

describe("a search of an HNSW graph", function()
   it("finds nothing in an empty graph", function()
      local graph = create(options_of())
      local _, level = entry_of(graph)
      assert.equal(-1, level)
      local _, count = search(graph, random_rows(1, 8, 1), 5, 10)
      assert.equal(0, count)
   end)

   it("finds all there is when that is less than k", function()
      local rows = random_rows(3, 8, 1)
      local _, count = search(build(options_of(), rows, 3), rows, 5, 1)
      assert.equal(3, count)
   end)

   it("takes an ef below k for k", function()
      local rows = random_rows(300, 8, 1)
      local graph = build(options_of(), rows, 300)
      local _, count, stats = search(graph, rows, 20, 1)
      assert.equal(20, count)
      local _, _, same = search(graph, rows, 20, 20)
      assert.equal(same.distances, stats.distances)
   end)

   it("does more work for a larger ef", function()
      local rows = random_rows(2000, 8, 1)
      local graph = build(options_of(), rows, 2000)
      local _, _, small = search(graph, rows, 5, 10)
      local _, _, large = search(graph, rows, 5, 200)
      assert.is_true(large.distances > 2 * small.distances and large.hops > 2 * small.hops)
   end)

   it("may start at a remembered node, and skips one that does not exist", function()
      local rows = random_rows(500, 8, 1)
      local graph = build(options_of(), rows, 500)
      local cursor, err = ffi.new("rv_hnsw_cursor *[1]"), engine.error_buffer()
      engine.check(lib.rv_hnsw_cursor_create(engine.allocator, graph, cursor, err), err)
      lib.rv_hnsw_cursor_set_query(cursor[0], rows + 123 * 8)
      local beam = proximity.beam(lib.rv_hnsw_cursor_graph(cursor[0]),
         lib.rv_metric_map_make(lib.RV_METRIC_L2, 0, 0))
      beam:start({ window = 1 }, 0, -1, { 123, 9999 })
      local node, distance = beam:next()
      assert.equal(123, node)
      assert.equal(0, distance)
      beam:destroy()
      lib.rv_hnsw_cursor_destroy(cursor[0])
   end)
end)

describe("the levels of nodes", function()
   it("fall off by the factor m", function()
      local rng = ffi.new("rv_prng")
      for _, m in ipairs({ 2, 16 }) do
         lib.rv_prng_seed(rng, m)
         local n, counts = 100000, {}
         for _ = 1, n do
            local level = lib.rv_hnsw_draw_level(rng, m)
            assert.is_true(level >= 0 and level <= 24)
            for l = 0, level do counts[l] = (counts[l] or 0) + 1 end
         end
         for l = 1, 3 do
            local expected = n / m ^ l
            assert(math.abs(counts[l] - expected) < 5 * math.sqrt(expected) + 1,
               ("m %d, level %d: %d, not %g"):format(m, l, counts[l], expected))
         end
      end
   end)
end)

describe("inserting a vector that is there already", function()
   it("finds its node and leaves the graph as it was", function()
      local options = options_of()
      local rows = random_rows(400, options.dim, 1)
      local graph = assert(create(options))
      for i = 0, 399 do
         local node, duplicate = insert_or_find(graph, rows + i * options.dim)
         assert.equal(i, node)
         assert.is_false(duplicate)
         if i % 3 == 0 then
            local again = math.floor(i / 2)
            node, duplicate = insert_or_find(graph, rows + again * options.dim)
            assert.equal(again, node)
            assert.is_true(duplicate)
         end
      end
      assert.same(describe_graph(build(options, rows, 400)), describe_graph(graph))
   end)

   it("adds a second node when no search is made for it", function()
      local options = options_of()
      local rows = random_rows(1, options.dim, 1)
      local graph = build(options, rows, 1)
      local _, node = insert(graph, rows)
      assert.equal(1, node)
   end)
end)

describe("an HNSW graph's memory", function()
   it("stays within the limit, and the graph as it was when that is reached", function()
      local options = options_of({ memory_limit = 200000 })
      local rows = random_rows(5000, options.dim, 1)
      local graph = assert(create(options))
      local count = 0
      while true do
         local status, _, message = insert(graph, rows + count * options.dim)
         if status ~= lib.RV_OK then
            assert.equal(lib.RV_ERR_FULL, status)
            assert.matches("memory limit of 200000 bytes", message)
            break
         end
         count = count + 1
      end
      assert.is_true(count > 300 and count < 5000)
      assert.is_true(tonumber(lib.rv_hnsw_memory(graph)) <= 200000)
      assert.equal(lib.RV_ERR_FULL, (insert(graph, rows)))
      assert.equal(count, tonumber(lib.rv_hnsw_count(graph)))
      options.memory_limit = 0
      assert.same(describe_graph(build(options, rows, count)), describe_graph(graph))
   end)

   it("may end at any allocation: the insert fails, nothing leaks, and a later one succeeds", function()
      local options = options_of({ m = 2, ef_construction = 8 })
      local count = 150
      local rows = random_rows(count, options.dim, 1)
      local expected = describe_graph(build(options, rows, count))
      local fail_at, status = 1
      repeat
         local tester = ffi.new("rv_test_allocator")
         lib.rv_test_allocator_init(tester, fail_at)
         local graph
         graph, status = create(options, tester.allocator)
         if graph then
            status = lib.RV_OK
            for i = 0, count - 1 do
               local before = tonumber(lib.rv_hnsw_count(graph))
               local inserted = insert(graph, rows + i * options.dim)
               if inserted ~= lib.RV_OK then
                  assert.equal(lib.RV_ERR_NOMEM, inserted)
                  assert.equal(before, tonumber(lib.rv_hnsw_count(graph)))
                  status = inserted
                  assert.equal(lib.RV_OK, (insert(graph, rows + i * options.dim)))
               end
            end
            assert.same(expected, describe_graph(graph))
            destroy(graph)
         end
         assert.is_true(status == lib.RV_ERR_NOMEM or tester.calls < fail_at)
         assert.equal(0, tonumber(tester.live))
         fail_at = fail_at + 1
      until status ~= lib.RV_ERR_NOMEM
      assert.is_true(fail_at > 10)
   end)

   it("may end at any allocation of a search, which leaks nothing", function()
      local rows = random_rows(300, 8, 1)
      local graph = build(options_of(), rows, 300)
      local out, count, err = ffi.new("rv_beam_result[5]"), ffi.new("uint32_t[1]"), engine.error_buffer()
      local fail_at, status = 1
      repeat
         local tester = ffi.new("rv_test_allocator")
         lib.rv_test_allocator_init(tester, fail_at)
         status = tonumber(lib.rv_hnsw_search(graph, tester.allocator, rows, 5, 20, out, count, nil, err))
         assert.is_true(status == lib.RV_ERR_NOMEM or status == lib.RV_OK)
         assert.equal(0, tonumber(tester.live))
         fail_at = fail_at + 1
      until status == lib.RV_OK
      assert.is_true(fail_at > 5)
      assert.equal(5, count[0])
   end)
end)

describe("creating an HNSW graph", function()
   it("refuses options out of range, by name, value and limit", function()
      local cases = {
         { { m = 1 }, lib.RV_ERR_RANGE, "m is 1, must be 2 to 100" },
         { { m = 101 }, lib.RV_ERR_RANGE, "m is 101" },
         { { ef_construction = 3 }, lib.RV_ERR_RANGE, "ef_construction is 3, must be 4 to 1000" },
         { { ef_construction = 1001 }, lib.RV_ERR_RANGE, "ef_construction is 1001" },
         { { dim = 0 }, lib.RV_ERR_DIMENSION, "0 dimensions, must be 1 to 16000" },
         { { dim = 16001 }, lib.RV_ERR_DIMENSION, "16001 dimensions" },
         { { metric = ffi.cast("rv_metric", 9) }, lib.RV_ERR_INVALID, "metric is 9" },
      }
      for _, case in ipairs(cases) do
         local graph, status, message = create(options_of(case[1]))
         assert.is_nil(graph)
         assert.equal(case[2], status)
         assert.matches(case[3], message)
      end
   end)
end)

describe("the selection of neighbours", function()
   it("agrees with the model for any number of candidates and any limit", function()
      local random = proximity.generator(21)
      for round = 1, 300 do
         local dim, count = 1 + random.below(6), random.below(40)
         local rows = random_rows(count + 1, dim, round)
         if round % 3 == 0 then
            for i = 0, (count + 1) * dim - 1 do rows[i] = math.floor(rows[i]) end
         end
         local limit = 1 + random.below(20)
         local candidates, list = ffi.new("rv_candidate[?]", count + 1), {}
         for i = 0, count - 1 do
            local c = candidates[i]
            c.node, c.vector, c.tag = i, rows + (i + 1) * dim, 1000 + i
            c.distance = lib.rv_raw_distance(lib.RV_METRIC_L2, rows, c.vector, dim)
            list[i + 1] = { node = i, distance = c.distance }
         end
         local chosen, kept = model.select(list, limit, function(a, b)
            return lib.rv_raw_distance(lib.RV_METRIC_L2, rows + (a + 1) * dim, rows + (b + 1) * dim, dim)
         end)
         local filled = ffi.new("uint32_t[1]")
         local got = lib.rv_hnsw_select(lib.RV_METRIC_L2, false, dim, candidates, count, limit, filled)
         assert.equal(#chosen, got)
         assert.equal(#chosen - kept, filled[0])
         for i, expected in ipairs(chosen) do
            local c = candidates[i - 1]
            assert.equal(expected.node, tonumber(c.node))
            assert.equal(1000 + expected.node, c.tag)
            assert.equal(rows + (expected.node + 1) * dim, c.vector)
         end
         -- the candidates are reordered, none is lost
         local seen = {}
         for i = 0, count - 1 do seen[tonumber(candidates[i].node)] = true end
         for i = 0, count - 1 do assert.is_true(seen[i]) end
      end
   end)

   it("prefers a far neighbour in a new direction to a near one behind a nearer", function()
      local points = ffi.new("float[4][2]", { { 0, 0 }, { 1, 0 }, { 1.2, 0 }, { 0, 3 } })
      local candidates = ffi.new("rv_candidate[3]")
      for i = 0, 2 do
         local c = candidates[i]
         c.node, c.vector = i + 1, points[i + 1]
         c.distance = lib.rv_raw_distance(lib.RV_METRIC_L2, points[0], points[i + 1], 2)
      end
      assert.equal(2, lib.rv_hnsw_select(lib.RV_METRIC_L2, false, 2, candidates, 3, 2, nil))
      assert.equal(1, tonumber(candidates[0].node))
      assert.equal(3, tonumber(candidates[1].node))
   end)
end)
