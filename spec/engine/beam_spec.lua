-- The beam: against a model that sorts whenever it needs an order, and at its edges.

local engine = require("ruvector.engine")
local proximity = require("support.proximity")
local Model = require("support.beam_model")
local ffi, lib = engine.ffi, engine.lib

local REASON = { rule = lib.RV_STOP_RULE, ef = lib.RV_STOP_EF, distances = lib.RV_STOP_DISTANCES,
   exhausted = lib.RV_STOP_EXHAUSTED }

local function small_graph(seed, extra)
   local options = { count = 120, dim = 3, degree = 4, seed = seed }
   for key, value in pairs(extra or {}) do options[key] = value end
   return proximity.random(options)
end

local function beam_over(graph, allocator)
   return proximity.beam(proximity.interface(graph), proximity.map(graph), allocator)
end

-- A line of nodes 0, 1, 2, ... at those distances, each linked to the next and the former.
local function line(count, dead)
   local graph = {
      count = count, metric = "l2", dead = {}, missing = {}, links = { [0] = {} }, max_degree = 2,
      entry = 0, entry_level = 0, expansions = 0, measured = 0, distances = ffi.new("float[?]", count),
   }
   for node = 0, count - 1 do
      graph.distances[node] = node + 1
      graph.dead[node] = dead and dead(node) or false
      graph.links[0][node] = {}
      if node > 0 then table.insert(graph.links[0][node], node - 1) end
      if node < count - 1 then table.insert(graph.links[0][node], node + 1) end
   end
   return graph
end

local L2_MAP = lib.rv_metric_map_make(lib.RV_METRIC_L2, 0, 0)

local function line_beam(graph) return proximity.beam(proximity.interface(graph), L2_MAP) end

