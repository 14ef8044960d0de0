-- measure.lua - runs the queries of a data set through SQL and measures them: for the demo and for the
-- benchmarks of learning.
--
-- Recall is by distance against the exact neighbours. Distances and pages are what the index itself
-- counted, by ruvector_last_search(). Latency is the time that the client waits for a prepared
-- statement, one query at a time on one connection.
--
-- A data set here is anything with queries {count, dim, data = float *} and recall(query, ids, k): a
-- ruvector.dataset, a set of benchmarks.index.data.

local clock = require("ruvector.clock")
local curve = require("ruvector.curve")
local pg = require("ruvector.pg")

local M = {}

M.K = 10

local EFFORT = "SELECT distances, pages FROM ruvector_last_search()"

local Searcher = {}
Searcher.__index = Searcher

--- A connection that is ready to search. sql: the search, with the query vector as $1, K ids as its
-- result. It takes no part in learning unless told so by learning = true.
function M.searcher(db, data, sql, learning)
   if not learning then db:exec("SET ruvector.trajectory_sample_rate = 0") end
   return setmetatable({ db = db, data = data, sql = sql, search = db:prepare(sql),
      effort = db:prepare(EFFORT) }, Searcher)
end

--- The query numbers first to last (inclusive) as an array.
function M.range(first, last)
   local out = {}
   for query = first, last do out[#out + 1] = query end
   return out
end

--- Settings for the searches that follow, by name without the prefix "ruvector.".
function Searcher:set(settings)
   for name, value in pairs(settings) do
      self.db:exec(("SET ruvector.%s = %s"):format(name, value))
   end
end

--- Raises an error unless the search runs through the ruhnsw index.
function Searcher:check_plan(index)
   local plan = table.concat(self.db:column("EXPLAIN " .. self.sql, self:vector(0)), "\n")
   if not plan:find("Index Scan using " .. index, 1, true) then
      error("the search does not use the index " .. index .. ":\n" .. plan, 0)
   end
end

function Searcher:vector(query)
   local queries = self.data.queries
   return pg.vector(queries.data + query * queries.dim, queries.dim)
end

-- ---- what is added up --------------------------------------------------------------------------

local Tally = {}
Tally.__index = Tally

--- What was measured, query after query: arrays queries (their numbers), recalls, distances, pages, and
-- latencies (seconds) where they were measured.
function M.tally()
   return setmetatable({ queries = {}, recalls = {}, distances = {}, pages = {}, latencies = {} }, Tally)
end

--- Adds a query that returned `ids`; effort: {distances, pages}; latency in seconds, or nil.
function Tally:add(data, query, ids, effort, latency)
   local n = #self.queries + 1
   self.queries[n] = query
   self.recalls[n] = data:recall(query, ids, M.K)
   self.distances[n] = effort.distances
   self.pages[n] = effort.pages
   if latency then self.latencies[n] = latency end
end

--- Means of recall, distances and pages per query, and p50 and p99 in milliseconds when latencies were
-- measured.
function Tally:means()
   local out = { queries = #self.queries, recall = curve.mean(self.recalls),
      distances = curve.mean(self.distances), pages = curve.mean(self.pages) }
   if #self.latencies > 0 then
      out.p50 = curve.quantile(self.latencies, 0.50) * 1000
      out.p99 = curve.quantile(self.latencies, 0.99) * 1000
   end
   return out
end

local function ids_of(rows)
   local ids = {}
   for i, row in ipairs(rows) do ids[i] = row[1] end
   return ids
end

-- ---- one connection: latency -------------------------------------------------------------------

--- Runs queries (an array of numbers) one after the other and adds them, with their latency, to the tally.
function Searcher:time(queries, tally)
   for _, query in ipairs(queries) do
      local vector = self:vector(query)
      local started = clock.now()
      local rows = self.search:exec(vector)
      local latency = clock.now() - started
      tally:add(self.data, query, ids_of(rows), self.effort:exec()[1], latency)
   end
end

--- Several ways to search in alternating blocks of queries, so that whatever else the machine does weighs
-- on all alike. sides: an array of {searcher, settings}; settings as in Searcher:set. queries: an array
-- of numbers, each run once by every side. Returns the tallies in the order of the sides;
-- on_query(done, total), when given, is called after each block.
function M.take_turns(sides, queries, block, on_query)
   local tallies = {}
   for i in ipairs(sides) do tallies[i] = M.tally() end
   for first = 1, #queries, block do
      local last = math.min(first + block - 1, #queries)
      local some = {}
      for i = first, last do some[#some + 1] = queries[i] end
      for i, side in ipairs(sides) do
         side.searcher:set(side.settings)
         side.searcher:time(some, tallies[i])
      end
      if on_query then on_query(last, #queries) end
   end
   return tallies
end

-- ---- several connections: counting -------------------------------------------------------------

--- Runs queries (an array of numbers) on all searchers at once and returns their tally; without
-- latencies, since they disturb each other. on_query(done, total), when given, is called after each.
function M.count(searchers, queries, on_query)
   local tally, next_query, done = M.tally(), 1, 0
   local idle, busy, state = {}, {}, {}
   for _, searcher in ipairs(searchers) do idle[#idle + 1] = searcher end

   local function feed(searcher)
      local query = queries[next_query]
      if not query then return end
      state[searcher.db] = { searcher = searcher, query = query }
      busy[#busy + 1] = searcher.db
      searcher.search:send(searcher:vector(query))
      next_query = next_query + 1
   end

   local function retire(db)
      for i, other in ipairs(busy) do
         if other == db then return table.remove(busy, i) end
      end
   end

   for _, searcher in ipairs(idle) do feed(searcher) end
   while #busy > 0 do
      local db = pg.wait_any(busy)
      local now = state[db]
      if not now.rows then
         now.rows = db:receive()
         now.searcher.effort:send()
      else
         tally:add(now.searcher.data, now.query, ids_of(now.rows), db:receive()[1])
         retire(db)
         feed(now.searcher)
         done = done + 1
         if on_query then on_query(done, #queries) end
      end
   end
   return tally
end

return M
