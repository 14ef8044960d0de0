-- The deep trace: its efforts are exactly what the search needs. Calibration stands on this law.

local engine = require("ruvector.engine")
local proximity = require("support.proximity")
local ffi, lib = engine.ffi, engine.lib

local function float(value) return ffi.new("float[1]", value)[0] end

-- The k nearest live distances of the whole graph, reachable or not.
local function truth_of(graph, k)
   local all = {}
   for node = 0, graph.count - 1 do
      if not graph.dead[node] then all[#all + 1] = graph.distances[node] end
   end
   table.sort(all)
   return { unpack(all, 1, k) }
end

-- How many of its first window's results are true neighbours.
local function found_by(beam, graph, rule, truth, tolerance)
   assert.equal(lib.RV_OK, beam:start(rule, graph.entry, graph.entry_level))
   local _, distances = beam:window()
   local farthest, found = truth[#truth] + tolerance, 0
   for _, distance in ipairs(distances) do
      if distance <= farthest and found < #truth then found = found + 1 end
   end
   return found
end

local function random_graph(seed, extra)
   local options = { count = 150, dim = 4, degree = 2, seed = seed, levels = seed % 3 }
   for key, value in pairs(extra or {}) do options[key] = value end
   return proximity.random(options)
end

local LIMITS = { k = 8, max_slack = 100, max_ef = 10000, max_distances = 0 }

local function beam_over(graph) return proximity.beam(proximity.interface(graph), proximity.map(graph)) end

-- Calls check(graph, beam, truth, efforts, where) for many graphs and queries.
local function each_trace(options, check)
   local traced = 0
   for seed = 1, options.graphs or 12 do
      local graph = random_graph(seed, options.graph)
      local beam = beam_over(graph)
      for query = 1, options.queries or 8 do
         beam:set_map(proximity.map(graph))
         local truth = truth_of(graph, options.truth or LIMITS.k)
         local limits = options.limits or LIMITS
         local efforts, summary = beam:trace(limits, graph.entry, graph.entry_level, truth)
         check(graph, beam, truth, efforts, ("graph %d, query %d"):format(seed, query), summary)
         traced = traced + 1
         proximity.random_query(graph)
      end
   end
   assert.is_true(traced > 0)
end

-- The tolerance of the truth, as the contract gives it.
local function tolerance_of(graph, truth)
   local farthest = math.abs(truth[#truth])
   return 1e-6 * (graph.metric == "cosine" and math.max(farthest, 1) or farthest)
end

describe("the slack of a deep trace", function()
   for _, metric in ipairs(proximity.METRICS) do
      for _, case in ipairs({ { 0, 0 }, { 0.25, 0 }, { 0, 5 }, { 0.25, 1 } }) do
         local dead, reference = unpack(case)
         local kind = ("under %s with %d%% dead%s"):format(metric, dead * 100,
            reference > 0 and (", compared with result " .. reference) or "")
         it("is the least that finds each true neighbour, " .. kind, function()
            local above_zero, missed = 0, 0
            local limits = { reference = reference }
            for name, value in pairs(LIMITS) do limits[name] = value end
            local options = { graphs = 20, graph = { metric = metric, dead = dead }, limits = limits }
            each_trace(options, function(graph, beam, truth, efforts, where)
               local tolerance = tolerance_of(graph, truth)
               for i, effort in ipairs(efforts) do
                  local context = ("%s, true neighbour %d, slack %.9g"):format(where, i, effort.slack)
                  local rule = { window = LIMITS.k, slack = effort.slack, reference = reference }
                  if not effort.found then
                     missed = missed + 1
                     rule.slack = LIMITS.max_slack
                     assert(found_by(beam, graph, rule, truth, tolerance) < i, context .. ", yet found")
                  else
                     assert(found_by(beam, graph, rule, truth, tolerance) >= i, context)
                     if effort.slack > 0 then
                        above_zero = above_zero + 1
                        rule.slack = effort.slack * (1 - 1e-3)
                        assert(found_by(beam, graph, rule, truth, tolerance) < i, context .. ", not least")
                     end
                  end
               end
            end)
            -- The graphs are sparse enough to put the law to the test; those of inner products have
            -- hubs that reach everything.
            assert.is_true(above_zero > 50, above_zero .. " above 0")
            assert.is_true(missed > 0 or metric == "ip")
         end)
      end
   end
end)

describe("the ef of a deep trace", function()
   for _, dead in ipairs({ 0, 0.25 }) do
      it(("is the least bound that finds each true neighbour, with %d%% dead"):format(dead * 100), function()
         local larger_than_k = 0
         each_trace({ graph = { dead = dead } }, function(graph, beam, truth, efforts, where)
            local tolerance = tolerance_of(graph, truth)
            for i, effort in ipairs(efforts) do
               if effort.found then
                  local context = ("%s, true neighbour %d, ef %d"):format(where, i, effort.ef)
                  assert(effort.ef >= LIMITS.k, context)
                  -- a bound of k or less is the window itself
                  if effort.ef > LIMITS.k then
                     larger_than_k = larger_than_k + 1
                     local rule = { window = LIMITS.k, slack = 1e6, ef = effort.ef }
                     assert(found_by(beam, graph, rule, truth, tolerance) >= i, context)
                     -- and it is of live nodes alone
                     if dead == 0 or effort.ef - 1 > LIMITS.k then
                        rule.ef = effort.ef - 1
                        assert(found_by(beam, graph, rule, truth, tolerance) < i,
                           context .. " is not the least")
                     end
                  end
               end
            end
         end)
         assert.is_true(larger_than_k > 50)
      end)
   end

   it("is the least static ef_search where no node is dead", function()
      local larger_than_k = 0
      each_trace({}, function(graph, beam, truth, efforts, where)
         local tolerance = tolerance_of(graph, truth)
         for i, effort in ipairs(efforts) do
            if effort.found then
               local context = ("%s, true neighbour %d, ef %d"):format(where, i, effort.ef)
               assert(found_by(beam, graph, { window = effort.ef }, truth, tolerance) >= i, context)
               if effort.ef > LIMITS.k then
                  larger_than_k = larger_than_k + 1
                  assert(found_by(beam, graph, { window = effort.ef - 1 }, truth, tolerance) < i,
                     context .. " is not the least")
               end
            end
         end
      end)
      assert.is_true(larger_than_k > 50)
   end)
end)

describe("a deep trace", function()
   it("gives efforts that never fall", function()
      each_trace({ graph = { dead = 0.1 } }, function(_, _, _, efforts, where)
         for i = 2, #efforts do
            local a, b = efforts[i - 1], efforts[i]
            assert(a.slack <= b.slack and a.ef <= b.ef and a.distances <= b.distances, where)
         end
      end)
   end)

   it("counts the distances that a search must be allowed to pass to find each true neighbour", function()
      local later = 0
      each_trace({}, function(graph, beam, truth, efforts, where)
         local tolerance = tolerance_of(graph, truth)
         local function found(most)
            return found_by(beam, graph, { window = LIMITS.k, slack = 1e6, max_distances = most }, truth,
               tolerance)
         end
         local at_once = found(1)
         for i, effort in ipairs(efforts) do
            if effort.found then
               assert(found(effort.distances + 1) >= i, where)
               if i > at_once then
                  assert(found(effort.distances) < i, where)
                  later = later + 1
               end
            end
         end
      end)
      assert.is_true(later > 50)
   end)

   it("has the score of a search with the same window", function()
      local scored = 0
      each_trace({}, function(graph, beam, _, efforts, where, summary)
         if efforts[#efforts].found and summary.score < 0 then return end
         beam:start({ window = LIMITS.k, slack = 1e6 }, graph.entry, graph.entry_level)
         beam:window()
         if summary.score >= 0 then
            scored = scored + 1
            assert(math.abs(beam:stats().score - summary.score) < 1e-6, where)
         end
      end)
      assert.is_true(scored > 20)
   end)

   it("names the nearest live nodes, nearest first, and the k-th distance", function()
      each_trace({ graph = { dead = 0.3, degree = 8 } }, function(graph, _, truth, efforts, where, summary)
         if not efforts[#efforts].found then return end
         assert.equal(8, summary.nearest_count, where)
         for i = 0, 7 do
            local node = tonumber(summary.nearest[i])
            assert.is_false(graph.dead[node])
            assert.equal(truth[i + 1], graph.distances[node], where)
         end
         assert.equal(truth[LIMITS.k], summary.kth_distance, where)
         assert.equal(#truth, summary.found, where)
      end)
   end)

   it("may be asked for fewer true neighbours than the window holds", function()
      each_trace({ truth = 3 }, function(graph, beam, truth, efforts, where)
         for i, effort in ipairs(efforts) do
            if effort.found then
               local rule = { window = LIMITS.k, slack = effort.slack }
               assert(found_by(beam, graph, rule, truth, tolerance_of(graph, truth)) >= i, where)
            end
         end
      end)
   end)

   it("counts a tie with the last true neighbour as found", function()
      local graph = random_graph(1, { degree = 8 })
      for node = 0, graph.count - 1 do graph.distances[node] = 2 end
      local efforts = beam_over(graph):trace(LIMITS, graph.entry, graph.entry_level, { 2, 2, 2, 2, 2 })
      for _, effort in ipairs(efforts) do
         assert.equal(0, effort.slack)
         assert.equal(LIMITS.k, effort.ef)
      end
   end)

   it("counts no ef for dead nodes that come before the first live one, as the search does", function()
      -- a line of nodes at growing distances, of which the first twenty are dead
      local graph = random_graph(1, { count = 40, levels = 0 })
      for node = 0, 39 do
         graph.distances[node], graph.dead[node] = 1 + node, node < 20
         graph.links[0][node] = { node < 39 and node + 1 or nil }
      end
      local beam = proximity.beam(proximity.interface(graph), lib.rv_metric_map_make(lib.RV_METRIC_L2, 0, 0))
      local limits = { k = 2, max_slack = 100, max_ef = 100, max_distances = 0 }
      local truth = { 21, 22 }
      local efforts = beam:trace(limits, 0, 0, truth)
      assert.equal(2, efforts[1].ef)
      assert.equal(21, efforts[2].ef)
      graph.entry = 0
      assert.equal(2, found_by(beam, graph, { window = 2, slack = 10, ef = 21 }, truth, 0))
      assert.equal(1, found_by(beam, graph, { window = 2, slack = 10, ef = 20 }, truth, 0))
   end)

   it("takes a truth that was rounded otherwise", function()
      each_trace({ graph = { degree = 8, dead = 0 } }, function(graph, beam, truth, efforts, where)
         local rounded = {}
         for i, distance in ipairs(truth) do rounded[i] = float(distance * (1 - 5e-7)) end
         local again = beam:trace(LIMITS, graph.entry, graph.entry_level, rounded)
         for i, effort in ipairs(efforts) do
            assert.equal(effort.slack, again[i].slack, where)
            assert.equal(effort.ef, again[i].ef, where)
         end
      end)
   end)

   it("walks by rough distances and asks the vectors what is a true neighbour", function()
      local asked = 0
      each_trace({ graph = { degree = 8 } }, function(graph, beam, truth, efforts, where, summary)
         -- vectors are twice as far as the graph says
         local within = ffi.cast("bool (*)(void *, const rv_neighbour *, double)",
            function(_, visited, farthest)
               asked = asked + 1
               return 2 * visited.distance <= farthest
            end)
         local doubled, limits = {}, { within = within }
         for i, distance in ipairs(truth) do doubled[i] = float(2 * distance) end
         for key, value in pairs(LIMITS) do limits[key] = value end
         local by_vectors, its_summary = beam:trace(limits, graph.entry, graph.entry_level, doubled)
         within:free()
         assert.same(efforts, by_vectors, where)
         assert.equal(summary.distances, its_summary.distances, where)
      end)
      assert.is_true(asked > 0)
   end)

   it("finds nothing that the vectors deny", function()
      local graph = random_graph(4, { degree = 8, dead = 0 })
      local within = ffi.cast("bool (*)(void *, const rv_neighbour *, double)", function() return false end)
      local limits = { within = within }
      for key, value in pairs(LIMITS) do limits[key] = value end
      local truth = truth_of(graph, 8)
      local efforts, summary = beam_over(graph):trace(limits, graph.entry, graph.entry_level, truth)
      within:free()
      assert.equal(0, summary.found)
      for _, effort in ipairs(efforts) do assert.is_false(effort.found) end
   end)

   it("stops at each of its limits, and leaves what it missed not found", function()
      local graph = random_graph(4, { count = 400, degree = 6, levels = 0 })
      local beam = beam_over(graph)
      local impossible = { -5, -4, -3 }
      for _, limit in ipairs({ { max_ef = 20 }, { max_slack = 0.2 }, { max_distances = 50 } }) do
         local limits = { k = 3, max_slack = 1e6, max_ef = 10000, max_distances = 0 }
         for key, value in pairs(limit) do limits[key] = value end
         local efforts, summary = beam:trace(limits, graph.entry, 0, impossible)
         assert.is_true(summary.distances < 300 and summary.distances >= 20)
         assert.equal(0, summary.found)
         for _, effort in ipairs(efforts) do
            assert.equal(math.huge, effort.slack)
            assert.equal(2 ^ 32 - 1, effort.ef)
            assert.equal(2 ^ 32 - 1, effort.distances)
         end
      end
   end)

   it("finds within its limits all that a trace without limits finds within them", function()
      for seed = 1, 10 do
         local graph = random_graph(seed)
         local beam = beam_over(graph)
         local truth = truth_of(graph, LIMITS.k)
         local free = beam:trace(LIMITS, graph.entry, graph.entry_level, truth)
         for _, limit in ipairs({ { max_ef = 15 }, { max_slack = 0.3 } }) do
            local limits = { k = LIMITS.k, max_slack = 100, max_ef = 10000, max_distances = 0 }
            for key, value in pairs(limit) do limits[key] = value end
            local bounded = beam:trace(limits, graph.entry, graph.entry_level, truth)
            for i, effort in ipairs(free) do
               local within = effort.found and effort.slack <= float(limits.max_slack)
                  and effort.ef <= limits.max_ef
               assert.equal(within, bounded[i].found)
               if within then assert.equal(effort.slack, bounded[i].slack) end
            end
         end
      end
   end)

   it("works on a graph without an entry, and on one of dead nodes", function()
      local graph = random_graph(1)
      local beam = beam_over(graph)
      local efforts, summary = beam:trace(LIMITS, 0, -1, { 1 })
      assert.is_false(efforts[1].found)
      assert.equal(0, summary.nearest_count)
      assert.equal(math.huge, summary.kth_distance)
      for node = 0, graph.count - 1 do graph.dead[node] = true end
      efforts, summary = beam:trace(LIMITS, graph.entry, graph.entry_level, { 1 })
      assert.is_false(efforts[1].found)
      assert.equal(-1, summary.score)
   end)

   it("refuses senseless limits", function()
      local graph = random_graph(1)
      local beam = beam_over(graph)
      local function status_of(limits, truth)
         local merged = { k = 2, max_slack = 1, max_ef = 100, max_distances = 0 }
         for key, value in pairs(limits) do merged[key] = value end
         local _, status = beam:trace(merged, graph.entry, 0, truth)
         return status
      end
      assert.equal(lib.RV_ERR_RANGE, status_of({ k = 0 }, { 1 }))
      assert.equal(lib.RV_ERR_RANGE, status_of({}, {}))
      assert.equal(lib.RV_ERR_RANGE, status_of({}, { 1, 2, 3 }))
      assert.matches("3 true neighbours given, must be 1 to k = 2", beam:message())
      assert.equal(lib.RV_ERR_RANGE, status_of({ max_ef = 0 }, { 1 }))
      assert.equal(lib.RV_ERR_RANGE, status_of({ max_slack = -1 }, { 1 }))
   end)

   it("survives a lack of memory at any point, and leaks nothing", function()
      local graph = random_graph(2, { count = 900 })
      local interface, map = proximity.interface(graph), proximity.map(graph)
      local fail_at, status = 1
      repeat
         local tester = ffi.new("rv_test_allocator")
         lib.rv_test_allocator_init(tester, fail_at)
         local beam
         beam, status = proximity.beam(interface, map, tester.allocator)
         if beam then
            local efforts
            efforts, status = beam:trace(LIMITS, graph.entry, graph.entry_level, { -2, -1 })
            if efforts then status = lib.RV_OK end
            beam:destroy()
         end
         assert.is_true(status == lib.RV_ERR_NOMEM or tester.calls < fail_at)
         assert.equal(0, tonumber(tester.live))
         fail_at = fail_at + 1
      until status ~= lib.RV_ERR_NOMEM
      assert.is_true(fail_at > 8)
   end)

   it("is followed by a search as if it had not been", function()
      local graph = random_graph(3)
      local beam, fresh = beam_over(graph), beam_over(graph)
      beam:trace(LIMITS, graph.entry, graph.entry_level, truth_of(graph, LIMITS.k))
      local node, status = beam:next()
      assert.is_nil(node)
      assert.equal(lib.RV_ERR_STATE, status)
      beam:start({ window = 10, slack = 0.1 }, graph.entry, graph.entry_level)
      fresh:start({ window = 10, slack = 0.1 }, graph.entry, graph.entry_level)
      assert.same((fresh:window()), (beam:window()))
      assert.equal(fresh:stats().distances, beam:stats().distances)
   end)
end)
