-- demo.lua - the main job on real data: load, index, measure, learn, measure again.
--
-- Started by examples/demo.sh (`make demo`), which sets the paths and cleans up after Ctrl-C. Runs
-- a private PostgreSQL under the build directory, and prints and writes nothing but what it has
-- just measured; examples/README.md documents build/demo/demo.json.

local argparse = require("argparse") -- Debian: lua-argparse
local json = require("dkjson")       -- Debian: lua-dkjson
local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local dataset = require("ruvector.dataset")
local pg = require("ruvector.pg")
local sweep = require("ruvector.sweep")
local learned = require("demo.learned")
local measure = require("demo.measure")
local terminal = require("demo.terminal")

local DATA = "examples/data/debian-packages"
local TARGETS = { 0.95, 0.98, 0.99 }
local DEFAULT_EF_SEARCH = 40
local TRAIN_QUERIES = 10000 -- the first; the rest are the test queries
local SHOWN_QUERY = 11308   -- of the test queries
local SEARCH = ("SELECT id FROM packages ORDER BY embedding <=> $1 LIMIT %d"):format(measure.K)
local BLOCK = 250           -- queries before a latency comparison changes sides
local LEARNING_LIMIT = 300  -- seconds until learning is declared stuck

local SETTINGS = {
   shared_buffers = "256MB",
   maintenance_work_mem = "512MB",
   max_parallel_maintenance_workers = 2,
   -- The machine has nothing else to do while the demo waits for the worker.
   ["ruvector.learning_budget"] = 1,
}

local say, thousands = terminal.say, terminal.thousands

-- ---- load and index ----------------------------------------------------------------------------

local function load_rows(db, data)
   local progress = terminal.progress("loading")
   db:exec("CREATE EXTENSION ruvector")
   db:exec([[CREATE TABLE packages
      (id bigint PRIMARY KEY, name text, synopsis text, embedding ruvector(128))]])
   local row = -1
   db:copy_binary("packages (id, name, synopsis, embedding)", { "int8", "text", "text", "ruvector" },
      function()
         row = row + 1
         local package = data.packages[row + 1]
         if not package then return nil end
         progress:show(row, data.rows.count)
         return { row, package.name, package.synopsis, pg.vector(data.rows:at(row), data.rows.dim) }
      end)
   db:exec("ANALYZE packages")
   progress:done(("loaded %s rows of %d dimensions by binary COPY"):format(
      thousands(data.rows.count), data.rows.dim))
end

local function build_index(db, watcher, data)
   local progress = terminal.progress("building the index")
   db:exec("SET max_parallel_maintenance_workers = 0") -- equal graphs in every run
   db:send([[CREATE INDEX packages_embedding ON packages
      USING ruhnsw (embedding ruvector_cosine_ops)]])
   while not pg.wait_any({ db }, 0.25) do
      local at = watcher:row("SELECT tuples_done FROM pg_stat_progress_create_index")
      progress:show(at and at.tuples_done or 0, data.rows.count)
   end
   db:receive()
   local size = db:value("SELECT pg_relation_size('packages_embedding')")
   return progress:done(("built the ruhnsw index, %.0f MB"):format(size / 1e6))
end

-- ---- (1) a search that a person can read -------------------------------------------------------

local function show_search(db, data)
   local question = data.questions[SHOWN_QUERY + 1]
   local sql = [[SELECT name, synopsis, round((embedding <=> $1)::numeric, 3) AS distance
  FROM packages ORDER BY embedding <=> $1 LIMIT 10]]
   terminal.heading("1. A search")
   say("  $1 = the vector of: " .. terminal.cyan('"' .. question.synopsis .. '"'))
   say("  " .. terminal.dim(sql:gsub("\n", "\n  ")) .. "\n")
   local vector = pg.vector(data.queries:at(SHOWN_QUERY), data.queries.dim)
   for _, row in ipairs(db:exec(sql, vector)) do
      say(("  %s  %-24s %s"):format(row.distance, row.name, terminal.dim(row.synopsis)))
   end
end

-- ---- (2) before --------------------------------------------------------------------------------

local function test_queries(data) return measure.range(TRAIN_QUERIES, data.queries.count - 1) end

-- All test queries, by both searchers.
local function count_tests(searchers, data, progress, note)
   return measure.count(searchers, test_queries(data), function(done, total)
      progress:show(done, total, note)
   end):means()
end

