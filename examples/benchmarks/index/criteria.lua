-- criteria.lua - the benchmark's verdict: each criterion, what was measured, met or not.

local curve = require("ruvector.curve")

local M = {}

M.GOALS = { 0.95, 0.99 }
local MOST_BUILD, LEAST_INSERT, MOST_SIZE, MOST_CHURN = 0.5, 1.5, 1.2, 0.01
local LEAST_SPEED = { hnsw = 4 } -- of ivfflat none was set

--- The queries per second of one round at a recall, or nil when no effort reached it.
function M.qps_at(points, clients, round, recall)
   local costs = {}
   for i, point in ipairs(points) do
      costs[i] = { recall = point.recall, cost = 1 / point.qps[clients][round] }
   end
   local cost = curve.at_recall(costs, recall)
   return cost and 1 / cost
end

--- Any measure of the points (a function of the point, above 0) at a recall, or nil.
function M.value_at(points, recall, measure)
   local costs = {}
   for i, point in ipairs(points) do costs[i] = { recall = point.recall, cost = measure(point) } end
   return curve.at_recall(costs, recall)
end

-- The median over rounds of ours / theirs at a recall; nil when one of them does not reach it.
local function speed_ratio(ours, theirs, clients, recall)
   local a, b = {}, {}
   for round = 1, #ours.points[1].qps[clients] do
      a[round] = M.qps_at(ours.points, clients, round, recall)
      b[round] = M.qps_at(theirs.points, clients, round, recall)
      if not a[round] or not b[round] then return nil end
   end
   return curve.median_ratio(a, b)
end

--- The criteria of one of our indexes (`ours`) against pgvector (`theirs`, nil where it is not installed:
-- then only the churn is judged). kind: a value of systems.KINDS. Returns an array of {name, limit (text),
-- value (nil: could not be measured), met (nil: there is no limit)}.
function M.judge(kind, ours, theirs)
   local out = {}
   local function add(name, value, least, most)
      local limit = least and (">= %g"):format(least) or most and ("<= %g"):format(most) or "-"
      local met
      if least or most then met = value ~= nil and value >= (least or value) and value <= (most or value) end
      out[#out + 1] = { name = name, value = value, limit = limit, met = met }
   end
   if theirs then
      for clients = 1, 2 do
         for _, goal in ipairs(M.GOALS) do
            add(("queries per second, ratio at recall %.2f, %d client(s)"):format(goal, clients),
               speed_ratio(ours, theirs, clients, goal), LEAST_SPEED[kind.name])
         end
      end
      for _, workers in ipairs { 0, 1 } do
         add(("build time, ratio, %d worker(s)"):format(workers),
            ours.build[workers] / theirs.build[workers], nil, MOST_BUILD)
      end
      for clients = 1, 2 do
         add(("insert rate, ratio, %d client(s)"):format(clients),
            ours.insert[clients] / theirs.insert[clients], LEAST_INSERT)
      end
      add("index bytes, ratio", ours.bytes / theirs.bytes, nil, MOST_SIZE)
   end
   add(("recall lost under churn at %s %d"):format(kind.effort, ours.churn.effort),
      ours.churn.before - ours.churn.after, nil, MOST_CHURN)
   return out
end

return M
