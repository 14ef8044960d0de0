-- replay_choice.lua - replays of what is chosen rarely: the effort of an index, one of two indexes.
--
--   tuning      the traces of the recorded searches give the curve that a measurement would: recall at
--               every effort, and the distances by then. Both choose from it, for every goal. Latency is
--               taken for proportional to distances, as it was on average
--   selection   where a table has searches of both kinds of index, both predict the cost for each number
--               of rows that was asked for, and what was measured shows which choice was right. The
--               planner's estimates are not recorded; the mean distances stand in for them

local recorded = require("ruvector.policy.recorded")
local report = require("ruvector.policy.report")

local M = {}

local function known(value) return type(value) == "number" and value or nil end

local function mean(searches, field)
   local sum, count = 0, 0
   for _, search in ipairs(searches) do
      local value = known(search[field])
      if value then sum, count = sum + value, count + 1 end
   end
   return count > 0 and sum / count or nil
end

-- ---- tuning --------------------------------------------------------------------------------

local MOST_EFFORT = 4096

-- The efforts that are tried: from the least that any trace names, each half as much again.
local function efforts_of(traces)
   local low, high = math.huge, 0
   for _, trace in ipairs(traces) do
      for _, step in ipairs(trace) do
         if step.slack < math.huge and step.ef >= 0 then
            low, high = math.min(low, step.ef), math.max(high, step.ef)
         end
      end
   end
   local list, effort = {}, math.max(low, 1)
   while low < math.huge and effort <= MOST_EFFORT do
      list[#list + 1] = effort
      if effort >= high then break end
      effort = math.min(math.ceil(effort * 1.5), math.max(high, effort + 1))
   end
   return list
end

local function point_of(traces, effort, us_per_distance)
   local recall, work = 0, 0
   for _, trace in ipairs(traces) do
      local found, distances = 0, 0
      for _, step in ipairs(trace) do
         if step.slack < math.huge and step.ef <= effort then
            found, distances = found + 1, math.max(distances, step.distances)
         end
      end
      recall, work = recall + found / #trace, work + distances
   end
   local distances = work / #traces
   return { effort = effort, recall = recall / #traces, distances = distances,
      latency_us = distances * us_per_distance }
end

local function describe(curve, choice)
   local point = curve[choice.point]
   return ("%6d %8.4f %9.0f  %.3f"):format(point.effort, point.recall, point.distances, choice.target_recall)
end

--- Both policies choose from the curve of one index.
function M.tuning(lines, index, active, other)
   local traces, curve = {}, {}
   for _, search in ipairs(index.searches) do traces[#traces + 1] = recorded.trace(search) end
   report.heading(lines, index, ("%d searches with a deep trace"):format(#traces))
   local distances, latency = mean(index.searches, "distances"), mean(index.searches, "latency_us")
   local us_per_distance = distances and distances > 0 and latency and latency / distances or 0
   for i, effort in ipairs(efforts_of(traces)) do curve[i] = point_of(traces, effort, us_per_distance) end
   if #curve == 0 then
      lines[#lines + 1] = "  no trace reached a neighbour: there is no curve to choose from"
      return
   end
   lines[#lines + 1] = "  goal      active: effort, recall, distances, target    candidate: the same"
   for _, goal in ipairs({ "recall", "balanced", "latency" }) do
      local before, after = active.host:choose(curve, goal), other.host:choose(curve, goal)
      lines[#lines + 1] = ("  %-9s  %s        %s"):format(goal, describe(curve, before),
         describe(curve, after))
   end
end

-- ---- selection -----------------------------------------------------------------------------

-- The tables of which searches of both kinds of index are recorded: {name, hnsw, ivfflat}.
local function pairs_of(indexes)
   local tables, list = {}, {}
   for _, index in ipairs(indexes) do
      local kind = index.method == "ruhnsw" and "hnsw" or index.method == "ruivfflat" and "ivfflat"
      if kind then
         local found = tables[index.table_name]
         if not found then
            found = { name = index.table_name }
            tables[index.table_name], list[#list + 1] = found, found
         end
         found[kind] = found[kind] or index
      end
   end
   local both = {}
   for _, found in ipairs(list) do
      if found.hnsw and found.ivfflat then both[#both + 1] = found end
   end
   return both
end

local function searches_for(index, k)
   local list = {}
   for _, search in ipairs(index.searches) do
      if search.k == k then list[#list + 1] = search end
   end
   return list
end

local function side_of(index, k)
   local searches = searches_for(index, k)
   return { searches = #searches, latency_us = mean(searches, "latency_us"),
      distances = mean(searches, "distances"), recall = mean(index.searches, "recall"),
      cost = mean(index.searches, "distances") or 1 }
end

local function ks_of(pair)
   local seen, list = {}, {}
   for _, index in ipairs({ pair.hnsw, pair.ivfflat }) do
      for _, search in ipairs(index.searches) do
         if known(search.k) and not seen[search.k] then
            seen[search.k], list[#list + 1] = true, search.k
         end
      end
   end
   table.sort(list)
   return list
end

local function taken(policy, hnsw, ivfflat, features)
   local costs = policy.host:predict(hnsw, ivfflat, features)
   return costs.hnsw <= costs.ivfflat and "hnsw" or "ivfflat"
end

local function measured(side)
   if side.searches == 0 then return "-" end
   local recall = side.recall and ("%.4f"):format(side.recall) or "unknown"
   return ("%.0f us, %s"):format(side.latency_us or 0, recall)
end

--- Both policies choose between the two indexes of each table that has both.
function M.selection(lines, indexes, active, other)
   local both = pairs_of(indexes)
   if #both == 0 then
      lines[#lines + 1] = "no table has recorded searches of both a ruhnsw and a ruivfflat index: there was "
         .. "nothing to choose"
   end
   for _, pair in ipairs(both) do
      report.heading(lines, { name = pair.name, metric = pair.hnsw.metric },
         ("%s or %s"):format(pair.hnsw.name, pair.ivfflat.name))
      lines[#lines + 1] = "       k  hnsw: latency, recall  ivfflat: latency, recall  active    candidate"
      for _, k in ipairs(ks_of(pair)) do
         local hnsw, ivfflat = side_of(pair.hnsw, k), side_of(pair.ivfflat, k)
         local features = { k = k, limit = k, rows = pair.hnsw.rows or 1,
            target_recall = mean(pair.hnsw.searches, "target_recall") or 0.95 }
         lines[#lines + 1] = ("  %6d  %21s  %24s  %-8s  %s"):format(k, measured(hnsw), measured(ivfflat),
            taken(active, hnsw, ivfflat, features), taken(other, hnsw, ivfflat, features))
      end
   end
end

return M