local function measure_before(searchers, data)
   terminal.heading("2. Before: static search on the test queries, which nothing learns from")
   local progress = terminal.progress("searching")
   for _, searcher in ipairs(searchers) do searcher:set { adaptive_search = "off" } end
   local best, runs = sweep.find(TARGETS, DEFAULT_EF_SEARCH, function(ef)
      for _, searcher in ipairs(searchers) do searcher:set { ef_search = ef } end
      return count_tests(searchers, data, progress, "at ef_search = " .. ef)
   end)
   searchers[1]:set { ef_search = DEFAULT_EF_SEARCH }
   local tally = measure.tally()
   searchers[1]:time(test_queries(data), tally)
   local default = tally:means()
   progress:done(("found the best static ef_search for each recall in %d runs of %s queries"):format(
      runs, thousands(data.queries.count - TRAIN_QUERIES)))
   say(("  default ef_search = %d: recall@10 %.4f, p50 %.2f ms, p99 %.2f ms, %s distances, %s pages")
      :format(DEFAULT_EF_SEARCH, default.recall, default.p50, default.p99,
         thousands(default.distances), thousands(default.pages)))
   for i, target in ipairs(TARGETS) do
      local m = best[i].measured
      say(("  best static ef_search for %.2f: %d (recall@10 %.4f, %s distances, %s pages)"):format(
         target, best[i].ef_search, m.recall, thousands(m.distances), thousands(m.pages)))
   end
   return default, best
end

-- ---- (3) learning ------------------------------------------------------------------------------

local function wait_for_learning(db, server)
   local progress = terminal.progress("the worker learns")
   local result = learned.wait { db = db, server = server, table = "packages", searches = TRAIN_QUERIES,
      limit = LEARNING_LIMIT, on_stats = function(stats)
         progress:show(stats.trajectories - stats.pending, TRAIN_QUERIES,
            ("%s, %d searches judged, %d patterns"):format(stats.state, stats.judged, stats.patterns))
      end }
   progress:done(("learned: %s searches seen, %s judged by exact neighbours, %d patterns"):format(
      thousands(result.trajectories), thousands(result.judged), result.patterns))
   return result
end

local function learn(server, data)
   terminal.heading("3. Learning")
   local db = server:connect()
   db:exec("SELECT ruvector_enable_learning('packages', trajectory_window => $1::int)", TRAIN_QUERIES)
   local progress = terminal.progress("running the training queries")
   local searchers = {
      measure.searcher(server:connect(), data, SEARCH, true),
      measure.searcher(server:connect(), data, SEARCH, true),
   }
   measure.count(searchers, measure.range(0, TRAIN_QUERIES - 1), function(done, total)
      progress:show(done, total)
   end)
   progress:done(("ran %s training queries"):format(thousands(TRAIN_QUERIES)))
   return wait_for_learning(db, server)
end

-- ---- (4) after ---------------------------------------------------------------------------------

local function compare(searcher, data, target, ef_search, on_query)
   local tallies = measure.take_turns({
      { searcher = searcher, settings = { adaptive_search = "off", ef_search = ef_search } },
      { searcher = searcher, settings = { adaptive_search = "on", target_recall = target } },
   }, test_queries(data), BLOCK, on_query)
   return tallies[1]:means(), tallies[2]:means()
end

