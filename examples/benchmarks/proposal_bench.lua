-- proposal_bench.lua - the targets of the proposal that ruvector was built from, in one run.
--
--   make bench-proposal
--
-- On the bundled data: recall@10 rises from 0.95 to at least 0.98 after 10,000 queries, while the 99th
-- percentile of latency falls to at most 0.6 of that of the static setting which reaches the same recall;
-- within 100 MB, and 1 s of learning per 1,000 queries. Static and learned search take turns, and the 99th
-- percentile of distances is beside that of time: it does not depend on what else the machine does.
--
-- Environment: SEEDS (default 1 2 3), TARGETS (default 0.98), TIMED (how many test queries are timed, over
-- and over; default 6000).

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local common = require("benchmarks.common")
local data = require("benchmarks.index.data")
local report = require("benchmarks.learning.report")
local study = require("benchmarks.learning.study")
local terminal = require("demo.terminal")
local twins = require("benchmarks.learning.twins")

local SET, LEARN, TEST = "debian-packages", 10000, 2000
local BEFORE, AFTER = 0.95, 0.98
local P99_SHARE, SECONDS, MEGABYTES = 0.6, 1, 100

-- The static setting that people start from: the least measured one that reaches BEFORE.
local function start_of(points)
   for _, point in ipairs(points) do
      if point.recall >= BEFORE then return point end
   end
end

local function print_runs(runs)
   local rows = {}
   for _, run in ipairs(runs) do
      local seed, before = tostring(run.seed), run.before
      rows[#rows + 1] = { seed, ("before: ef_search = %d"):format(before.ef), ("%.4f"):format(before.recall),
         ("%.0f"):format(before.distances), ("%.0f"):format(before.p99_distances), "-", "-" }
      for _, t in ipairs(run.targets) do
         rows[#rows + 1] = { seed, ("static at equal recall: ef_search = %d"):format(t.static.ef_search),
            ("%.4f"):format(t.static.timed_recall), common.show(t.static.distances, "%.0f"),
            common.show(t.static.p99_distances, "%.0f"), ("%.3f"):format(t.static.p50_ms),
            ("%.3f"):format(t.static.p99_ms) }
         rows[#rows + 1] = { seed, ("learned, target %.2f"):format(t.target), ("%.4f"):format(t.recall),
            ("%.0f"):format(t.distances), ("%.0f"):format(t.p99_distances), ("%.3f"):format(t.p50_ms),
            ("%.3f"):format(t.p99_ms) }
      end
   end
   common.markdown({ "seed", "search", "recall@10", "distances", "p99 distances", "p50 ms", "p99 ms" }, rows)
end

local function judge(runs)
   local criteria = {}
   for _, run in ipairs(runs) do
      local name, l = ("seed %d: "):format(run.seed), run.learning
      for _, t in ipairs(run.targets) do
         report.add(criteria, SET, name .. "recall@10 before and after",
            ("%.4f, %.4f"):format(run.before.recall, t.recall), (">= %.2f after"):format(AFTER),
            t.recall >= AFTER)
         report.at_most(criteria, SET, name .. "p99 latency to static at equal recall", t.p99_time_ratio,
            P99_SHARE)
         report.at_most(criteria, SET, name .. "p99 distances to static at equal recall",
            t.p99_distances_ratio, P99_SHARE)
      end
      report.at_most(criteria, SET, name .. "shared memory, which sessions read in place, MB",
         l.shared_memory_bytes / 1e6, MEGABYTES, "%.1f")
      report.at_most(criteria, SET, name .. "learning, CPU seconds per 1,000 queries", l.seconds_per_1000,
         SECONDS)
   end
   return criteria
end

local function main()
   local started, output = clock.now(), common.output_directory()
   terminal.heading("The targets of the proposal")
   local set, runs = data.open(SET, data.directory(SET), TEST), {}
   local options = { targets = common.numbers("TARGETS", tostring(AFTER)), learn = LEARN, passes = 1,
      timed = common.number("TIMED", 6000) }
   cluster.with({ directory = output .. "/proposal-cluster", preload = true, settings = twins.SERVER },
      function(server)
         server:connect():exec("CREATE EXTENSION ruvector")
         twins.load_queries(server, set)
         for i, seed in ipairs(common.numbers("SEEDS", "1 2 3")) do
            runs[i] = study.run(server, set, seed, options)
            runs[i].before = start_of(runs[i].static)
         end
      end)
   print_runs(runs)
   local criteria = judge(runs)
   report.print_criteria(criteria)
   for _, run in ipairs(runs) do
      for _, target in ipairs(run.targets) do target.recalls = nil end
   end
   common.write_json(output .. "/proposal.json", { seeds = runs, criteria = criteria,
      seconds = clock.now() - started })
   terminal.say(("\n  the same figures: %s/proposal.json; all of it took %.0f s"):format(output,
      clock.now() - started))
end

local ok, err = pcall(main)
if not ok then
   io.stderr:write("\nthe benchmark failed: ", tostring(err), "\n")
   os.exit(1, true)
end
