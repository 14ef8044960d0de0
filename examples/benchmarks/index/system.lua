-- system.lua - one index under test: ruvector's with some storage parameters, or pgvector's of its kind.
--
-- Each has a table of its own (id, embedding) with the same rows in the same order, so that one system's
-- inserts, dead rows and plans do not touch another's.

local json = require("dkjson") -- Debian: lua-dkjson
local clock = require("ruvector.clock")
local pg = require("ruvector.pg")
local data = require("benchmarks.index.data")

local M = {}

M.OPERATORS = { l2 = "<->", cosine = "<=>" }
local PAGES_SAMPLE = 100

local System = {}
System.__index = System

--- The kinds of index that are compared. effort: what a search's effort is called; efforts: the values to
-- try, ascending; usual: the one that churn is judged at; ours, theirs: {am, setting, largest effort}.
M.KINDS = {
   hnsw = { name = "hnsw", effort = "ef_search", usual = 40,
      efforts = "10 14 20 28 40 57 80 113 160 226 320 453 640 800 1000 1400 2000 2800 4000",
      ours = { "ruhnsw", "ruvector.ef_search", 10000 }, theirs = { "hnsw", "hnsw.ef_search", 1000 } },
   ivfflat = { name = "ivfflat", effort = "probes", usual = 8,
      efforts = "1 2 3 4 6 8 11 16 23 32 45 64 91 128 181 256",
      ours = { "ruivfflat", "ruvector.probes", 32768 }, theirs = { "ivfflat", "ivfflat.probes", 32768 } },
}

