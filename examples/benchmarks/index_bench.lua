-- index_bench.lua - ruhnsw against pgvector's hnsw, ruivfflat against its ivfflat: same rows, same
-- parameters, one server, in turns.
--
--   make bench-index      or, for a few minutes only,      make bench-index QUICK=1
--
-- Per kind of index and data set, for every system (effort: ef_search or probes):
--   build    seconds without parallel workers, over 95% of the rows
--   insert   the other rows, one prepared statement and transaction each, by one client and by two
--   build    seconds with one worker, over all rows, and bytes; this index is the one that is searched
--   recall   at ascending effort, until 0.99 is reached; kept are those around 0.95 and 0.99, and a usual one
--   search   at each of these, short windows of one client and of two; the systems take turns within a round
--   churn    half of the rows deleted, vacuumed, inserted again: recall at the same effort
--
-- Speed at a recall is interpolated on a round's curve (ruvector.curve), ratios are taken within a round,
-- and the median of the rounds counts. Everything learned is off. The client adds the same to both systems;
-- the row "protocol" shows how much: a prepared statement with the same parameter that searches nothing.
--
-- Environment (make passes its variables on):
--   QUICK=1          the bundled data only, 500 queries, 3 short rounds
--   KINDS="hnsw ivfflat"   the kinds of index
--   DATASETS="a b"   by name; default: all that are present
--   DATA=folder      where those that are not bundled are; default ../shared/data
--   EF="10 20 40", PROBES="1 2 4"   the efforts to try, ascending
--   ROUNDS, WINDOW (seconds), QUERIES (test queries at most), M, EF_CONSTRUCTION
--   LISTS            of ivfflat; default: the square root of the number of rows
--   EXTRA_WITH="storage = int8; storage = float16"   more of ruvector's indexes, beside the plain ones

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local curve = require("ruvector.curve")
local common = require("benchmarks.common")
local clients = require("benchmarks.index.clients")
local criteria = require("benchmarks.index.criteria")
local data = require("benchmarks.index.data")
local systems = require("benchmarks.index.system")
local terminal = require("demo.terminal")

local HELD_OUT = 20 -- each that many-th row is inserted and not built
local say = terminal.say
local show, step, markdown = common.show, common.step, common.markdown

