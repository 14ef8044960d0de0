-- hammer.lua - many sessions that change and search one table, vacuums all the while, and crashes.
--
-- The table is (id bigint PRIMARY KEY, v ruvector(d)), filled by vec() of support/ruhnsw.lua.

local clock = require("ruvector.clock")
local pg = require("ruvector.pg")

local M = {}

-- A linear congruential generator of our own: the same choices in every run.
local function generator(seed)
   local state = seed
   return function(n)
      state = (state * 16807) % 2147483647
      return state % n
   end
end

-- One statement of the mix: inserts of new rows, deletes, changes of vectors, searches.
local function statement(options, random, next_id)
   local name, dim = options.table, options.dim
   local what = random(10)
   if what < 4 then
      local first = next_id()
      return ("INSERT INTO %s SELECT i, vec(i, %d) FROM generate_series(%d, %d) i"):format(name, dim,
         first, first + 2)
   elseif what < 7 then
      return ("DELETE FROM %s WHERE id %% 500 = %d"):format(name, random(500))
   elseif what < 8 then
      return ("UPDATE %s SET v = vec(id + 1000000, %d) WHERE id %% 500 = %d"):format(name, dim,
         random(500))
   end
   return ("SELECT id FROM %s ORDER BY v <-> vec(%d, %d) LIMIT 10"):format(name, -random(1000), dim)
end

-- Deadlocks between the row locks of the mix are part of the game.
local function take_answer(connection, failures)
   local ok, err = pcall(connection.receive, connection)
   if not ok and err.sqlstate ~= "40P01" then failures[#failures + 1] = tostring(err) end
end

--- Keeps all sessions busy until `count` statements were done, and one more with vacuums. options:
-- table, dim, sessions, count, seed, on_statement(done, session): true stops at once and leaves the
-- sessions open. Returns the failures (no deadlocks) and the number of vacuums.
function M.run(server, options)
   local random, id = generator(options.seed), 100000 * options.seed
   local function next_id()
      id = id + 3
      return id
   end
   local all, failures = {}, {}
   for i = 1, options.sessions do
      all[i] = server:connect()
      all[i]:exec("SET enable_seqscan = off; SET deadlock_timeout = '50ms'")
   end
   for _, worker in ipairs(all) do worker:send(statement(options, random, next_id)) end
   local sweeper = server:connect()
   all[#all + 1] = sweeper
   sweeper:send("VACUUM " .. options.table)
   local vacuums, done = 0, 0
   while done < options.count do
      local connection = assert(pg.wait_any(all, 120), "no session answered for two minutes")
      take_answer(connection, failures)
      if connection == sweeper then
         vacuums = vacuums + 1
         sweeper:send("VACUUM " .. options.table)
      else
         done = done + 1
         if options.on_statement and options.on_statement(done, connection) then return failures, vacuums end
         connection:send(statement(options, random, next_id))
      end
   end
   for _, connection in ipairs(all) do
      take_answer(connection, failures)
      connection:close()
   end
   return failures, vacuums
end

--- Kills one backend at once. The server takes that for a corrupted shared memory: it kills all other
-- processes too, and recovers from its log. Returns a new connection.
function M.crash(server, backend_pid)
   local _, before = server:log():gsub("was terminated by signal 9", "")
   server:kill(backend_pid)
   clock.wait_until("the loss to be noticed", 60, function()
      local _, now = server:log():gsub("was terminated by signal 9", "")
      return now > before
   end)
   server:wait_until_ready()
   server:disconnect()
   return server:connect()
end

return M
