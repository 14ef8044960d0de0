-- ruivfflat.lua - what the end-to-end specs of the ruivfflat index share, beside what ruhnsw.lua has:
-- vectors, the verifier's findings, recall and reachability are the same for both.

local ruhnsw = require("support.ruhnsw")

local M = setmetatable({}, { __index = ruhnsw })

M.STORAGES = { "float32", "fixed32" }

--- A table `name` (id, v) with rows 1..rows of d dimensions, and an index `name`_v on it.
-- options: opclass (default ruvector_l2_ops), with (storage parameters).
function M.create(db, name, rows, d, options)
   options = options or {}
   db:exec(("CREATE TABLE %s (id bigint PRIMARY KEY, v ruvector(%d))"):format(name, d))
   db:exec(("INSERT INTO %s SELECT i, vec(i, %d) FROM generate_series(1, %d) i"):format(name, d, rows))
   db:exec(("CREATE INDEX %s_v ON %s USING ruivfflat (v %s) %s"):format(name, name,
      options.opclass or "ruvector_l2_ops", options.with and "WITH (" .. options.with .. ")" or ""))
end

--- Runs body with so many probes.
function M.with_probes(db, probes, body)
   db:exec("SET ruvector.probes = " .. probes)
   local ok, result = pcall(body)
   db:exec("RESET ruvector.probes")
   if not ok then error(result, 0) end
   return result
end

--- Recall at k as ruhnsw.recall, with so many probes.
function M.recall_at(db, probes, name, d, operator, k, queries)
   return M.with_probes(db, probes, function()
      return ruhnsw.recall(db, name, d, operator, k, queries)
   end)
end

return M
