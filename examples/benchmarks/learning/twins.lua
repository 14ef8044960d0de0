-- twins.lua - the same rows twice: a table that learns, and one that never does.
--
-- Both tables have the same rows in the same order, and a build without workers gives the same graph for
-- that, so before anything is learned the two indexes are equal. What learning changes in an index (links)
-- it changes in one of them; the other stays what a person without learning would have. Another seed is
-- another order of the rows, and so another graph.
--
-- Where only recall and distances are counted, the searches run in a loop inside the server: the same plan
-- and the same work, without a message to and from the client for each, which would take most of the time.

local ffi = require("ffi")
local engine = require("ruvector.engine")
local pg = require("ruvector.pg")
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

--- The settings of a private server for M: its machine has nothing else to do while a benchmark waits for
-- the worker.
M.SERVER = {
   shared_buffers = "1GB", maintenance_work_mem = "1GB", max_wal_size = "16GB", checkpoint_timeout = "1h",
   autovacuum = "off", jit = "off", ["ruvector.learning_budget"] = 1,
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

-- ---- counting inside the server ---------------------------------------------------------------

--- Loads the queries of a set into the server, for M.counters.
function M.load_queries(server, set)
   local db, query = M.connect(server), -1
   db:exec("DROP TABLE IF EXISTS queries")
   db:exec(("CREATE TABLE queries (id int PRIMARY KEY, embedding ruvector(%d) NOT NULL)"):format(
      set.queries.dim))
   db:copy_binary("queries (id, embedding)", { "int4", "ruvector" }, function()
      query = query + 1
      return query < set.queries.count
         and { query, pg.vector(set.queries.data + query * set.queries.dim, set.queries.dim) } or nil
   end)
   db:exec("VACUUM ANALYZE queries")
   db:close()
end

local COUNTER = [[
CREATE OR REPLACE FUNCTION pg_temp.count_searches(wanted int[], OUT query int, OUT ids bigint[],
                                                  OUT distances bigint, OUT pages bigint)
   RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
   v ruvector;
BEGIN
   FOREACH query IN ARRAY wanted LOOP
      SELECT q.embedding INTO v FROM queries q WHERE q.id = query;
      ids := ARRAY(SELECT t.id FROM %s t ORDER BY t.embedding %s v LIMIT %d);
      SELECT s.distances, s.pages INTO distances, pages FROM ruvector_last_search() s;
      RETURN NEXT;
   END LOOP;
END $$]]

--- Two connections that search one of the tables for M.count; never recorded.
function M.counters(server, set, name)
   local out = { set = set }
   for i = 1, 2 do
      out[i] = M.connect(server)
      out[i]:exec("SET ruvector.trajectory_sample_rate = 0")
      out[i]:exec(COUNTER:format(name, system.OPERATORS[set.metric], measure.K))
   end
   return out
end

--- Settings of all searches of these connections that follow, by name without the prefix "ruvector.".
function M.set(counters, settings)
   for _, db in ipairs(counters) do
      for name, value in pairs(settings) do db:exec(("SET ruvector.%s = %s"):format(name, value)) end
   end
end

--- Runs queries (an array of numbers), half on each connection, and returns their tally.
function M.count(counters, queries)
   local tally, halves = measure.tally(), { {}, {} }
   for i, query in ipairs(queries) do table.insert(halves[i % 2 + 1], query) end
   for i, db in ipairs(counters) do
      db:send("SELECT * FROM pg_temp.count_searches($1)", pg.array(halves[i]))
   end
   for _, db in ipairs(counters) do
      for _, row in ipairs(db:receive()) do
         local ids = {}
         for id in row.ids:gmatch("%d+") do ids[#ids + 1] = tonumber(id) end
         tally:add(counters.set, row.query, ids, row)
      end
   end
   return tally
end

--- Closes connections, or searchers and theirs.
function M.close(connections)
   for _, item in ipairs(connections) do (item.db or item):close() end
end

-- ---- tables and indexes ------------------------------------------------------------------------

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

--- Makes both tables with all rows in the seed's order, for seed 0 that of the files; the indexes are built
-- at the same time.
function M.make_both(server, set, seed)
   local builders = { M.connect(server), M.connect(server) }
   local db = builders[1]
   create_table(db, M.LEARNED, set)
   local ids = measure.range(0, set.rows.count - 1)
   M.insert(db, set, M.LEARNED, seed == 0 and ids or M.shuffled(ids, seed))
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