--- The systems of one kind in a run. variants: storage parameters of ruvector's index, one string each
-- ("" for none); pgvector: whether to compare with it; parameters: storage parameters of all, name -> value.
function M.all(kind, variants, pgvector, parameters)
   local out = {}
   local function add(ours, with)
      local am, setting, largest = unpack(ours and kind.ours or kind.theirs)
      local name = not ours and "pgvector" or with == "" and am or am .. " " .. with
      out[#out + 1] = setmetatable({ name = name, ours = ours, type = ours and "ruvector" or "vector",
         am = am, effort = setting, largest_effort = largest, with = with, parameters = parameters,
         table = "bench_" .. #out + 1 }, System)
   end
   for _, with in ipairs(variants) do add(true, with) end
   if pgvector then add(false, "") end
   return out
end

--- Every session's settings: nothing learned, no compilation, one plan for a prepared statement.
M.SETUP = {
   "SET jit = off", "SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off",
   "SET max_parallel_workers_per_gather = 0",
   "SET ruvector.adaptive_search = off", "SET ruvector.trajectory_sample_rate = 0",
}

function System:search_sql(set)
   return ("SELECT id FROM %s ORDER BY embedding %s $1 LIMIT %d"):format(self.table,
      M.OPERATORS[set.metric], data.K)
end

--- What the protocol alone costs: the same parameter, no search, no row of a table.
function System:floor_sql() return ("SELECT 1 WHERE $1::%s IS NOT NULL"):format(self.type) end

function System:insert_sql() return ("INSERT INTO %s (id, embedding) VALUES ($1, $2)"):format(self.table) end

function System:set_effort(effort) return ("SET %s = %d"):format(self.effort, effort) end

--- Copies rows into a table (id, embedding), in the order in which next_id() returns their numbers, until
-- it returns nil.
function M.copy_rows(db, name, set, next_id)
   db:copy_binary(name .. " (id, embedding)", { "int8", "ruvector" }, function()
      local id = next_id()
      return id and { id, pg.vector(set.rows.data + id * set.rows.dim, set.rows.dim) }
   end)
end

--- Loads the rows for which wanted(id) holds into a new table.
function System:load(db, set, wanted)
   db:exec(("DROP TABLE IF EXISTS %s"):format(self.table))
   db:exec(("CREATE TABLE %s (id bigint NOT NULL, embedding %s(%d) NOT NULL)"):format(self.table, self.type,
      set.rows.dim))
   db:exec(("ALTER TABLE %s ALTER embedding SET STORAGE PLAIN"):format(self.table))
   local id = -1
   M.copy_rows(db, self.table, set, function()
      repeat id = id + 1 until id >= set.rows.count or wanted(id)
      return id < set.rows.count and id or nil
   end)
   db:exec("VACUUM ANALYZE " .. self.table)
end

-- The index's storage parameters: its own, and of those of all what it does not set itself. A parameter may
-- be a function of the data set.
function System:with_clause(set)
   local out = { self.with ~= "" and self.with or nil }
   for name, value in pairs(self.parameters) do
      if not (" " .. self.with):find("[ ,]" .. name .. " *=") then
         out[#out + 1] = ("%s = %d"):format(name, type(value) == "function" and value(set) or value)
      end
   end
   return table.concat(out, ", ")
end

--- Builds the index with that many parallel workers besides the leader; returns seconds and bytes.
function System:build(db, set, workers)
   local parameters = self:with_clause(set)
   db:exec(("DROP INDEX IF EXISTS %s_index"):format(self.table))
   db:exec("CHECKPOINT")
   db:exec(("SET max_parallel_maintenance_workers = %d"):format(workers))
   -- So that the workers do not depend on the table's size.
   db:exec(("ALTER TABLE %s SET (parallel_workers = %d)"):format(self.table, workers))
   local started = clock.now()
   db:exec(("CREATE INDEX %s_index ON %s USING %s (embedding %s_%s_ops) WITH (%s)"):format(self.table,
      self.table, self.am, self.type, set.metric, parameters))
   local seconds = clock.now() - started
   return seconds, db:value(("SELECT pg_relation_size('%s_index')"):format(self.table))
end

--- Raises an error unless the search runs through the index.
function System:check_plan(db, set)
   local vector = pg.vector(set.queries.data, set.queries.dim)
   local plan = table.concat(db:column("EXPLAIN " .. self:search_sql(set), vector), "\n")
   if not plan:find(("Index Scan using %s_index"):format(self.table), 1, true) then
      error(("%s: the search does not use the index:\n%s"):format(self.name, plan), 0)
   end
end

local function query_vector(set, query)
   return pg.vector(set.queries.data + query * set.queries.dim, set.queries.dim)
end

--- Mean recall over the test queries at that effort and, of ruvector's index, mean distances by its own
-- count.
function System:recall(db, set, effort)
   db:exec(self:set_effort(effort))
   local search = db:prepare(self:search_sql(set))
   local last = self.ours and db:prepare("SELECT distances FROM ruvector_last_search()")
   local recall, distances, n = 0, 0, 0
   for query = set.first, set.last do
      local ids = {}
      for i, row in ipairs(search:exec(query_vector(set, query))) do ids[i] = row[1] end
      recall, n = recall + set:recall(query, ids), n + 1
      if last then distances = distances + last:exec()[1].distances end
   end
   search:close()
   if last then last:close() end
   return recall / n, last and distances / n or nil
end

--- Mean buffers (hit and read) per search by EXPLAIN, over a sample of the test queries: those of the
-- index and of the rows.
function System:pages(db, set, effort)
   db:exec(self:set_effort(effort))
   local pages, n = 0, 0
   local step = math.max(1, math.floor((set.last - set.first + 1) / PAGES_SAMPLE))
   for query = set.first, set.last, step do
      local text = db:value("EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) " .. self:search_sql(set),
         query_vector(set, query))
      local plan = assert(json.decode(text))[1].Plan
      pages, n = pages + plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], n + 1
   end
   return pages / n
end

--- The statements by which half of the rows are deleted, vacuumed away and inserted again.
function System:churn_sql()
   local name, spare = self.table, self.table .. "_spare"
   return {
      ("CREATE TABLE %s AS SELECT id, embedding FROM %s WHERE id %% 2 = 0"):format(spare, name),
      ("DELETE FROM %s WHERE id %% 2 = 0"):format(name),
      "VACUUM (INDEX_CLEANUP on) " .. name,
      ("INSERT INTO %s SELECT id, embedding FROM %s ORDER BY id"):format(name, spare),
      "DROP TABLE " .. spare,
   }
end

return M
