-- packages.lua - the bundled package descriptions as an indexed table, and searches of their questions:
-- real queries that are unlike the rows, for specs of what learning gains.

local curve = require("ruvector.curve")
local dataset = require("ruvector.dataset")
local pg = require("ruvector.pg")

local M = {}

M.K = 10
M.TESTS = 10000 -- the first of the test queries; learn only from queries before it

local SEARCH = ("SELECT id FROM packages ORDER BY embedding <=> $1 LIMIT %d"):format(M.K)

--- The data set; read once.
function M.data()
   M.set = M.set or dataset.open("examples/data/debian-packages")
   return M.set
end

--- Creates the table packages with its first `rows` rows (all by default) and the index
-- packages_embedding, with the storage parameters in `with`.
function M.create(db, rows, with)
   local data, row = M.data(), -1
   db:exec("CREATE TABLE packages (id bigint PRIMARY KEY, embedding ruvector(128))")
   db:copy_binary("packages (id, embedding)", { "int8", "ruvector" }, function()
      row = row + 1
      if row >= (rows or data.rows.count) then return nil end
      return { row, pg.vector(data.rows:at(row), data.rows.dim) }
   end)
   db:exec("SET max_parallel_maintenance_workers = 0") -- equal graphs in every run
   db:exec("CREATE INDEX packages_embedding ON packages USING ruhnsw (embedding ruvector_cosine_ops)" ..
      (with and " WITH (" .. with .. ")" or ""))
   db:exec("ANALYZE packages")
end

--- Searches for queries first to last (counted from 0, inclusive). Returns their mean recall and mean
-- distances.
function M.search(db, first, last)
   local data = M.data()
   local search, effort = db:prepare(SEARCH), db:prepare("SELECT distances FROM ruvector_last_search()")
   local recall, distances = 0, 0
   for query = first, last do
      local ids = {}
      for i, row in ipairs(search:exec(pg.vector(data.queries:at(query), data.queries.dim))) do
         ids[i] = row[1]
      end
      recall = recall + data:recall(query, ids, M.K)
      distances = distances + effort:exec()[1].distances
   end
   search:close()
   effort:close()
   return recall / (last - first + 1), distances / (last - first + 1)
end

--- The mean distances that `count` test queries take at a recall, between declared recalls.
function M.cost_at(db, recall, count)
   local points = {}
   db:exec("SET ruvector.trajectory_sample_rate = 0")
   for _, target in ipairs { 0.90, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995 } do
      db:exec("SET ruvector.target_recall = " .. target)
      local reached, distances = M.search(db, M.TESTS, M.TESTS + count - 1)
      points[#points + 1] = { recall = reached, cost = distances }
      if reached >= recall and target > recall then break end
   end
   db:exec("RESET ruvector.target_recall; RESET ruvector.trajectory_sample_rate")
   return curve.at_recall(points, recall), points
end

return M
