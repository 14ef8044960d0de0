-- indexed.lua - a table with an index of any access method (methods.lua), and what must hold for it
-- whatever happened: the verifier finds nothing, and a search that runs to the end returns every row
-- of the table once, and no other.

local ruhnsw = require("support.ruhnsw")

local M = {}

--- A table `name` (id, v) with rows 1..rows of d dimensions and an index `name`_v of the method.
function M.create(db, method, name, rows, d)
   db:exec(("CREATE TABLE %s (id bigint PRIMARY KEY, v ruvector(%d))"):format(name, d))
   db:exec(("INSERT INTO %s SELECT i, vec(i, %d) FROM generate_series(1, %d) i"):format(name, d, rows))
   db:exec(M.index_sql(method, name))
end

function M.index_sql(method, name)
   return ("CREATE INDEX %s_v ON %s USING %s (v ruvector_l2_ops) WITH (%s)"):format(name, name, method.name,
      method.with)
end

--- Settings of a session whose index scans run to the end.
function M.exhaustive(db, method)
   for name, value in pairs(method.exhaustive) do db:exec(("SET %s = '%s'"):format(name, value)) end
   db:exec("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
end

--- Rows that only the table has, only the index has, and that the index returned more than once.
function M.differences(db, method, name, d)
   M.exhaustive(db, method)
   local query = ("SELECT id FROM %s ORDER BY v <-> vec(0, %d) LIMIT 1000000000"):format(name, d)
   local plan = ruhnsw.plan(db, query)
   assert(plan:find("Index Scan using " .. name .. "_v", 1, true), plan)
   local found = {}
   for _, id in ipairs(db:column(query)) do found[id] = (found[id] or 0) + 1 end
   db:exec("RESET ALL")
   db:exec("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")
   local out = {}
   for _, id in ipairs(db:column("SELECT id FROM " .. name .. " WHERE v IS NOT NULL")) do
      if not found[id] then out[#out + 1] = "not found: " .. id
      elseif found[id] > 1 then out[#out + 1] = ("found %d times: %s"):format(found[id], id) end
      found[id] = nil
   end
   for id in pairs(found) do out[#out + 1] = "found but not there: " .. id end
   db:exec("RESET ALL")
   return table.concat(out, "\n")
end

--- Everything that is wrong with the index, as a text: empty when it is sound.
function M.problems(db, method, name, d)
   return ruhnsw.findings(db, name .. "_v") .. M.differences(db, method, name, d)
end

return M
