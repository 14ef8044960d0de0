-- replay.lua - a candidate beside the policy that serves, over recorded searches: where they differ,
-- why, and what each choice costs.
--
--   verdict         both judge every search. Searches on which they disagree are shown with their
--                   recall and work: what would newly count as a failure, or no longer
--   interpolation   both plan every search from the patterns of its index. The deep trace tells the
--                   recall and the work of each plan
--   distillation    both learn from every other search; what they learned is tried on the rest, at
--                   the targets of the tables
--   retention       both decide about every pattern that is there
--   tuning, selection   replay_choice.lua
--   healing             replay_healing.lua

local candidate = require("ruvector.policy.candidate")
local choice = require("ruvector.policy.replay_choice")
local engine = require("ruvector.engine")
local healing = require("ruvector.policy.replay_healing")
local kinds = require("ruvector.policy.kinds")
local policy_host = require("ruvector.policy_host")
local recorded = require("ruvector.policy.recorded")
local report = require("ruvector.policy.report")

local ffi, lib = engine.ffi, engine.lib
local heading, means = report.heading, report.means
local M = {}

local NEAREST = 3 -- patterns that a search asks for
local EXAMPLES = 8
local TARGETS = { 0.90, 0.95, 0.98, 0.99 }

-- ---- the bank ------------------------------------------------------------------------------

local function copy_table(pattern, name, values)
   for i, value in ipairs(values) do pattern[name][i - 1] = value end
end

-- An rv_pattern of a row of ruvector_patterns, and its centroid.
local function stored_pattern(row)
   local pattern = policy_host.pattern({
      scope = row.scope == "index" and 0 or 1, k = row.k, samples = row.samples, usage = row.usage,
      confidence = row.confidence, optimal_probes = row.optimal_probes, radius = row.radius,
      mean_distances = row.mean_distances, target_recall = row.target_recall,
   })
   copy_table(pattern, "table_slack", row.table_slack)
   copy_table(pattern, "table_ef", row.table_ef)
   copy_table(pattern, "table_recall", row.table_recall)
   return pattern, recorded.vector(row.centroid)
end

local function new_bank(metric, dim)
   local out, err = ffi.new("rv_bank *[1]"), engine.error_buffer()
   engine.check(lib.rv_bank_create(engine.allocator, metric, dim, 10000, out, err), err)
   return ffi.gc(out[0], lib.rv_bank_destroy)
end

local function put(bank, pattern, centroid)
   local err = engine.error_buffer()
   local floats = centroid and engine.floats(centroid) or nil
   engine.check(lib.rv_bank_put(bank, pattern, floats, nil, err), err)
end

-- What a pattern says for a target, as the server tells it to interpolate.
local function advice(pattern, similarity, target)
   return {
      similarity = similarity, slack = lib.rv_pattern_slack_at(pattern, target),
      ef_search = lib.rv_pattern_ef_at(pattern, target), probes = math.max(pattern.optimal_probes, 1),
      expected_recall = lib.rv_pattern_recall_at(pattern, target), confidence = pattern.confidence,
      samples = pattern.samples,
   }
end

-- The plan of one search; nil when the bank has no index-wide pattern.
local function plan(host, bank, sample, target)
   local index_pattern = lib.rv_bank_index_pattern(bank)
   if index_pattern == nil then return nil end
   local matches, count, near = ffi.new("rv_bank_match[?]", NEAREST), ffi.new("uint32_t[1]"), {}
   local err = engine.error_buffer()
   engine.check(lib.rv_bank_lookup(bank, engine.floats(sample.query), NEAREST, matches, count, err), err)
   for i = 0, count[0] - 1 do
      near[i + 1] = advice(matches[i].pattern, matches[i].similarity, target)
   end
   local result, cause, failure = host:interpolate(advice(index_pattern, 1, target), near, target)
   if cause ~= "ok" and cause ~= "missing" then
      error(("%s, line %d: %s"):format(failure.file, failure.line, failure.reason), 0)
   end
   return result, near
end

-- Recall and work of a search at a slack, read off its deep trace.
local function outcome(sample, slack)
   local found, work = 0, 0
   for _, effort in ipairs(sample.trace) do
      if effort.slack <= slack then found, work = found + 1, math.max(work, effort.distances) end
   end
   return found / #sample.trace, work
end

-- ---- verdict -------------------------------------------------------------------------------

local CELLS = { "both", "only the active one", "only the candidate", "neither" }

