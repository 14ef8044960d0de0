-- measure.lua - runs the bundled queries through SQL and measures them.
--
-- Recall is by distance against the exact neighbours (ruvector.dataset). Distances and pages are
-- what the index itself counted, by ruvector_last_search(). Latency is the time that the client
-- waits for a prepared statement, one query at a time on one connection.

local clock = require("ruvector.clock")
local pg = require("ruvector.pg")

local M = {}

M.K = 10

local SEARCH = ("SELECT id FROM packages ORDER BY embedding <=> $1 LIMIT %d"):format(M.K)
local EFFORT = "SELECT distances, pages FROM ruvector_last_search()"

local Searcher = {}
Searcher.__index = Searcher

--- A connection that is ready to search; data: a ruvector.dataset. It takes no part in learning
-- unless told so by learning = true.
function M.searcher(db, data, learning)
   if not learning then db:exec("SET ruvector.trajectory_sample_rate = 0") end
   return setmetatable({ db = db, data = data, search = db:prepare(SEARCH),
      effort = db:prepare(EFFORT) }, Searcher)
end

--- Settings for the searches that follow, by name without the prefix "ruvector.".
function Searcher:set(settings)
   for name, value in pairs(settings) do
      self.db:exec(("SET ruvector.%s = %s"):format(name, value))
   end
end

--- Raises an error unless the search runs through the ruhnsw index.
function Searcher:check_plan(index)
   local plan = table.concat(self.db:column("EXPLAIN " .. SEARCH, self:vector(0)), "\n")
   if not plan:find("Index Scan using " .. index, 1, true) then
      error("the search does not use the index " .. index .. ":\n" .. plan, 0)
   end
end

function Searcher:vector(query)
   return pg.vector(self.data.queries:at(query), self.data.queries.dim)
end

-- ---- what is added up --------------------------------------------------------------------------

local Tally = {}
Tally.__index = Tally

--- A sum over queries: means() gives recall, distances, pages, and p50 and p99 in milliseconds
-- when latencies were measured.
function M.tally()
   return setmetatable({ queries = 0, recall = 0, distances = 0, pages = 0, latencies = {} }, Tally)
end

function Tally:add(data, query, rows, effort, latency)
   local ids = {}
   for i, row in ipairs(rows) do ids[i] = row[1] end
   self.queries = self.queries + 1
   self.recall = self.recall + data:recall(query, ids, M.K)
   self.distances = self.distances + effort.distances
   self.pages = self.pages + effort.pages
   if latency then self.latencies[#self.latencies + 1] = latency end
end

-- Nearest rank.
local function quantile(sorted, q) return sorted[math.max(1, math.ceil(q * #sorted))] end

function Tally:means()
   local out = { queries = self.queries, recall = self.recall / self.queries,
      distances = self.distances / self.queries, pages = self.pages / self.queries }
   if #self.latencies > 0 then
      table.sort(self.latencies)
      out.p50 = quantile(self.latencies, 0.50) * 1000
      out.p99 = quantile(self.latencies, 0.99) * 1000
   end
   return out
end

-- ---- one connection: latency -------------------------------------------------------------------

--- Runs queries first to last (inclusive) one after the other and adds them, with their latency, to
-- the tally.
function Searcher:time(first, last, tally)
   for query = first, last do
      local vector = self:vector(query)
      local started = clock.now()
      local rows = self.search:exec(vector)
      local latency = clock.now() - started
      tally:add(self.data, query, rows, self.effort:exec()[1], latency)
   end
end

-- ---- several connections: counting -------------------------------------------------------------

--- Runs queries first to last on all searchers at once and returns their tally; without latencies,
-- since they disturb each other. on_query(done, total), when given, is called after each.
function M.count(searchers, first, last, on_query)
   local tally, next_query, done = M.tally(), first, 0
   local idle, busy, state = {}, {}, {}
   for _, searcher in ipairs(searchers) do idle[#idle + 1] = searcher end

   local function feed(searcher)
      if next_query > last then return end
      state[searcher.db] = { searcher = searcher, query = next_query }
      busy[#busy + 1] = searcher.db
      searcher.search:send(searcher:vector(next_query))
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
         tally:add(now.searcher.data, now.query, now.rows, db:receive()[1])
         retire(db)
         feed(now.searcher)
         done = done + 1
         if on_query then on_query(done, last - first + 1) end
      end
   end
   return tally
end

return M
