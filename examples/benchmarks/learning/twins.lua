-- twins.lua - the same rows twice: a table that learns, and one that never does.
--
-- Both tables have the same rows in the same order, and a build without workers gives the same graph for
-- that, so before anything is learned the two indexes are equal. What learning changes in an index (links)
-- it changes in one of them; the other stays what a person without learning would have. Another seed is
-- another order of the rows, and so another graph.

local ffi = require("ffi")
local engine = require("ruvector.engine")
local measure = require("demo.measure")
local system = require("benchmarks.index.system")

local M = {}

M.LEARNED, M.PLAIN = "learned", "plain"

--- The array in an order that the seed decides; the array itself stays as it is.
function M.shuffled(values, seed)
   local prng, out = ffi.new("rv_prng"), {}
   engine.lib.rv_prng_seed(prng, seed)
   for i = 1, #values do
      local j = tonumber(engine.lib.rv_prng_below(prng, i)) + 1
      out[i] = out[j]
      out[j] = values[i]
   end
   return out
end

--- Every session's settings: one plan for a prepared statement, through the index.
local SESSION = {
   "SET jit = off", "SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off",
   "SET max_parallel_workers_per_gather = 0", "SET synchronize_seqscans = off",
   "SET max_parallel_maintenance_workers = 0",
}

--- A connection of the server with these settings.
function M.connect(server)
   local db = server:connect()
   for _, sql in ipairs(SESSION) do db:exec(sql) end
   return db
end

local function search_sql(name, set)
   return ("SELECT id FROM %s ORDER BY embedding %s $1 LIMIT %d"):format(name,
      system.OPERATORS[set.metric], measure.K)
end

--- Searchers of one of the tables, `count` of them, each with a connection of its own.
function M.searchers(server, set, name, count, learning)
   local out = {}
   for i = 1, count do
      out[i] = measure.searcher(M.connect(server), set, search_sql(name, set), learning)
      out[i]:check_plan(name .. "_embedding")
   end
   return out
end

--- Closes searchers and their connections.
function M.close(searchers)
   for _, searcher in ipairs(searchers) do searcher.db:close() end
end

local function index_sql(name, set)
   return ("CREATE INDEX %s_embedding ON %s USING ruhnsw (embedding ruvector_%s_ops)"):format(name, name,
      set.metric)
end

local function create_table(db, name, set)
   db:exec(("DROP TABLE IF EXISTS %s"):format(name))
   db:exec(("CREATE TABLE %s (id bigint PRIMARY KEY, embedding ruvector(%d) NOT NULL)"):format(name,
      set.rows.dim))
   db:exec(("ALTER TABLE %s ALTER embedding SET STORAGE PLAIN"):format(name))
end

--- Appends the rows `ids` to a table, in their order.
function M.insert(db, set, name, ids)
   local i = 0
   system.copy_rows(db, name, set, function()
      i = i + 1
      return ids[i]
   end)
end

--- Makes one table with the rows `ids`, in their order, and its index.
function M.make(server, set, name, ids)
   local db = M.connect(server)
   create_table(db, name, set)
   M.insert(db, set, name, ids)
   db:exec("VACUUM ANALYZE " .. name)
   db:exec(index_sql(name, set))
   db:close()
end

--- Makes both tables with all rows in the seed's order; the indexes are built at the same time.
function M.make_both(server, set, seed)
   local builders = { M.connect(server), M.connect(server) }
   local db = builders[1]
   create_table(db, M.LEARNED, set)
   M.insert(db, set, M.LEARNED, M.shuffled(measure.range(0, set.rows.count - 1), seed))
   create_table(db, M.PLAIN, set)
   db:exec(("INSERT INTO %s SELECT * FROM %s"):format(M.PLAIN, M.LEARNED)) -- in the same order
   db:exec(("VACUUM ANALYZE %s, %s"):format(M.LEARNED, M.PLAIN))
   builders[1]:send(index_sql(M.LEARNED, set))
   builders[2]:send(index_sql(M.PLAIN, set))
   for _, builder in ipairs(builders) do
      builder:receive()
      builder:close()
   end
end

return M
