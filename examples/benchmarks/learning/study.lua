-- study.lua - one data set and one seed: static search, learning, and the test queries again.
--
--   sweep      static search at rising ef_search on the test queries: the curve that everything is held
--              against, and what each query would need by itself
--   untouched  adaptive search before anything was learned: it must do what static search does
--   learn      the learning queries as ordinary statements, until the worker has learned from them
--   targets    the test queries at each declared recall, in turns with the static search that reaches the
--              same recall: its ef_search is read off the curve, with hindsight
--   off        the learned index with adaptive search switched off, at the same ef_search
--
-- Test queries are never recorded. All figures of static search are of the index that never learns.

local curve = require("ruvector.curve")
local learned = require("demo.learned")
local measure = require("demo.measure")
local common = require("benchmarks.common")
local twins = require("benchmarks.learning.twins")

local M = {}

local EF_STEP, LAST_EF = 1.25, 10000
local BLOCK = 250            -- queries before a latency comparison changes sides
local UNTOUCHED_QUERIES = 500
local UNTOUCHED_EF = 40
local LEARNING_LIMIT, SETTLE = 600, 3 -- seconds

local function test_queries(set) return measure.range(set.first, set.last) end

-- ---- static search -----------------------------------------------------------------------------

-- What a tally says at one effort.
local function point_of(ef, tally)
   local means = tally:means()
   return { ef = ef, recall = means.recall, distances = means.distances, pages = means.pages,
      p99_distances = curve.quantile(tally.distances, 0.99) }
end

-- Adds to queries (by number) what this effort brings to each.
local function add_by_query(tally, queries)
   for i, query in ipairs(tally.queries) do
      queries[query] = queries[query] or {}
      table.insert(queries[query], { recall = tally.recalls[i], cost = tally.distances[i] })
   end
end

