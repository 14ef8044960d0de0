-- ruhnsw.lua - what the end-to-end specs of the ruhnsw index share: made-up vectors, the verifier, and
-- a comparison of what the index finds with what a sort finds.

local M = {}

M.OPERATORS = { l2 = "<->", ip = "<#>", cosine = "<=>", l1 = "<+>" }

--- Creates the extension and a function: vec(i, d), the vector number i of d dimensions, the same
-- in every run, elements in [-0.5, 0.5).
function M.prepare(db)
   db:exec [[
      CREATE EXTENSION IF NOT EXISTS ruvector;
      CREATE FUNCTION vec(i bigint, d int) RETURNS ruvector LANGUAGE sql IMMUTABLE AS $$
         SELECT array_agg(((hashint8(i * 4096 + j) & 1048575) / 1048576.0 - 0.5)::real ORDER BY j)::ruvector
         FROM generate_series(1, d) j $$;
   ]]
end

--- A table `name` (id, v) with rows 1..rows of d dimensions, and an index `name`_v on it.
-- options: opclass (default ruvector_l2_ops), with (storage parameters).
function M.create(db, name, rows, d, options)
   options = options or {}
   db:exec(("CREATE TABLE %s (id bigint PRIMARY KEY, v ruvector(%d))"):format(name, d))
   db:exec(("INSERT INTO %s SELECT i, vec(i, %d) FROM generate_series(1, %d) i"):format(name, d, rows))
   db:exec(("CREATE INDEX %s_v ON %s USING ruhnsw (v %s) %s"):format(name, name,
      options.opclass or "ruvector_l2_ops", options.with and "WITH (" .. options.with .. ")" or ""))
end

--- The verifier's findings about an index as one text: empty when the index is in order.
function M.findings(db, index)
   local out = {}
   for _, row in ipairs(db:exec("SELECT * FROM ruvector_index_verify($1::regclass, true)", index)) do
      out[#out + 1] = ("%s %s: %s"):format(row.severity, row.block or "-", row.message)
   end
   return table.concat(out, "\n")
end

--- Runs body with plans that use the index wherever they can.
function M.with_index(db, body)
   db:exec("SET enable_seqscan = off; SET enable_sort = off")
   local ok, result = pcall(body)
   db:exec("RESET enable_seqscan; RESET enable_sort")
   if not ok then error(result, 0) end
   return result
end

--- How many rows a search finds that may run on to the end: every row that the index can reach.
function M.reachable(db, name, d)
   db:exec("SET ruvector.max_scan_tuples = 2147483647")
   local count = M.with_index(db, function()
      return db:value(([[SELECT count(DISTINCT id) FROM
         (SELECT id FROM %s ORDER BY v <-> vec(0, %d) LIMIT 1000000000) x]]):format(name, d))
   end)
   db:exec("RESET ruvector.max_scan_tuples")
   return count
end

--- Mean recall at k over queries (vectors number -1, -2, ...), by distance: a row that is no
-- farther than the true k-th counts.
function M.recall(db, name, d, operator, k, queries)
   local hits = 0
   for q = 1, queries do
      local distances = ("SELECT v %s vec(%d, %d) AS distance FROM %s ORDER BY 1 LIMIT %d"):format(
         operator, -q, d, name, k)
      db:exec("SET enable_indexscan = off")
      local kth = db:value("SELECT max(distance) FROM (" .. distances .. ") x")
      db:exec("RESET enable_indexscan")
      hits = hits + M.with_index(db, function()
         return db:value("SELECT count(*) FROM (" .. distances .. ") x WHERE distance <= $1 + 1e-6", kth)
      end)
   end
   return hits / (k * queries)
end

--- The plan of a query, as text.
function M.plan(db, sql)
   return table.concat(db:column("EXPLAIN (COSTS off) " .. sql), "\n")
end

return M