local function cell_of(before, after)
   if before.success then return after.success and 1 or 2 end
   return after.success and 3 or 4
end

local function replay_verdict(lines, index, active, other)
   local cells, examples = { {}, {}, {}, {} }, {}
   for i, input in ipairs(recorded.verdict_inputs(index)) do
      local before, after = active.host:judge(input), other.host:judge(input)
      local cell = cell_of(before, after)
      table.insert(cells[cell], { recall = input.recall or 0, work = input.distances or 0 })
      if before.success ~= after.success then
         local found = kinds.kinds.verdict.differences(before, after)
         examples[#examples + 1] = ("  %s: recall %.2f of %.2f, %d distances: %s"):format(
            index.searches[i].query_id, input.recall or -1, input.target_recall or -1, input.distances or 0,
            table.concat(found, ", "))
      end
   end
   heading(lines, index, ("%d searches judged"):format(#index.searches))
   lines[#lines + 1] = "  a success for         searches  mean recall  mean distances"
   for cell, name in ipairs(CELLS) do
      local recall, work = means(cells[cell])
      lines[#lines + 1] = ("  %-20s %9d  %11.4f  %14.0f"):format(name, #cells[cell], recall, work)
   end
   for i = 1, math.min(#examples, EXAMPLES) do lines[#lines + 1] = examples[i] end
   if #examples > EXAMPLES then lines[#lines + 1] = ("  and %d more"):format(#examples - EXAMPLES) end
end

-- ---- interpolation -------------------------------------------------------------------------

local function bank_of(index, samples)
   local bank = new_bank(recorded.METRICS[index.metric], #samples[1].query)
   for _, row in ipairs(index.patterns) do put(bank, stored_pattern(row)) end
   return bank
end

local function compare_plans(lines, samples, target, before_of, after_of)
   local before, after, differing = {}, {}, 0
   for _, sample in ipairs(samples) do
      local a, b = before_of(sample, target), after_of(sample, target)
      if not a or not b then return false end
      local recall, work = outcome(sample, a.slack)
      before[#before + 1] = { recall = recall, work = work }
      recall, work = outcome(sample, b.slack)
      after[#after + 1] = { recall = recall, work = work }
      if math.abs(a.slack - b.slack) > 1e-6 then differing = differing + 1 end
   end
   local recall_a, work_a = means(before)
   local recall_b, work_b = means(after)
   lines[#lines + 1] = ("  %.2f  %8.4f %9.0f   %8.4f %9.0f   %6.3f  %8d"):format(target, recall_a, work_a,
      recall_b, work_b, work_a > 0 and work_b / work_a or 0, differing)
   return true
end

local COLUMNS = "  target  active: recall, distances   candidate: recall, distances   ratio  plans differ"

local function replay_interpolation(lines, index, active, other)
   local samples = recorded.samples(index.searches)
   heading(lines, index, ("%d searches with a deep trace, %d patterns"):format(#samples, #index.patterns))
   if #samples == 0 or #index.patterns == 0 then
      lines[#lines + 1] = "  nothing to plan with: patterns are made once enough was learned, and only "
         .. "superusers read them"
      return
   end
   local bank = bank_of(index, samples)
   lines[#lines + 1] = COLUMNS
   for _, target in ipairs(TARGETS) do
      compare_plans(lines, samples, target,
         function(sample, at) return (plan(active.host, bank, sample, at)) end,
         function(sample, at) return (plan(other.host, bank, sample, at)) end)
   end
end

-- ---- distillation --------------------------------------------------------------------------

-- The bank that a policy makes of samples.
local function learned(policy, index, samples)
   local batch = policy_host.batch(samples, { k = samples[1].k, metric = recorded.METRICS[index.metric] })
   local patterns, cause, failure = policy.host:distill(batch)
   if cause ~= "ok" and cause ~= "missing" then
      error(("%s, line %d: %s"):format(policy.path, failure.line, failure.reason), 0)
   end
   local bank = new_bank(recorded.METRICS[index.metric], #samples[1].query)
   for _, p in ipairs(patterns) do
      local pattern = policy_host.pattern({
         scope = p.scope == "index" and 0 or 1, k = p.k, samples = p.samples, confidence = p.confidence,
         radius = p.radius, optimal_probes = p.probes, mean_distances = p.mean_distances,
      })
      copy_table(pattern, "table_slack", p.table_slack)
      copy_table(pattern, "table_ef", p.table_ef)
      copy_table(pattern, "table_recall", p.table_recall)
      put(bank, pattern, p.scope == "region" and p.centroid or nil)
   end
   return bank, #patterns
end

local function replay_distillation(lines, index, active, other)
   local learn, try = {}, {}
   for i, sample in ipairs(recorded.samples(index.searches)) do
      table.insert(i % 2 == 1 and learn or try, sample)
   end
   heading(lines, index, ("learned from %d searches, tried on %d others"):format(#learn, #try))
   if #try == 0 then
      lines[#lines + 1] = "  no searches with a deep trace and their query"
      return
   end
   local bank_a, count_a = learned(active, index, learn)
   local bank_b, count_b = learned(other, index, learn)
   local planner = candidate.built_in("interpolation")
   lines[#lines + 1] = ("  patterns: %d by the active one, %d by the candidate"):format(count_a, count_b)
   lines[#lines + 1] = COLUMNS
   for _, target in ipairs(TARGETS) do
      local tried = compare_plans(lines, try, target,
         function(sample, at) return (plan(planner.host, bank_a, sample, at)) end,
         function(sample, at) return (plan(planner.host, bank_b, sample, at)) end)
      if not tried then
         lines[#lines + 1] = "  one of the two learned nothing from these"
         break
      end
   end
   planner.host:destroy()
end

-- ---- retention -----------------------------------------------------------------------------

local function replay_retention(lines, index, active, other)
   heading(lines, index, ("%d patterns"):format(#index.patterns))
   local now_us = os.time() * 1e6 - 946684800e6 -- the epoch of the server's timestamps
   local differing, kept_a, kept_b = 0, 0, 0
   for _, row in ipairs(index.patterns) do
      local pattern = stored_pattern(row)
      local a, b = active.host:keep(pattern, now_us), other.host:keep(pattern, now_us)
      kept_a, kept_b = kept_a + (a and 1 or 0), kept_b + (b and 1 or 0)
      if a ~= b then differing = differing + 1 end
   end
   lines[#lines + 1] = ("  kept by the active one: %d, by the candidate: %d, decided differently: %d"):format(
      kept_a, kept_b, differing)
end

-- ---- the command ---------------------------------------------------------------------------

local REPLAYS = {
   verdict = replay_verdict, interpolation = replay_interpolation, distillation = replay_distillation,
   retention = replay_retention, tuning = choice.tuning, healing = healing.index,
}

local function read(options)
   if (options.connect == nil) == (options.trajectories == nil) then
      error("either --connect or --trajectories says where the recorded searches are", 0)
   end
   if options.trajectories then return recorded.from_file(options.trajectories) end
   local indexes = recorded.from_server(options.connect, options.table, options.limit)
   if #indexes == 0 then
      error("no searches are recorded there: learning must be enabled for the table "
         .. "(ruvector_enable_learning), and only the table's owner sees them", 0)
   end
   if options.dump then recorded.write(indexes, options.dump) end
   return indexes
end

local function open(path)
   local policy, failure = candidate.open(path)
   if not policy then
      error(("%s:%d: %s: %s"):format(path, failure.line, failure.cause, failure.reason), 0)
   end
   return policy
end

-- The file that serves the kind on the server; nil: the built-in.
local function active_file(options, kind)
   if options.active or not options.connect then return options.active end
   local db = require("ruvector.pg").connect(options.connect)
   local file = db:value("SELECT max(file) FROM ruvector_policies() WHERE kind = $1 AND serves", kind)
   db:close()
   local readable = file and io.open(file, "r")
   if readable then readable:close() end
   return readable and file or nil
end

--- Runs the replay; options as the command line gives them. The lines of the report.
function M.run(options)
   local other = open(options.file)
   local indexes = read(options)
   local path = active_file(options, other.kind)
   local active = path and open(path) or candidate.built_in(other.kind)
   if active.kind ~= other.kind then error(path .. " is a " .. active.kind .. " policy", 0) end
   local lines = { ("%s policy: candidate %s %s beside %s %s"):format(other.kind, other.path,
      other.info.version, active.path, active.info.version) }
   if other.kind == "selection" then
      choice.selection(lines, indexes, active, other)
   else
      for _, index in ipairs(indexes) do REPLAYS[other.kind](lines, index, active, other) end
   end
   other.host:destroy()
   active.host:destroy()
   return lines
end

return M
