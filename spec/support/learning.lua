-- learning.lua - what the specs of the learning engine share: a table that is not easy to search, its
-- queries, and waiting for the worker.
--
-- Rows and queries are clustered random vectors from a fixed seed, in so many dimensions and with so
-- small an ef_search that a static search misses a visible share of the true neighbours.

local clock = require("ruvector.clock")
local pg = require("ruvector.pg")

local M = {}

M.DIM = 32
M.ROWS = 3000
M.QUERIES = 400
M.K = 10
M.LIMIT = 60 -- seconds to wait for anything

--- Settings of a server on which learning is quick.
M.SETTINGS = {
   ["ruvector.learning_interval"] = "20ms",
   ["ruvector.learning_budget"] = 1,
   ["ruvector.ef_search"] = M.K,
   max_worker_processes = 16,
}

-- Park and Miller's generator: the same numbers on every machine.
local function generator(seed)
   local state = seed
   return function()
      state = (state * 48271) % 2147483647
      return state / 2147483647
   end
end

local function clustered(count, seed)
   local centre_of, random = generator(7), generator(seed)
   local centres, out = {}, {}
   for c = 1, 12 do
      centres[c] = {}
      for j = 1, M.DIM do centres[c][j] = centre_of() * 0.3 end
   end
   for i = 1, count do
      local centre, vector = centres[i % 12 + 1], {}
      for j = 1, M.DIM do vector[j] = centre[j] + random() - 0.5 end
      out[i] = pg.vector_text(vector)
   end
   return out
end

--- Queries as text; another seed gives others of the same distribution.
function M.queries(count, seed) return clustered(count, seed or 99) end

--- Queries as text that come in families: a few questions, asked again and again in other words.
function M.similar_queries(count, seed)
   local random, family_of = generator(seed or 99), generator(31)
   local families, out = {}, {}
   for f = 1, 20 do
      families[f] = {}
      for j = 1, M.DIM do families[f][j] = family_of() * 1.2 - 0.45 end
   end
   for i = 1, count do
      local family, vector = families[i % 20 + 1], {}
      for j = 1, M.DIM do vector[j] = family[j] + (random() - 0.5) * 0.05 end
      out[i] = pg.vector_text(vector)
   end
   return out
end

--- Declares the highest recall of the plan's grid, up to `most`, that is served by one of these ways
-- ("slack", "memory"), for the session. Returns it.
function M.set_target_of(db, name, ways, most)
   local target = db:value([[SELECT max(target_recall) FROM ruvector_learning_levers($1::regclass)
      WHERE active AND lever = ANY ($2::text[]) AND target_recall <= $3]], name,
      "{" .. table.concat(ways, ",") .. "}", most or 0.99)
   assert(target, "no recall is served by " .. table.concat(ways, " or "))
   db:exec("SET ruvector.target_recall = " .. target)
   return target
end

--- Creates a table with M.ROWS rows and an index named <table>_embedding, a ruhnsw one unless `index`
-- says otherwise (the access method and what follows it).
function M.create_table(db, name, rows, index)
   db:exec(("CREATE TABLE %s (id bigint PRIMARY KEY, embedding ruvector(%d))"):format(name, M.DIM))
   local vectors, i = clustered(rows or M.ROWS, 1), 0
   db:exec("BEGIN")
   local insert = db:prepare(("INSERT INTO %s VALUES ($1, $2)"):format(name))
   for id, vector in ipairs(vectors) do insert:exec(id, vector) end
   insert:close()
   db:exec("COMMIT")
   db:exec(("CREATE INDEX %s_embedding ON %s USING %s"):format(name, name,
      index or "ruhnsw (embedding ruvector_l2_ops)"))
   db:exec("ANALYZE " .. name)
   return i
end

--- Runs every query through the index; returns per query the ids and the distances computed.
function M.search(db, name, queries, k)
   local search = db:prepare(("SELECT id FROM %s ORDER BY embedding <-> $1 LIMIT %d")
      :format(name, k or M.K))
   local out = {}
   db:exec("SET enable_seqscan = off")
   for i, query in ipairs(queries) do
      local ids = {}
      for j, row in ipairs(search:exec(query)) do ids[j] = row[1] end
      local last = db:row("SELECT * FROM ruvector_last_search()")
      out[i] = { ids = ids, distances = last.distances, mode = last.mode, reason = last.reason }
   end
   search:close()
   db:exec("RESET enable_seqscan")
   return out
end

--- The true neighbours of every query.
function M.truth(db, name, queries)
   db:exec("SET enable_indexscan = off")
   local exact = db:prepare(("SELECT id FROM %s ORDER BY embedding <-> $1 LIMIT %d"):format(name, M.K))
   local out = {}
   for i, query in ipairs(queries) do
      out[i] = {}
      for _, row in ipairs(exact:exec(query)) do out[i][row[1]] = true end
   end
   exact:close()
   db:exec("RESET enable_indexscan")
   return out
end

--- Mean recall of found (by search) against truth.
function M.recall(found, truth)
   local hits, total = 0, 0
   for i, result in ipairs(found) do
      for _, id in ipairs(result.ids) do
         if truth[i][id] then hits = hits + 1 end
      end
      total = total + M.K
   end
   return hits / total
end

--- Mean number of distance computations.
function M.distances(found)
   local sum = 0
   for _, result in ipairs(found) do sum = sum + result.distances end
   return sum / #found
end

--- The statistics of the table's only index.
function M.stats(db, name) return db:row("SELECT * FROM ruvector_learning_stats($1::regclass)", name) end

--- Waits until the statistics satisfy condition(stats); returns them.
function M.wait_stats(db, name, what, condition)
   return clock.wait_until(what, M.LIMIT, function()
      local stats = M.stats(db, name)
      local seen = ("%s, %s recorded, %s pending, %s judged, %s patterns; ring: %s written, %s lost; "
         .. "%s failures, %s"):format(stats.state, stats.trajectories, stats.pending, stats.judged,
         stats.patterns, stats.ring_written, stats.ring_dropped + stats.ring_lost + stats.ring_torn,
         stats.failures, stats.last_error or "no error")
      return condition(stats) and stats, seen
   end)
end

--- Waits until everything recorded so far is learned.
function M.wait_learned(db, name, recorded)
   local stats = M.wait_stats(db, name, "the worker to learn", function(stats)
      return stats.state == "learned" and stats.trajectories >= (recorded or 0)
   end)
   -- It may have learned from some while the others wait to be looked at.
   return stats.pending == 0 and stats or M.wait_stats(db, name, "the rest to be looked at",
      function(later) return later.pending == 0 end)
end

--- Waits until a search of the table is adaptive.
function M.wait_adaptive(db, name, query)
   return clock.wait_until("a search to be adaptive", M.LIMIT, function()
      local result = M.search(db, name, { query })[1]
      return result.mode == "adaptive" and result, result.reason
   end)
end

--- A table that has learned from M.QUERIES searches. Returns the statistics.
function M.teach(db, name, options)
   options = options or {}
   if not db:value("SELECT to_regclass($1)", name) then M.create_table(db, name) end
   db:exec(("SELECT ruvector_enable_learning('%s', min_samples => %d)"):format(name,
      options.min_samples or 50))
   M.search(db, name, M.queries(options.queries or M.QUERIES))
   return M.wait_learned(db, name, options.queries or M.QUERIES)
end

return M
