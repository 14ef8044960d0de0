-- report.lua - the figures of all seeds of a data set, as tables and against the limits.
--
-- A figure of several seeds is the mean of theirs; where a limit holds for every seed, the worst counts.
-- The interval of a recall is over the queries, each with its mean over the seeds: it says how far other
-- queries of the kind may differ, not other graphs; the lowest and highest seed say that.

local curve = require("ruvector.curve")
local common = require("benchmarks.common")

local M = {}

local show = common.show

-- The most that learned search may cost, as a share of the best static setting at equal recall.
local DISTANCE_LIMITS = {
   ["debian-packages"] = { [0.95] = 0.58, [0.98] = 0.38, [0.99] = 0.24 },
   wordnet = { [0.95] = 0.70, [0.98] = 0.62, [0.99] = 0.60 },
   ["sift-photos-200k"] = { [0.95] = 0.94, [0.98] = 0.87, [0.99] = 0.84 },
}
local RECALL_BELOW, RECALL_ABOVE = 0.005, 0.01
local NEVER_ABOVE = 1.03 -- times static, anywhere
local TIME_FOLLOWS = 1.10 -- times the ratio of the distances
local LEARNING_SECONDS, MEMORY_BYTES = 1, 100e6

-- field(item) of every item.
local function pluck(items, field)
   local out = {}
   for _, item in ipairs(items) do
      local value = field(item)
      if value == nil then return nil end
      out[#out + 1] = value
   end
   return out
end

local function lowest(values) return values and math.min(unpack(values)) end
local function highest(values) return values and math.max(unpack(values)) end
local function mean(values) return values and curve.mean(values) end

local function ratio_of(field) return function(target) return target[field] end end

-- The mean recall of the queries over the seeds, and the half width of its interval.
local function recall_over_seeds(targets)
   local values = {}
   for query in pairs(targets[1].recalls) do
      values[#values + 1] = mean(pluck(targets, function(t) return t.recalls[query] end))
   end
   return curve.interval(values)
end

--- One target over the seeds: means, lowest and highest.
function M.summary(runs, index)
   local targets = pluck(runs, function(run) return run.targets[index] end)
   local recalls = pluck(targets, ratio_of("recall"))
   local out = { target = targets[1].target, recall_low = lowest(recalls), recall_high = highest(recalls) }
   out.recall, out.recall_half_width = recall_over_seeds(targets)
   for _, field in ipairs { "queries_at_target", "distances", "p99_distances", "p50_ms", "p99_ms",
      "distances_ratio", "p99_distances_ratio", "time_ratio", "p99_time_ratio", "perfect_ratio" } do
      local values = pluck(targets, ratio_of(field))
      out[field], out[field .. "_worst"] = mean(values), highest(values)
   end
   for _, field in ipairs { "ef_search", "distances", "p50_ms", "p99_ms" } do
      out["static_" .. field] = mean(pluck(targets, function(t) return t.static[field] end))
   end
   out.off_ratio_worst = highest(pluck(targets, function(t)
      -- No more work at the same setting, or no more work for the same recall.
      return math.min(t.off.distances_ratio, t.off.equal_recall_ratio or math.huge)
   end))
   out.off_same_ef = mean(pluck(targets, function(t) return t.off.distances_ratio end))
   out.off_recall_gained = mean(pluck(targets, function(t) return t.off.recall_gained end))
   return out
end

--- All targets of a data set.
function M.summaries(runs)
   local out = {}
   for i = 1, #runs[1].targets do out[i] = M.summary(runs, i) end
   return out
end

-- ---- tables ------------------------------------------------------------------------------------

function M.print_set(summaries, runs)
   local rows, off = {}, {}
   for i, s in ipairs(summaries) do
      rows[i] = { ("%.2f"):format(s.target), ("%.4f ± %.4f"):format(s.recall, s.recall_half_width),
         ("%.4f to %.4f"):format(s.recall_low, s.recall_high), show(s.queries_at_target, "%.3f"),
         show(s.distances, "%.0f"), show(s.static_distances, "%.0f"), show(s.distances_ratio, "%.3f"),
         show(s.p99_distances_ratio, "%.2f"), show(s.p50_ms, "%.3f"), show(s.static_p50_ms, "%.3f"),
         show(s.time_ratio, "%.3f"), show(s.perfect_ratio, "%.2f") }
      off[i] = { ("%.2f"):format(s.target), show(s.static_ef_search, "%.0f"), show(s.off_same_ef, "%.3f"),
         show(s.off_recall_gained, "%+.4f"), show(s.off_ratio_worst, "%.3f") }
   end
   common.markdown({ "target", "recall@10", "lowest to highest seed", "queries at target", "distances",
      "static at equal recall", "ratio", "ratio of p99", "p50 ms", "static p50 ms", "time ratio",
      "to perfect knowledge" }, rows)
   common.markdown({ "adaptive search off, target", "ef_search", "distances, ratio at equal ef_search",
      "recall gained", "worst seed, the lesser of this and that at equal recall" }, off)
   local seeds = {}
   for i, run in ipairs(runs) do
      local l = run.learning
      seeds[i] = { tostring(run.seed), show(l.trajectories, "%d"), show(l.judged, "%d"),
         show(l.patterns, "%d"), show(l.seconds_per_1000, "%.3f"), show(l.bank_bytes, "%d"),
         show(l.shared_memory_bytes, "%d"), show(run.untouched.distances_ratio, "%.4f") }
   end
   common.markdown({ "seed", "searches seen", "judged", "patterns", "learning, CPU s per 1,000 queries",
      "bank bytes", "shared memory bytes", "before learning, distances ratio" }, seeds)
end

-- ---- limits ------------------------------------------------------------------------------------

--- Adds {set, name, measured (text), limit (text), met} to criteria.
function M.add(criteria, set, name, measured, limit, met)
   criteria[#criteria + 1] = { set = set, name = name, measured = measured, limit = limit,
      met = met or false }
end

local function at_most(criteria, set, name, value, limit, format)
   M.add(criteria, set, name, show(value, format or "%.3f"), "<= " .. limit, value and value <= limit)
end
M.at_most = at_most

local function judge_target(criteria, set, s)
   local name = ("%.2f: "):format(s.target)
   local low, high = s.target - RECALL_BELOW, s.target + RECALL_ABOVE
   M.add(criteria, set, name .. "recall of every seed", ("%.4f to %.4f"):format(s.recall_low, s.recall_high),
      ("%.3f to %.3f"):format(low, high), s.recall_low >= low and s.recall_high <= high)
   local limit = (DISTANCE_LIMITS[set] or {})[s.target]
   if limit then
      at_most(criteria, set, name .. "distances to static at equal recall", s.distances_ratio, limit)
   end
   at_most(criteria, set, name .. "distances, the worst seed", s.distances_ratio_worst, NEVER_ABOVE)
   local follows = s.time_ratio and s.distances_ratio and s.time_ratio / s.distances_ratio
   at_most(criteria, set, name .. "time ratio over distances ratio", follows, TIME_FOLLOWS)
   at_most(criteria, set, name .. "adaptive search off, the worst seed", s.off_ratio_worst, NEVER_ABOVE)
end

--- The limits of one data set, appended to criteria.
function M.judge(criteria, set, summaries, runs)
   for _, s in ipairs(summaries) do judge_target(criteria, set, s) end
   at_most(criteria, set, "before anything is learned, distances to static",
      highest(pluck(runs, function(run) return run.untouched.distances_ratio end)), 1, "%.4f")
   at_most(criteria, set, "learning, CPU seconds per 1,000 queries",
      highest(pluck(runs, function(run) return run.learning.seconds_per_1000 end)), LEARNING_SECONDS)
   at_most(criteria, set, "shared memory, which sessions read in place, MB", highest(pluck(runs, function(run)
      return run.learning.shared_memory_bytes / 1e6
   end)), MEMORY_BYTES / 1e6, "%.1f")
end

--- Prints every limit with what was measured.
function M.print_criteria(criteria)
   local rows = {}
   for i, c in ipairs(criteria) do
      rows[i] = { c.set, c.name, c.measured, c.limit, c.met and "met" or "not met" }
   end
   common.markdown({ "data", "criterion", "measured", "limit", "verdict" }, rows)
end

return M