local function options()
   local quick = common.flag("QUICK")
   local o = { quick = quick, variants = { "" }, kinds = {},
      rounds = common.number("ROUNDS", quick and 3 or 5),
      window = common.number("WINDOW", quick and 0.5 or 1),
      queries = common.number("QUERIES", quick and 500 or 2000),
      names = quick and { "debian-packages" } or data.NAMES,
      parameters = {
         hnsw = { m = common.number("M", 16), ef_construction = common.number("EF_CONSTRUCTION", 64) },
         ivfflat = { lists = common.number("LISTS")
            or function(set) return math.floor(math.sqrt(set.rows.count) + 0.5) end },
      },
      efforts = { hnsw = common.numbers("EF", systems.KINDS.hnsw.efforts),
         ivfflat = common.numbers("PROBES", systems.KINDS.ivfflat.efforts) } }
   if o.efforts.hnsw[1] < data.K then
      error(("EF %d is below the %d rows asked for"):format(o.efforts.hnsw[1], data.K), 0)
   end
   for _, name in ipairs(common.words(common.text("KINDS", "hnsw ivfflat"), " ,")) do
      o.kinds[#o.kinds + 1] = systems.KINDS[name]
         or error(("unknown kind of index '%s'; known: hnsw, ivfflat"):format(name), 0)
   end
   for _, with in ipairs(common.words(common.text("EXTRA_WITH", ""), ";")) do
      o.variants[#o.variants + 1] = with
   end
   return o
end

-- ---- the steps ---------------------------------------------------------------------------------

local function build_and_insert(run, set, system, out)
   local function held_out(id) return id % HELD_OUT == HELD_OUT - 1 end
   local db, pool = run.db, run.pool
   step(system.name .. ": loaded", function()
      system:load(db, set, function(id) return not held_out(id) end)
   end)
   step(system.name .. ": built without workers", function() out.build[0] = system:build(db, set, 0) end)
   local ids = { {}, {}, {} } -- the first third for one client alone, the others for two at once
   local n = 0
   for id = HELD_OUT - 1, set.rows.count - 1, HELD_OUT do
      n = n + 1
      table.insert(ids[n % 3 + 1], id)
   end
   for count = 1, 2 do
      step(("%s: inserted by %d client(s)"):format(system.name, count), function()
         local start = clock.now() + 0.5
         local answers = pool:all(count, function(i)
            return { op = "insert", sql = system:insert_sql(), path = set.row_path,
               ids = ids[count == 1 and 1 or i + 1], start = start }
         end)
         local first, last, done = math.huge, 0, 0
         for _, answer in ipairs(answers) do
            first, last = math.min(first, answer.started), math.max(last, answer.ended)
            done = done + #answer.latencies
         end
         out.insert[count] = done / (last - first)
      end)
   end
   step(system.name .. ": loaded again", function() system:load(db, set, function() return true end) end)
   step(system.name .. ": built with one worker", function()
      out.build[1], out.bytes = system:build(db, set, 1)
   end)
   system:check_plan(db, set)
end

-- Recall at ascending effort, and of these the points worth timing.
local function find_points(run, set, system)
   local all, keep, goal = {}, {}, criteria.GOALS[#criteria.GOALS]
   for _, effort in ipairs(run.options.efforts[run.kind.name]) do
      if effort > system.largest_effort then break end
      local recall, distances = system:recall(run.db, set, effort)
      all[#all + 1] = { effort = effort, recall = recall, distances = distances, qps = { {}, {} },
         latencies = {} }
      if recall >= goal and effort >= run.kind.usual then break end
   end
   for _, wanted in ipairs(criteria.GOALS) do
      for i, point in ipairs(all) do
         if point.recall >= wanted then
            keep[i] = true
            if i > 1 then keep[i - 1] = true end
            break
         end
      end
   end
   local points = {}
   for i, point in ipairs(all) do
      if keep[i] or point.effort == run.kind.usual or i == #all then
         point.pages = system:pages(run.db, set, point.effort)
         points[#points + 1] = point
      end
   end
   return points
end

-- All windows of one round: at each client count the systems take turns, point by point.
local function round(run, set, results, number)
   local most = 0
   for _, r in ipairs(results) do most = math.max(most, #r.points) end
   for count = 1, 2 do
      for i = 0, most do
         for _, r in ipairs(results) do
            local point = r.points[i]
            local message = { setup = { point and r.system:set_effort(point.effort) }, offset = number * 307,
               sql = point and r.system:search_sql(set) or r.system:floor_sql(),
               rows = point and data.K or 1 }
            if i == 0 or point then
               local seconds = i == 0 and run.options.window / 4 or run.options.window
               local window = run.pool:window(count, seconds, message)
               local into = i == 0 and r.protocol or point
               into.qps[count][number] = window.qps
               if count == 1 then
                  for _, latency in ipairs(window.latencies) do table.insert(into.latencies, latency) end
               end
            end
         end
      end
   end
end

local function finish_points(r)
   for _, point in ipairs { r.protocol, unpack(r.points) } do
      point.p50_us, point.p99_us = curve.quantile(point.latencies, 0.5), curve.quantile(point.latencies, 0.99)
      point.latencies = nil
   end
end

-- Nothing is timed here, so two systems are churned at once.
local function churn(run, set, results)
   for first = 1, #results, 2 do
      step("half of the rows deleted, vacuumed, inserted again", function()
         run.pool:all(math.min(2, #results - first + 1), function(i)
            return { op = "exec", statements = results[first + i - 1].system:churn_sql() }
         end)
      end)
   end
   for _, r in ipairs(results) do
      local at = r.points[#r.points]
      for _, point in ipairs(r.points) do
         if point.effort == run.kind.usual then at = point end
      end
      r.churn = { effort = at.effort, before = at.recall,
         after = (r.system:recall(run.db, set, at.effort)),
         bytes = run.db:value(("SELECT pg_relation_size('%s_index')"):format(r.system.table)) }
   end
end

local function measure(run, set)
   terminal.heading(("%s: %s: %s x %d, %s, %d test queries"):format(run.kind.name, set.name,
      terminal.thousands(set.rows.count), set.rows.dim, set.metric, set.last - set.first + 1))
   run.pool:all(2, function()
      return { op = "connect", conninfo = run.server:conninfo(), setup = systems.SETUP }
   end)
   run.pool:all(2, function()
      return { op = "queries", path = set.query_path, first = set.first, last = set.last }
   end)
   local results = {}
   for i, system in ipairs(run.systems) do
      results[i] = { system = system, build = {}, insert = {},
         protocol = { qps = { {}, {} }, latencies = {} } }
      build_and_insert(run, set, system, results[i])
   end
   for _, r in ipairs(results) do
      r.points = step(r.system.name .. ": recall", function() return find_points(run, set, r.system) end)
   end
   step(("%d rounds of searches in turns"):format(run.options.rounds), function()
      for number = 1, run.options.rounds do round(run, set, results, number) end
   end)
   for _, r in ipairs(results) do finish_points(r) end
   churn(run, set, results)
   return results
end

-- ---- the report --------------------------------------------------------------------------------

-- One line of the search table; label: the effort.
local function search_row(name, label, p)
   return { name, label, show(p.recall, "%.4f"), show(p.qps1, "%.0f"), show(p.qps2, "%.0f"),
      show(p.p50_us, "%.0f"), show(p.p99_us, "%.0f"), show(p.pages, "%.0f"),
      show(p.distances, "%.0f") }
end

local function summary(point)
   return { effort = point.effort, recall = point.recall, pages = point.pages, distances = point.distances,
      p50_us = point.p50_us, p99_us = point.p99_us, qps1 = curve.median(point.qps[1]),
      qps2 = curve.median(point.qps[2]), qps_rounds = point.qps }
end

-- The medians at a recall: every column interpolated by itself; nil where it was not reached.
local function at_goal(r, goal)
   local out = { goal = goal }
   for column, measure_of in pairs {
      qps1 = function(p) return 1 / p.qps1 end, qps2 = function(p) return 1 / p.qps2 end,
      p50_us = function(p) return p.p50_us end, p99_us = function(p) return p.p99_us end,
      pages = function(p) return p.pages end,
      distances = r.system.ours and function(p) return p.distances end or nil,
   } do
      out[column] = criteria.value_at(r.summaries, goal, measure_of)
   end
   out.qps1, out.qps2 = out.qps1 and 1 / out.qps1, out.qps2 and 1 / out.qps2
   out.recall = out.qps1 and goal
   return out
end

local function report(kind, set, results)
   local searches, rest = {}, {}
   for _, r in ipairs(results) do
      r.summaries, r.goals = {}, {}
      for i, point in ipairs(r.points) do r.summaries[i] = summary(point) end
      for i, goal in ipairs(criteria.GOALS) do r.goals[i] = at_goal(r, goal) end
      r.floor = summary(r.protocol)
      searches[#searches + 1] = search_row(r.system.name, "protocol", r.floor)
      for _, p in ipairs(r.summaries) do
         searches[#searches + 1] = search_row(r.system.name, tostring(p.effort), p)
      end
      for _, p in ipairs(r.goals) do
         searches[#searches + 1] = search_row(r.system.name, ("at recall %.2f"):format(p.goal), p)
      end
      rest[#rest + 1] = { r.system.name, ("%.1f"):format(r.build[0]), ("%.1f"):format(r.build[1]),
         ("%.1f"):format(r.bytes / 1e6), ("%.0f"):format(r.insert[1]), ("%.0f"):format(r.insert[2]),
         ("%d"):format(r.churn.effort), ("%.4f"):format(r.churn.before), ("%.4f"):format(r.churn.after),
         ("%.1f"):format(r.churn.bytes / 1e6) }
   end
   say(("\n### %s: %s"):format(kind.name, set.name))
   markdown({ "index", kind.effort, "recall@10", "queries/s, 1 client", "queries/s, 2 clients", "p50 us",
      "p99 us", "pages", "distances" }, searches)
   markdown({ "index", "build s, 0 workers", "build s, 1 worker", "MB", "inserts/s, 1 client",
      "inserts/s, 2 clients", "churn at " .. kind.effort, "recall fresh", "recall after churn",
      "MB after churn" }, rest)
end

local function judge(kind, set_name, results)
   local theirs
   for _, r in ipairs(results) do
      if not r.system.ours then theirs = r end
   end
   local out = {}
   for _, r in ipairs(results) do
      if r.system.ours then
         for _, c in ipairs(criteria.judge(kind, r, theirs)) do
            c.set, c.index = set_name, r.system.name
            out[#out + 1] = c
         end
      end
   end
   return out
end

local function system_document(r)
   return { index = r.system.name, build_seconds = { workers_0 = r.build[0], workers_1 = r.build[1] },
      index_bytes = r.bytes, inserts_per_second = { clients_1 = r.insert[1], clients_2 = r.insert[2] },
      protocol = r.floor, points = r.summaries, at_recall = r.goals, churn = r.churn }
end

-- ---- all of it ---------------------------------------------------------------------------------

local function compare(run, sets, document)
   local db = run.db
   db:exec("CREATE EXTENSION ruvector")
   local pgvector = db:value("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
   if pgvector then db:exec("CREATE EXTENSION vector") end
   for _, sql in ipairs(systems.SETUP) do db:exec(sql) end
   say(pgvector and "  pgvector " .. pgvector or "  pgvector is not installed: only ruvector is measured")
   document.pgvector = pgvector
   for _, kind in ipairs(run.options.kinds) do
      run.kind = kind
      run.systems = systems.all(kind, run.options.variants, pgvector ~= nil,
         run.options.parameters[kind.name])
      for _, set in ipairs(sets) do
         local results = measure(run, set)
         report(kind, set, results)
         local entry = { kind = kind.name, name = set.name, rows = set.rows.count, dimensions = set.rows.dim,
            metric = set.metric, test_queries = set.last - set.first + 1, systems = {} }
         for i, r in ipairs(results) do entry.systems[i] = system_document(r) end
         table.insert(document.sets, entry)
         for _, c in ipairs(judge(kind, set.name, results)) do table.insert(document.criteria, c) end
      end
   end
   say("\n### criteria")
   local rows = {}
   for i, c in ipairs(document.criteria) do
      rows[i] = { c.set, c.index, c.name, show(c.value, "%.3f"), c.limit,
         c.met == nil and "-" or c.met and "met" or "not met" }
   end
   markdown({ "data", "index", "criterion", "measured", "limit", "verdict" }, rows)
end

local function main(pool)
   local started, o = clock.now(), options()
   local output = common.output_directory()
   terminal.heading("ruvector's indexes and pgvector's, in turns on one server")
   local sets = common.open_sets(o.names, o.queries)
   local hnsw = o.parameters.hnsw
   local document = { m = hnsw.m, ef_construction = hnsw.ef_construction, rounds = o.rounds,
      window_seconds = o.window, quick = o.quick, sets = {}, criteria = {} }
   cluster.with({ directory = output .. "/cluster", preload = true, settings = {
      shared_buffers = ("%dMB"):format(1024 + 512 * (#o.variants - 1)), maintenance_work_mem = "1GB",
      max_wal_size = "16GB", checkpoint_timeout = "1h", autovacuum = "off", jit = "off",
      ["ruvector.learning_enabled"] = "off",
   } }, function(server)
      compare({ server = server, db = server:connect(), pool = pool, options = o }, sets, document)
   end)
   document.seconds = clock.now() - started
   common.write_json(output .. "/index.json", document)
   say(("\n  the same figures: %s/index.json; all of it took %.0f s"):format(output, document.seconds))
end

local pool = clients.pool(2) -- before the server: see clients.lua
local ok, err = pcall(main, pool)
pool:close()
if not ok then
   io.stderr:write("\nthe benchmark failed: ", tostring(err), "\n")
   os.exit(1, true)
end