-- Everything a search still hands out.
local function drain(beam)
   local nodes = {}
   while true do
      local node, status = beam:next()
      if node == nil then return nodes, status end
      nodes[#nodes + 1] = node
   end
end

local function random_rule(random)
   local rule = { window = 1 + random.below(15) }
   if random.uniform() < 0.7 then rule.slack = random.uniform() * random.uniform() end
   if random.uniform() < 0.4 then rule.ef = 1 + random.below(40) end
   if random.uniform() < 0.3 then rule.max_distances = 1 + random.below(60) end
   if random.uniform() < 0.5 then rule.reference = random.below(rule.window + 2) end
   return rule
end

-- Runs engine and model side by side until both are exhausted; rules may change between windows.
local function compare(graph, random, context)
   local map = proximity.map(graph)
   local beam, model = beam_over(graph), Model.new(graph, map)
   local rule, extra = random_rule(random), {}
   for i = 1, random.below(4) do extra[i] = random.below(graph.count + 2) end
   rule.slack = rule.slack and ffi.new("float[1]", rule.slack)[0]
   assert.equal(lib.RV_OK, beam:start(rule, graph.entry, graph.entry_level, extra))
   model:start(rule, graph.entry, graph.entry_level, extra)
   for window = 1, 1000 do
      local where = ("%s, window %d"):format(context, window)
      local nodes, _, status = beam:window()
      local expected, reason
      repeat expected, reason = model:window() until #expected > 0 or reason == "exhausted"
      assert.same(expected, nodes, where)
      local stats = beam:stats()
      assert.equal(model.distances_computed, tonumber(stats.distances), where)
      assert.equal(model.hops, tonumber(stats.hops), where)
      if reason ~= "either" then assert.equal(REASON[reason], stats.reason, where) end
      assert(math.abs(model.score - stats.score) <= 1e-6 * math.abs(model.score),
         ("%s: score %.9g, not %.9g"):format(where, stats.score, model.score))
      if #nodes == 0 then
         assert.equal(lib.RV_ERR_NOTFOUND, status, where)
         return
      end
      assert.equal(window, stats.windows, where)
      if random.uniform() < 0.2 then
         rule = random_rule(random)
         rule.slack = rule.slack and ffi.new("float[1]", rule.slack)[0]
         model.rule = rule
         assert.equal(lib.RV_OK, beam:set_rule(rule))
      end
   end
   error(context .. ": the search does not end")
end

describe("the beam", function()
   for _, metric in ipairs(proximity.METRICS) do
      it("agrees with the model in results, work, reasons and score under " .. metric, function()
         local random = proximity.generator(7)
         for seed = 1, 12 do
            local graph = small_graph(seed, { metric = metric, dead = seed % 3 * 0.2,
               missing = seed % 2 * 0.1, levels = seed % 4,
               -- all, some and none of the visited nodes in the bitmap
               key_limit = seed % 3 * 64 })
            for query = 1, 4 do
               compare(graph, random, ("graph %d, query %d"):format(seed, query))
               proximity.random_query(graph)
            end
         end
      end)
   end

   it("gives exactly the classical search's results with window = ef and no slack", function()
      for seed = 1, 10 do
         local graph = small_graph(seed)
         local beam = beam_over(graph)
         for _, ef in ipairs({ 1, 2, 5, 20, 60 }) do
            beam:start({ window = ef }, graph.entry, 0)
            assert.same(Model.search_level(graph, { graph.entry }, ef, 0), (beam:window()))
         end
      end
   end)

   it("does the classical search's work when ef bounds a small window and slack does not", function()
      for seed = 1, 10 do
         local graph = small_graph(seed)
         local beam = beam_over(graph)
         for _, ef in ipairs({ 10, 25, 60 }) do
            beam:start({ window = ef }, graph.entry, 0)
            local wide = beam:window()
            local work = beam:stats().distances
            beam:start({ window = 5, slack = 1e6, ef = ef }, graph.entry, 0)
            local narrow = beam:window()
            assert.equal(work, beam:stats().distances)
            assert.same({ unpack(wide, 1, #narrow) }, narrow)
         end
      end
   end)

   it("goes on from window to window until every reachable live node was handed out once", function()
      local graph = small_graph(3, { dead = 0.3 })
      local beam = beam_over(graph)
      beam:start({ window = 7, slack = 0.1 }, graph.entry, 0)
      local seen = {}
      for _, node in ipairs((drain(beam))) do
         assert.is_nil(seen[node])
         assert.is_false(graph.dead[node])
         seen[node] = true
      end
      local reached, queue = { [graph.entry] = true }, { graph.entry }
      for _, node in ipairs(queue) do
         for _, next_node in ipairs(graph.links[0][node]) do
            if not reached[next_node] then
               reached[next_node] = true
               queue[#queue + 1] = next_node
            end
         end
      end
      for node in pairs(reached) do assert.equal(not graph.dead[node], seen[node] == true) end
   end)

   it("walks through dead nodes", function()
      local graph = line(50, function(node) return node > 0 and node < 49 end)
      local beam = line_beam(graph)
      beam:start({ window = 2 }, 0, 0)
      assert.same({ 0, 49 }, (drain(beam)))
   end)

   it("is not ended by hard bounds while it found nothing but dead nodes", function()
      local graph = line(50, function(node) return node < 49 end)
      local beam = line_beam(graph)
      beam:start({ window = 1, ef = 3, max_distances = 5 }, 0, 0)
      assert.same({ 49 }, (beam:window()))
      assert.equal(1, beam:stats().windows)
      local nodes, status = drain(beam)
      assert.same({}, nodes)
      assert.equal(lib.RV_ERR_NOTFOUND, status)
   end)

   it("hands out nothing where all nodes are dead", function()
      local beam = line_beam(line(10, function() return true end))
      beam:start({ window = 3 }, 0, 0)
      local node, status = beam:next()
      assert.is_nil(node)
      assert.equal(lib.RV_ERR_NOTFOUND, status)
      assert.equal(lib.RV_STOP_EXHAUSTED, beam:stats().reason)
   end)

   it("ends a window at max_distances, which one expansion may pass", function()
      local graph = line(100)
      local beam = line_beam(graph)
      beam:start({ window = 50, max_distances = 10 }, 0, 0)
      local before = 0
      for _ = 1, 3 do
         assert.is_true(#(beam:window()) > 0)
         local now = tonumber(beam:stats().distances)
         assert.equal(lib.RV_STOP_DISTANCES, beam:stats().reason)
         assert.is_true(now - before >= 10 and now - before <= 10 + graph.max_degree)
         before = now
      end
   end)

   it("never ends by slack where all metric distances are equal, and ends without slack as ever", function()
      local graph = line(60)
      local constant = lib.rv_metric_map_make(lib.RV_METRIC_IP, 0, 0)
      local beam = proximity.beam(proximity.interface(graph), constant)
      beam:start({ window = 5, slack = 1e-6 }, 0, 0)
      beam:window()
      assert.equal(lib.RV_STOP_EXHAUSTED, beam:stats().reason)
      beam:start({ window = 5 }, 0, 0)
      beam:window()
      assert.equal(lib.RV_STOP_RULE, beam:stats().reason)
      assert.is_true(beam:stats().distances < 10)
   end)

   it("uses the map that was set last", function()
      local graph = line(60)
      local beam = line_beam(graph)
      beam:start({ window = 5, slack = 0.5 }, 0, 0)
      beam:window()
      local euclidean = beam:stats().distances
      beam:set_map(lib.rv_metric_map_make(lib.RV_METRIC_L1, 0, 0))
      beam:start({ window = 5, slack = 0.5 }, 0, 0)
      beam:window()
      -- 1.5^2 times the fifth against 1.5 times the fifth
      assert.equal(12, tonumber(euclidean))
      assert.equal(8, tonumber(beam:stats().distances))
   end)

   it("takes NaN for the farthest distance", function()
      local graph = line(20)
      graph.distances[1] = 0 / 0
      local beam = line_beam(graph)
      beam:start({ window = 20 }, 0, 0)
      local nodes = drain(beam)
      assert.equal(20, #nodes)
      assert.equal(1, nodes[20])
   end)
end)

describe("entry points of the beam", function()
   it("are visited once, however often they are named", function()
      local graph = line(30)
      local beam = line_beam(graph)
      beam:start({ window = 30 }, 0, 0, { 5, 0, 5, 5, 7 })
      assert.equal(30, #(drain(beam)))
      assert.equal(30, tonumber(beam:stats().distances))
   end)

   it("are skipped when they no longer exist", function()
      local graph = line(30)
      graph.missing[4] = true
      local beam = line_beam(graph)
      assert.equal(lib.RV_OK, beam:start({ window = 3 }, 0, 0, { 4, 1000 }))
      assert.same({ 0, 1, 2 }, (beam:window()))
   end)

   it("are enough without an entry", function()
      local graph = line(30)
      local beam = line_beam(graph)
      beam:start({ window = 3 }, 0, -1, { 9 })
      assert.equal(3, #(beam:window()))
      graph.missing[0] = true
      beam:start({ window = 3 }, 0, 0, { 9 })
      assert.equal(3, #(beam:window()))
   end)

   it("may all be missing, which is an empty graph", function()
      local beam = line_beam(line(30))
      assert.equal(lib.RV_OK, beam:start({ window = 3 }, 0, -1))
      local _, status = beam:next()
      assert.equal(lib.RV_ERR_NOTFOUND, status)
   end)

   it("may carry any number of 64 bits", function()
      local graph = line(3000)
      local ids, numbers = {}, {}
      local random = ffi.new("rv_prng")
      lib.rv_prng_seed(random, 3)
      for node = 0, graph.count - 1 do ids[node] = lib.rv_prng_next(random) end
      ids[0], ids[1], ids[2] = 0xFFFFFFFFFFFFFFFFULL, 0ULL, 1ULL
      for node = 0, graph.count - 1 do numbers[tostring(ids[node])] = node end
      graph.id = function(node) return ids[node] end
      graph.number = function(id) return numbers[tostring(id)] end
      local beam = line_beam(graph)
      local rule = proximity.rule({ window = 500, slack = 10 })
      lib.rv_beam_start(beam.handle, rule, ids[0], 0, nil, 0, beam.err)
      local handed, seen = 0, {}
      while lib.rv_beam_next(beam.handle, beam.result, beam.err) == lib.RV_OK do
         local id = tostring(beam.result[0].node)
         assert.is_nil(seen[id])
         seen[id], handed = true, handed + 1
      end
      assert.equal(graph.count, handed)
      assert.equal(graph.count, tonumber(beam:stats().distances))
   end)
end)

describe("the in-search score", function()
   it("is -1 until eight nodes of layer 0 were expanded", function()
      local beam = line_beam(line(30))
      beam:start({ window = 3 }, 0, 0)
      beam:window()
      assert.equal(-1, beam:stats().score)
   end)

   it("is the nearest open distance over the window's farthest", function()
      local beam = line_beam(line(30))
      beam:start({ window = 4, slack = 9 }, 0, 0)
      beam:window()
      -- after 8 expansions node 8 is open (squared distance 9) and node 3 is the fourth best (4)
      assert(math.abs(beam:stats().score - math.sqrt(9 / 4)) < 1e-6)
   end)
end)

describe("a beam's life", function()
   it("refuses a window of 0 and a slack below 0 or not a number", function()
      local beam = line_beam(line(5))
      assert.equal(lib.RV_ERR_RANGE, beam:start({ window = 0 }, 0, 0))
      assert.matches("window is 0", beam:message())
      assert.equal(lib.RV_ERR_RANGE, beam:start({ window = 1, slack = -0.5 }, 0, 0))
      assert.matches("slack is %-0.5", beam:message())
      assert.equal(lib.RV_ERR_RANGE, beam:start({ window = 1, slack = 0 / 0 }, 0, 0))
      assert.equal(lib.RV_ERR_RANGE, beam:set_rule({ window = 0 }))
   end)

   it("has no results before a start and after a failed one", function()
      local beam = line_beam(line(5))
      local _, status = beam:next()
      assert.equal(lib.RV_ERR_STATE, status)
      assert.is_false(beam:ready())
      beam:start({ window = 0 }, 0, 0)
      _, status = beam:next()
      assert.equal(lib.RV_ERR_STATE, status)
   end)

   it("is ready as long as results of a closed window wait", function()
      local beam = line_beam(line(10))
      beam:start({ window = 3 }, 0, 0)
      assert.is_false(beam:ready())
      beam:next()
      assert.is_true(beam:ready())
      beam:next()
      beam:next()
      assert.is_false(beam:ready())
   end)

   it("ends with RV_ERR_CANCELLED when asked to, and may be started again", function()
      local graph = line(50)
      local beam = line_beam(graph)
      graph.cancel_after = 10
      beam:start({ window = 50 }, 0, 0)
      local _, status = beam:next()
      assert.equal(lib.RV_ERR_CANCELLED, status)
      _, status = beam:next()
      assert.equal(lib.RV_ERR_STATE, status)
      graph.cancel_after = nil
      beam:start({ window = 50 }, 0, 0)
      assert.equal(50, #(beam:window()))
   end)

   it("passes on what the graph reports", function()
      local graph = line(50)
      local beam = line_beam(graph)
      graph.fail_after = 3
      beam:start({ window = 50 }, 0, 0)
      local _, status = beam:next()
      assert.equal(lib.RV_ERR_CORRUPT, status)
      assert.matches("could not expand node 3 at level 0", beam:message())
      assert.equal(lib.RV_ERR_CORRUPT, beam:start({ window = 50 }, 0, 1))
   end)

   it("survives a lack of memory at any point, and leaks nothing", function()
      local graph = small_graph(5, { count = 900, dim = 2, levels = 2 })
      local interface, map = proximity.interface(graph), proximity.map(graph)
      local rule = { window = 20, slack = 0.3, ef = 60 }
      local reference = proximity.beam(interface, map)
      reference:start(rule, graph.entry, graph.entry_level)
      local expected = drain(reference)
      local fail_at = 1
      repeat
         local tester = ffi.new("rv_test_allocator")
         lib.rv_test_allocator_init(tester, fail_at)
         local beam, status = proximity.beam(interface, map, tester.allocator)
         local nodes
         if beam then
            status = beam:start(rule, graph.entry, graph.entry_level)
            if status == lib.RV_OK then nodes, status = drain(beam) end
            if status == lib.RV_ERR_NOMEM then
               -- the next search finds the memory it needs
               assert.equal(lib.RV_OK, beam:start(rule, graph.entry, graph.entry_level))
               nodes = drain(beam)
            end
            assert.same(expected, nodes)
            beam:destroy()
         end
         assert.is_true(status == lib.RV_ERR_NOMEM or tester.calls < fail_at)
         assert.equal(0, tonumber(tester.live))
         fail_at = fail_at + 1
      until status ~= lib.RV_ERR_NOMEM
      assert.is_true(fail_at > 10)
   end)

   it("allocates nothing for searches like the one before", function()
      local graph = small_graph(6, { count = 600 })
      local tester = ffi.new("rv_test_allocator")
      lib.rv_test_allocator_init(tester, 0)
      local beam = beam_over(graph, tester.allocator)
      local rule = { window = 30, slack = 0.2, ef = 100 }
      local first
      for round = 1, 20 do
         beam:start(rule, graph.entry, 0)
         local nodes = drain(beam)
         first = first or nodes
         assert.same(first, nodes)
         if round == 1 then tester.fail_at = tester.calls + 1 end
      end
      assert.equal(tester.fail_at - 1, tester.calls)
      beam:destroy()
   end)

   it("does as a fresh beam would, whatever it did before", function()
      local graph = small_graph(8, { dead = 0.1, levels = 2 })
      local random = proximity.generator(1)
      local interface, map = proximity.interface(graph), proximity.map(graph)
      local old = proximity.beam(interface, map)
      for _ = 1, 60 do
         local fresh = proximity.beam(interface, map)
         local rule = random_rule(random)
         old:start(rule, graph.entry, graph.entry_level)
         fresh:start(rule, graph.entry, graph.entry_level)
         for _ = 1, random.below(5) do assert.same((fresh:window()), (old:window())) end
         assert.equal(fresh:stats().distances, old:stats().distances)
      end
   end)
end)

describe("the search of one level", function()
   it("finds what the classical search finds, on any level", function()
      for seed = 1, 8 do
         local graph = small_graph(seed, { levels = 1 })
         local beam = beam_over(graph)
         for level = 0, 1 do
            local entries, names = {}, {}
            for i = 1, 3 do
               local node = i == 1 and graph.entry or entries[1][1]
               entries[i], names[i] = { node, graph.distances[node] }, node
            end
            for _, ef in ipairs({ 1, 4, 16, 64 }) do
               assert.same(Model.search_level(graph, names, ef, level), beam:search_level(entries, ef, level))
            end
         end
      end
   end)

   it("walks through dead nodes and returns none", function()
      local beam = line_beam(line(50, function(node) return node > 0 and node < 49 end))
      assert.same({ 0, 49 }, beam:search_level({ { 0, 1 } }, 10, 0))
      beam = line_beam(line(50, function() return true end))
      assert.same({}, beam:search_level({ { 0, 1, true } }, 10, 0))
   end)

   it("ends a search that was running, and refuses an ef of 0", function()
      local beam = line_beam(line(50))
      beam:start({ window = 5 }, 0, 0)
      local _, status = beam:search_level({ { 0, 1 } }, 0, 0)
      assert.equal(lib.RV_ERR_RANGE, status)
      assert.equal(10, #beam:search_level({ { 0, 1 } }, 10, 0))
      _, status = beam:next()
      assert.equal(lib.RV_ERR_STATE, status)
   end)
end)
