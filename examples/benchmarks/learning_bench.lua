-- learning_bench.lua - what learning gains on real data, on queries that it never saw.
--
--   make bench-learning      or, for some two minutes only,      make bench-learning QUICK=1
--
-- Per data set and seed (benchmarks/learning/study.lua): two tables with the same rows in the seed's order,
-- one of which learns; static search at every effort on the test queries; the learning queries as ordinary
-- statements; then the test queries at each declared recall. Test queries are never recorded. What the
-- limits are, and what of a seed counts, is in benchmarks/learning/report.lua.
--
-- Everything is compared with the best single static ef_search at the recall that was really reached, found
-- with hindsight on the test queries: a stronger opponent than any setting that a person could choose.
--
-- Environment (make passes its variables on):
--   QUICK=1             the bundled data only, one seed
--   DATASETS="a b"      by name; default: all that are present
--   DATA=folder         where those that are not bundled are; default ../shared/data
--   SEEDS="1 2 3"       one run each; 0 is the order of the files
--   TARGETS="0.9 0.95"  the declared recalls
--   QUERIES, LEARN      test queries, learning queries at most; default 2500 and all
--   TIMED               test queries whose latency is measured, at each target; default 1000
--   PASSES              how often the learning queries are sent, after the first time in random order;
--                       default 1
--   DRIFT=0, OVERHEAD=0 leave out the new topic (learning/drift.lua), the overhead (learning/overhead.lua),
--                       which both run on the first seed

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local common = require("benchmarks.common")
local data = require("benchmarks.index.data")
local drift = require("benchmarks.learning.drift")
local overhead = require("benchmarks.learning.overhead")
local report = require("benchmarks.learning.report")
local study = require("benchmarks.learning.study")
local twins = require("benchmarks.learning.twins")
local terminal = require("demo.terminal")

local say = terminal.say

local DRIFT_TARGET = 0.95

local function options()
   local quick = common.flag("QUICK")
   return { quick = quick, names = quick and { "debian-packages" } or data.NAMES,
      seeds = common.numbers("SEEDS", quick and "1" or "1 2 3"),
      targets = common.numbers("TARGETS", "0.90 0.95 0.98 0.99"),
      queries = common.number("QUERIES", 2500), learn = common.number("LEARN", math.huge),
      passes = common.number("PASSES", 1), timed = common.number("TIMED", 1000),
      drift = common.flag("DRIFT", true),
      overhead = common.flag("OVERHEAD", true) }
end

local function run_set(server, set, o, document)
   terminal.heading(("%s: %s x %d, %s, %d test queries"):format(set.name, terminal.thousands(set.rows.count),
      set.rows.dim, set.metric, set.last - set.first + 1))
   local runs = {}
   twins.load_queries(server, set)
   for i, seed in ipairs(o.seeds) do runs[i] = study.run(server, set, seed, o) end
   local summaries = report.summaries(runs)
   local first, extra = o.seeds[1], {}
   if o.overhead then extra.overhead = overhead.run(server, set, twins.SERVER["ruvector.learning_budget"]) end
   if o.drift then extra.drift = drift.run(server, set, first, DRIFT_TARGET) end
   say(("\n### %s (%s x %d, %s, %d seed(s))"):format(set.name, terminal.thousands(set.rows.count),
      set.rows.dim, set.metric, #runs))
   report.print_set(summaries, runs)
   report.judge(document.criteria, set.name, summaries, runs)
   if o.drift then
      drift.print(extra.drift)
      drift.judge(document.criteria, set.name, extra.drift)
   end
   if o.overhead then
      overhead.print(extra.overhead)
      overhead.judge(document.criteria, set.name, extra.overhead)
   end
   for _, run in ipairs(runs) do
      for _, target in ipairs(run.targets) do target.recalls = nil end
   end
   table.insert(document.sets, { name = set.name, rows = set.rows.count, dimensions = set.rows.dim,
      metric = set.metric, test_queries = set.last - set.first + 1, targets = summaries, seeds = runs,
      drift = extra.drift, overhead = extra.overhead })
end

local function main()
   local started, o = clock.now(), options()
   local output = common.output_directory()
   terminal.heading("What learning gains, on queries that it never saw")
   local sets = common.open_sets(o.names, o.queries)
   local document = { quick = o.quick, passes = o.passes, sets = {}, criteria = {} }
   cluster.with({ directory = output .. "/learning-cluster", preload = true, settings = twins.SERVER },
      function(server)
         server:connect():exec("CREATE EXTENSION ruvector")
         for _, set in ipairs(sets) do run_set(server, set, o, document) end
      end)
   say("\n### limits")
   report.print_criteria(document.criteria)
   document.seconds = clock.now() - started
   common.write_json(output .. "/learning.json", document)
   say(("\n  the same figures: %s/learning.json; all of it took %.0f s"):format(output, document.seconds))
end

local ok, err = pcall(main)
if not ok then
   io.stderr:write("\nthe benchmark failed: ", tostring(err), "\n")
   os.exit(1, true)
end
