-- soak.lua - a long mixed load: ten clients insert, update, delete, search, vacuum and rebuild the
-- index concurrently, while one of them compares what the index finds with an exact scan, both in one
-- repeatable-read snapshot. The form in CI is short (soak_spec.lua); SOAK_MINUTES makes it long.

local clock = require("ruvector.clock")
local indexed = require("support.indexed")
local pages = require("support.pages")
local pg = require("ruvector.pg")

local M = {}

local WRITERS = 7 -- and one that vacuums, one that rebuilds, one that judges: ten clients
local GROUPS = 400
local EXPECTED = { ["40P01"] = true } -- deadlocks between the row locks of the mix

local function write(random, d, next_id)
   local what = random(10)
   if what < 4 then
      local first = next_id()
      return ("INSERT INTO soak SELECT i, vec(i, %d) FROM generate_series(%d, %d) i"):format(d, first,
         first + 2)
   elseif what < 7 then
      return ("DELETE FROM soak WHERE id %% %d = %d"):format(GROUPS, random(GROUPS))
   elseif what < 9 then
      return ("UPDATE soak SET v = vec(id + %d, %d) WHERE id %% %d = %d"):format(
         1000000 * (1 + random(50)), d, GROUPS, random(GROUPS))
   end
   return ("SELECT id FROM soak ORDER BY v <-> vec(%d, %d) LIMIT 10"):format(-random(1000), d)
end

local function check(connection, failures)
   local ok, err = pcall(connection.receive, connection)
   if not ok and not EXPECTED[err.sqlstate] then failures[#failures + 1] = tostring(err) end
end

--- Recall at k of one query, the index's answer against the exact one of the same snapshot, by
-- distance: a row no farther than the true k-th counts.
local function recall(judge, d, k, query)
   local distances = ("SELECT v <-> vec(%d, %d) AS distance FROM soak ORDER BY 1 LIMIT %d"):format(
      -query, d, k)
   local hits
   judge:transaction(function()
      judge:exec("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
      judge:exec("SET LOCAL enable_indexscan = off")
      local exact = judge:column(distances)
      judge:exec("SET LOCAL enable_indexscan = on; SET LOCAL enable_seqscan = off")
      judge:exec("SET LOCAL enable_sort = off")
      hits = 0
      for _, distance in ipairs(judge:column(distances)) do
         if distance <= exact[#exact] + 1e-6 then hits = hits + 1 end
      end
      hits = hits / #exact
   end)
   return hits
end

--- Runs the load for `seconds` on a server whose database has the extension and vec(). options: method
-- (methods.lua), rows, dim, k, seed. Returns a table: statements, vacuums, rebuilds, searches, mean
-- recall, failures (texts), problems (of the index, afterwards; "" when sound).
function M.run(server, seconds, options)
   local d, random = options.dim, pages.generator(options.seed)
   local db = server:connect()
   indexed.create(db, options.method, "soak", options.rows, d)
   local id = 10000000
   local function next_id()
      id = id + 3
      return id
   end
   local out = { statements = 0, vacuums = 0, rebuilds = 0, searches = 0, failures = {} }
   local all = {}
   for i = 1, WRITERS do
      local writer = server:connect()
      writer:exec("SET enable_seqscan = off; SET deadlock_timeout = '50ms'")
      all[i] = writer
      writer:send(write(random, d, next_id))
   end
   local sweeper, builder, judge = server:connect(), server:connect(), server:connect()
   for name, value in pairs(options.method.soak) do judge:exec(("SET %s = '%s'"):format(name, value)) end
   all[#all + 1], all[#all + 2] = sweeper, builder
   sweeper:send("VACUUM soak")
   builder:send("REINDEX INDEX CONCURRENTLY soak_v")
   local total, deadline, searched = 0, clock.now() + seconds, 0
   while clock.now() < deadline and #out.failures == 0 do
      local connection = assert(pg.wait_any(all, 120), "no session answered for two minutes")
      check(connection, out.failures)
      if connection == sweeper then
         out.vacuums = out.vacuums + 1
         sweeper:send("VACUUM soak")
      elseif connection == builder then
         out.rebuilds = out.rebuilds + 1
         builder:send("REINDEX INDEX CONCURRENTLY soak_v")
      else
         out.statements = out.statements + 1
         connection:send(write(random, d, next_id))
      end
      if out.statements >= searched + 25 then
         searched, out.searches = out.statements, out.searches + 1
         total = total + recall(judge, d, options.k, out.searches)
      end
   end
   for _, connection in ipairs(all) do
      check(connection, out.failures)
      connection:close()
   end
   judge:close()
   out.recall = total / math.max(out.searches, 1)
   out.problems = indexed.problems(db, options.method, "soak", d)
   db:close()
   return out
end

return M