--- Static search at rising ef_search until the recall is reached. Returns the points of the curve and, as an
-- array, the points of every query.
function M.sweep(counters, queries, recall)
   local points, by_query, ef = {}, {}, measure.K
   while true do
      twins.set(counters, { adaptive_search = "off", ef_search = ef })
      local tally = twins.count(counters, queries)
      points[#points + 1] = point_of(ef, tally)
      add_by_query(tally, by_query)
      if points[#points].recall >= recall or ef == LAST_EF then break end
      ef = math.min(math.ceil(ef * EF_STEP), LAST_EF)
   end
   local each = {}
   for _, of_query in pairs(by_query) do each[#each + 1] = of_query end
   return points, each
end

-- Adds a point to the curve where it belongs, so that what is interpolated near it is nearly measured.
local function refine(points, counters, queries, ef)
   for _, point in ipairs(points) do
      if point.ef == ef then return point end
   end
   twins.set(counters, { adaptive_search = "off", ef_search = ef })
   local point = point_of(ef, twins.count(counters, queries))
   points[#points + 1] = point
   table.sort(points, function(a, b) return a.ef < b.ef end)
   return point
end

--- A measure of the static points (a field's name) at a recall; nil beyond the curve.
function M.static_at(points, recall, field)
   local costs = {}
   for i, point in ipairs(points) do costs[i] = { recall = point.recall, cost = point[field] } end
   return curve.at_recall(costs, recall)
end

-- ---- learning ----------------------------------------------------------------------------------

-- Adaptive search with nothing learned, against static search at the same effort: 1 when it does the same.
local function untouched(server, set)
   local queries = measure.range(set.first, math.min(set.last, set.first + UNTOUCHED_QUERIES - 1))
   local means = {}
   for _, name in ipairs { twins.LEARNED, twins.PLAIN } do
      local counters = twins.counters(server, set, name)
      twins.set(counters, { adaptive_search = "on", ef_search = UNTOUCHED_EF })
      means[name] = twins.count(counters, queries):means()
      twins.close(counters)
   end
   local ours, theirs = means[twins.LEARNED], means[twins.PLAIN]
   return { distances_ratio = ours.distances / theirs.distances,
      recall_difference = ours.recall - theirs.recall }
end

--- Sends queries to a table that learns, each `passes` times, every pass after the first in a random
-- order, and waits until the worker has learned from all of them. sent: how many were sent before.
function M.teach(server, set, name, queries, options)
   local searchers = twins.searchers(server, set, name, 2, true)
   for pass = 1, options.passes do
      measure.count(searchers, pass == 1 and queries or twins.shuffled(queries, options.seed + pass))
   end
   local stats = learned.wait { db = searchers[1].db, server = server, table = name,
      searches = #queries * options.passes, limit = LEARNING_LIMIT, settle = SETTLE }
   twins.close(searchers)
   return stats
end

--- Turns learning on for a table, with a window for that many searches.
function M.enable_learning(db, name, window)
   db:exec(("SELECT ruvector_enable_learning('%s', trajectory_window => %d)"):format(name, window))
end

-- ---- after -------------------------------------------------------------------------------------

local function share_at_least(values, bound)
   local count = 0
   for _, value in ipairs(values) do
      if value >= bound - 1e-9 then count = count + 1 end
   end
   return count / #values
end

-- Static search at the recall that learned search reached: distances by the curve, measured anew at the
-- nearest ef_search.
local function static_at_equal_recall(points, counters, queries, recall)
   local ef = M.static_at(points, recall, "ef") or points[#points].ef
   local nearest = refine(points, counters, queries, math.floor(ef + 0.5))
   return { ef_search = nearest.ef, point = nearest, distances = M.static_at(points, recall, "distances"),
      p99_distances = M.static_at(points, recall, "p99_distances") }
end

local function ratio(ours, theirs) return theirs and ours / theirs end

local function by_query_number(tally)
   local out = {}
   for i, query in ipairs(tally.queries) do out[query] = tally.recalls[i] end
   return out
end

-- One declared recall: the learned search counted, then timed in turns with static search at equal recall.
local function at_target(sides, points, by_query, queries, target)
   local adaptive = { adaptive_search = "on", target_recall = target }
   twins.set(sides.count_learned, adaptive)
   local counted = twins.count(sides.count_learned, queries)
   local recall, half = curve.interval(counted.recalls)
   local distances, p99 = curve.mean(counted.distances), curve.quantile(counted.distances, 0.99)
   local static = static_at_equal_recall(points, sides.count_plain, queries, recall)
   local timed = {}
   for i = 1, sides.timed or #queries do timed[i] = queries[(i - 1) % #queries + 1] end
   local tallies = measure.take_turns({
      { searcher = sides.learned[1], settings = adaptive },
      { searcher = sides.plain[1], settings = { adaptive_search = "off", ef_search = static.ef_search } },
   }, timed, BLOCK)
   local ours, theirs = tallies[1]:means(), tallies[2]:means()
   local perfect = curve.perfect(by_query, recall)
   static.timed_recall, static.p50_ms, static.p99_ms = theirs.recall, theirs.p50, theirs.p99
   return { target = target, recall = recall, recall_half_width = half, recalls = by_query_number(counted),
      queries_at_target = share_at_least(counted.recalls, target), distances = distances, p99_distances = p99,
      p50_ms = ours.p50, p99_ms = ours.p99, static = static, perfect_distances = perfect,
      reason = sides.learned[1].db:value("SELECT reason FROM ruvector_last_search()"),
      distances_ratio = ratio(distances, static.distances),
      p99_distances_ratio = ratio(p99, static.p99_distances), time_ratio = ratio(ours.p50, theirs.p50),
      p99_time_ratio = ratio(ours.p99, theirs.p99), perfect_ratio = ratio(distances, perfect) }
end

-- The learned index without adaptive search: what its links cost or gain, at the same ef_search and at
-- equal recall.
local function switched_off(counters, points, queries, static)
   twins.set(counters, { adaptive_search = "off", ef_search = static.ef_search })
   local means = twins.count(counters, queries):means()
   return { recall = means.recall, recall_gained = means.recall - static.point.recall,
      distances = means.distances, distances_ratio = means.distances / static.point.distances,
      equal_recall_ratio = ratio(means.distances, M.static_at(points, means.recall, "distances")) }
end

local function measure_targets(server, set, points, by_query, options)
   local queries = test_queries(set)
   local sides = { learned = twins.searchers(server, set, twins.LEARNED, 1),
      plain = twins.searchers(server, set, twins.PLAIN, 1),
      count_learned = twins.counters(server, set, twins.LEARNED),
      count_plain = twins.counters(server, set, twins.PLAIN) }
   local out = {}
   sides.timed = options.timed
   for i, target in ipairs(options.targets) do
      out[i] = at_target(sides, points, by_query, queries, target)
      out[i].off = switched_off(sides.count_learned, points, queries, out[i].static)
      out[i].static.point = nil
   end
   for _, name in ipairs { "learned", "plain", "count_learned", "count_plain" } do
      twins.close(sides[name])
   end
   return out
end

--- All of it. options: targets, learn (learning queries at most), passes, timed (how many test queries are
-- timed, those of the list over and over; default: each once). Returns a table of figures; in each target
-- `recalls`, by query.
function M.run(server, set, seed, options)
   local out, db = { seed = seed }, twins.connect(server)
   common.step(("seed %d: both tables and indexes"):format(seed), function()
      twins.make_both(server, set, seed)
   end)
   local points, by_query
   common.step("static search at every effort", function()
      local counters = twins.counters(server, set, twins.PLAIN)
      local last = options.targets[#options.targets]
      points, by_query = M.sweep(counters, test_queries(set), last + 0.6 * (1 - last))
      twins.close(counters)
   end)
   out.static = points
   local queries = measure.range(0, math.min(set.first, options.learn) - 1)
   M.enable_learning(db, twins.LEARNED, #queries * options.passes)
   out.untouched = untouched(server, set)
   local stats = common.step(("learned from %d queries, each sent %d time(s)"):format(#queries,
      options.passes), function()
      return M.teach(server, set, twins.LEARNED, queries, { passes = options.passes, seed = seed })
   end)
   out.learning = { queries = #queries }
   for name, value in pairs(stats) do
      if type(name) == "string" then out.learning[name] = value end -- rows have their columns by number too
   end
   out.targets = common.step("test queries at every target, in turns with static search", function()
      return measure_targets(server, set, points, by_query, options)
   end)
   db:close()
   return out
end

return M