local function measure_after(searcher, data, best)
   terminal.heading("4. After: SET ruvector.target_recall, and the best static setting again")
   local progress = terminal.progress("searching")
   local tests = data.queries.count - TRAIN_QUERIES
   local out = {}
   for i, target in ipairs(TARGETS) do
      local before, after = compare(searcher, data, target, best[i].ef_search, function(done)
         progress:show((i - 1) * tests + done, #TARGETS * tests)
      end)
      out[i] = { target = target, ef_search = best[i].ef_search, static = before, adaptive = after }
   end
   local last = searcher.db:row("SELECT reason FROM ruvector_last_search()")
   progress:done(("measured %d recalls, both ways in turn, on %s queries each"):format(
      #TARGETS, thousands(tests)))
   if last.reason ~= "learned" then
      error("the searches were not adaptive: ruvector_last_search() says " .. tostring(last.reason), 0)
   end
   return out
end

-- ---- (5) the table and demo.json ---------------------------------------------------------------

local function print_table(default, results, stats)
   terminal.heading("5. What learning gained")
   local function row(label, ef, m, ratio, time)
      return { label, ef, ("%.4f"):format(m.recall), thousands(m.distances), thousands(m.pages),
         ("%.2f"):format(m.p50), ("%.2f"):format(m.p99), ratio or "", time or "" }
   end
   local rows = { row("default", tostring(DEFAULT_EF_SEARCH), default) }
   for _, r in ipairs(results) do
      rows[#rows + 1] = "-"
      rows[#rows + 1] = row(("best static for %.2f"):format(r.target), tostring(r.ef_search), r.static)
      rows[#rows + 1] = row(("target_recall = %.2f"):format(r.target), "learned", r.adaptive,
         terminal.green(("%.2f"):format(r.adaptive.distances / r.static.distances)),
         terminal.green(("%.2f"):format(r.adaptive.p50 / r.static.p50)))
   end
   terminal.table({ "search", "ef_search", "recall@10", "distances", "pages", "p50 ms", "p99 ms",
      "distances ratio", "time ratio" }, rows)
   say(terminal.dim("  distances, pages: per query. ratios: learned to best static at the same recall " ..
      "(time: p50); less is better"))
   say(("  learning took %.2f s of background time per 1,000 queries; bank %s bytes, shared memory %s bytes")
      :format(stats.seconds_per_1000, thousands(stats.bank_bytes), thousands(stats.shared_memory_bytes)))
end

local function rounded(value, digits)
   local unit = 10 ^ digits
   return math.floor(value * unit + 0.5) / unit
end

-- The fields of one measurement, their names prefixed, added to the object `out`.
local function put_measurement(out, prefix, m)
   out[prefix .. "recall"] = rounded(m.recall, 5)
   out[prefix .. "distances"], out[prefix .. "pages"] = rounded(m.distances, 1), rounded(m.pages, 1)
   out[prefix .. "p50_ms"], out[prefix .. "p99_ms"] = rounded(m.p50, 4), rounded(m.p99, 4)
   return out
end

local JSON_ORDER = { "rows", "dimensions", "train_queries", "test_queries", "default_ef",
   "default_recall", "default_distances", "default_pages", "default_p50_ms", "default_p99_ms",
   "targets", "target", "recall", "distances", "pages", "p50_ms", "p99_ms", "static_ef",
   "static_recall", "static_distances", "static_pages", "static_p50_ms", "static_p99_ms",
   "distances_ratio", "time_ratio", "learning_seconds_per_1000_queries", "bank_bytes",
   "shared_memory_bytes", "phase_seconds" }

local function write_json(path, data, default, results, stats, phases)
   local targets, seconds = {}, {}
   for i, r in ipairs(results) do
      targets[i] = put_measurement(put_measurement({
         target = r.target, static_ef = r.ef_search,
         distances_ratio = rounded(r.adaptive.distances / r.static.distances, 4),
         time_ratio = rounded(r.adaptive.p50 / r.static.p50, 4),
      }, "", r.adaptive), "static_", r.static)
   end
   for name, value in pairs(phases) do seconds[name] = rounded(value, 2) end
   local document = put_measurement({
      rows = data.rows.count, dimensions = data.rows.dim, train_queries = TRAIN_QUERIES,
      test_queries = data.queries.count - TRAIN_QUERIES, default_ef = DEFAULT_EF_SEARCH,
      targets = targets, learning_seconds_per_1000_queries = rounded(stats.seconds_per_1000, 4),
      bank_bytes = stats.bank_bytes, shared_memory_bytes = stats.shared_memory_bytes,
      phase_seconds = seconds,
   }, "default_", default)
   local file = assert(io.open(path, "w"))
   file:write(json.encode(document, { indent = true, keyorder = JSON_ORDER }), "\n")
   file:close()
end

-- ---- all of it ---------------------------------------------------------------------------------

local function run(server, data, phases)
   local function phase(name, body, ...)
      local started = clock.now()
      local results = { body(...) }
      phases[name] = clock.now() - started
      return unpack(results)
   end
   local db, second = server:connect(), server:connect()
   terminal.heading(("ruvector on %s Debian packages, PostgreSQL %s"):format(
      thousands(data.rows.count), db:value("SHOW server_version")))
   if server.note then say("  " .. server.note) end
   phase("load", load_rows, db, data)
   phase("index", build_index, db, second, data)
   phase("show", show_search, db, data)
   local searchers = { measure.searcher(db, data, SEARCH), measure.searcher(second, data, SEARCH) }
   searchers[1]:check_plan("packages_embedding")
   local default, best = phase("before", measure_before, searchers, data)
   local stats = phase("learn", learn, server, data)
   local results = phase("after", measure_after, searchers[1], data, best)
   print_table(default, results, stats)
   return default, results, stats
end

local function main()
   local parser = argparse("demo", "The main job on real data, on a private PostgreSQL.")
   parser:option("-o --output", "Directory for the private cluster and demo.json.", "build/demo")
   local output = parser:parse().output
   assert(os.execute("mkdir -p '" .. output .. "'") == 0, "cannot create " .. output)
   local started, phases = clock.now(), {}
   local data = dataset.open(DATA)
   cluster.with({ directory = output .. "/cluster", record = output .. "/cluster.directory",
      preload = true, settings = SETTINGS }, function(server)
      phases.start = clock.now() - started
      local default, results, stats = run(server, data, phases)
      phases.total = clock.now() - started
      local path = output .. "/demo.json"
      write_json(path, data, default, results, stats, phases)
      say(("  the same figures: %s; all of it took %.0f s"):format(path, phases.total))
   end)
end

local ok, err = pcall(main)
if not ok then
   io.stderr:write("\nthe demo failed: ", tostring(err), "\n")
   os.exit(1, true)
end
