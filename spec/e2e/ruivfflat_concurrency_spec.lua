-- The ruivfflat index under many sessions, crashes, and on a standby. After everything the verifier
-- checks every page and row, and a search that runs on must find exactly the rows of the table.

local cluster = require("ruvector.cluster")
local clock = require("ruvector.clock")
local hammer = require("support.hammer")
local ivf = require("support.ruivfflat")

local DIM = 8

describe("a ruivfflat index that many sessions use", function()
   local server, db

   local function run(sessions, count, seed, on_statement)
      local failures, vacuums = hammer.run(server, { table = "busy", dim = DIM, sessions = sessions,
         count = count, seed = seed, on_statement = on_statement })
      assert.same({}, failures)
      return vacuums
   end

   local function assert_sound(connection, name)
      assert.equal("", ivf.findings(connection, name .. "_v"))
      assert.equal(connection:value("SELECT count(*) FROM " .. name), ivf.reachable(connection, name, DIM))
   end

   local function looking_for_centres()
      return db:value [[SELECT count(*) FROM pg_stat_progress_create_index
         WHERE phase = 'building index: finding the centres of the lists']] > 0
   end

   setup(function()
      server = cluster.new { settings = { wal_consistency_checking = "all", autovacuum = "off",
         max_wal_size = "2GB" } }
      server:start()
      db = server:connect()
      ivf.prepare(db)
      ivf.create(db, "busy", 1000, DIM, { with = "lists = 5, storage = fixed32" })
      db:exec("CREATE INDEX busy_f ON busy USING ruivfflat (v) WITH (lists = 3, storage = float32)")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("loses no row and breaks no rule under inserts, deletes, updates, searches and vacuum", function()
      assert.is_true(run(6, 1500, 1) > 3)
      assert_sound(db, "busy")
      assert.equal("", ivf.findings(db, "busy_f"))
   end)

   it("grows one list from several sessions at once", function()
      for round = 1, 3 do
         local name = "fresh" .. round
         ivf.create(db, name, 0, DIM)
         local sessions = {}
         for i = 1, 8 do sessions[i] = server:connect() end
         for i, session in ipairs(sessions) do
            session:send(("INSERT INTO %s SELECT i, vec(i, %d) FROM generate_series(%d, %d) i"):format(
               name, DIM, 10000 * i, 10000 * i + 399))
         end
         for _, session in ipairs(sessions) do
            session:receive()
            session:close()
         end
         assert_sound(db, name)
         assert.equal(3200, ivf.reachable(db, name, DIM))
      end
   end)

   it("never hides a row from a scan while others come and go", function()
      ivf.create(db, "stable", 2000, DIM, { with = "lists = 4, storage = fixed32" })
      local writer, sweeper = server:connect(), server:connect()
      db:exec("SET ruvector.max_scan_tuples = 2147483647; SET enable_seqscan = off; SET enable_sort = off")
      for round = 1, 15 do
         writer:send(("WITH gone AS (DELETE FROM stable WHERE id > 10000 AND id %% 2 = %d) " ..
            "INSERT INTO stable SELECT i, vec(i, %d) FROM generate_series(%d, %d) i"):format(round % 2,
            DIM, 10000 * (round + 1), 10000 * (round + 1) + 99))
         sweeper:send("VACUUM stable")
         for _ = 1, 3 do
            assert.equal(2000, db:value(([[SELECT count(DISTINCT id) FROM (SELECT id FROM stable
               ORDER BY v <-> vec(0, %d) LIMIT 1000000) x WHERE id <= 2000]]):format(DIM)))
         end
         writer:receive()
         sweeper:receive()
      end
      db:exec("RESET ruvector.max_scan_tuples; RESET enable_seqscan; RESET enable_sort")
      writer:close()
      sweeper:close()
      assert_sound(db, "stable")
   end)

   it("is built and rebuilt concurrently while rows come and go", function()
      local builder = server:connect()
      builder:send("CREATE INDEX CONCURRENTLY busy_v2 ON busy USING ruivfflat (v)")
      local stage = 1
      run(3, 600, 2, function()
         if stage > 3 or not builder:ready() then return false end
         builder:receive()
         stage = stage + 1
         if stage <= 3 then builder:send("REINDEX INDEX CONCURRENTLY busy_v2") end
         return false
      end)
      if stage <= 3 then builder:receive() end
      builder:close()
      assert.equal("", ivf.findings(db, "busy_v2"))
      assert_sound(db, "busy")
      db:exec("DROP INDEX busy_v2")
   end)

   it("is intact after the server was killed in the middle, with checked WAL", function()
      for round = 3, 5 do
         run(5, 1000, round, function(done, worker)
            if done == 400 then db = hammer.crash(server, worker:backend_pid()) end
            return done == 400
         end)
         assert.is_nil(server:log():find("inconsistent page", 1, true))
         assert_sound(db, "busy")
         assert.equal("", ivf.findings(db, "busy_f"))
         db:exec("VACUUM busy")
         assert_sound(db, "busy")
      end
   end)

   it("is not there after the server was killed during its build, and can be built again", function()
      db:exec(([[CREATE TABLE halfway AS SELECT i AS id, vec(i, %d)::ruvector(%d) AS v
         FROM generate_series(1, 30000) i]]):format(DIM, DIM))
      local builder = server:connect()
      local pid = builder:backend_pid()
      builder:send("CREATE INDEX halfway_v ON halfway USING ruivfflat (v) WITH (lists = 3000)")
      clock.wait_until("the build to look for centres", 60, function()
         return looking_for_centres()
      end)
      db = hammer.crash(server, pid)
      assert.is_nil(db:value("SELECT to_regclass('halfway_v')::text"))
      db:exec("CREATE INDEX halfway_v ON halfway USING ruivfflat (v)")
      assert_sound(db, "halfway")
      db = hammer.crash(server, db:backend_pid())
      assert_sound(db, "halfway")
   end)

   it("is empty and usable after a crash when its table is unlogged", function()
      for _, storage in ipairs(ivf.STORAGES) do
         local name = "passing_" .. storage
         db:exec(("CREATE UNLOGGED TABLE %s (id bigint, v ruvector(%d))"):format(name, DIM))
         db:exec(("CREATE INDEX %s_v ON %s USING ruivfflat (v) WITH (storage = %s)"):format(name, name,
            storage))
         db:exec(("INSERT INTO %s SELECT i, vec(i, %d) FROM generate_series(1, 200) i"):format(name, DIM))
      end
      db = hammer.crash(server, db:backend_pid())
      for _, storage in ipairs(ivf.STORAGES) do
         local name = "passing_" .. storage
         assert_sound(db, name)
         db:exec(("INSERT INTO %s SELECT i, vec(i, %d) FROM generate_series(1, 200) i"):format(name, DIM))
         assert_sound(db, name)
         assert.equal(200, ivf.reachable(db, name, DIM))
      end
   end)

   it("stops its build when it is told to", function()
      local builder = server:connect()
      builder:send("CREATE INDEX halfway_w ON halfway USING ruivfflat (v) WITH (lists = 5000)")
      clock.wait_until("the build to look for centres", 60, function()
         return looking_for_centres()
      end)
      builder:cancel()
      local ok, err = pcall(builder.receive, builder)
      assert.is_false(ok)
      assert.equal("57014", err.sqlstate)
      builder:close()
   end)

   describe("on a standby", function()
      local standby, replica

      setup(function()
         standby = server:start_standby { settings = { wal_consistency_checking = "all" } }
         replica = standby:connect()
      end)

      teardown(function()
         if standby then standby:remove() end
      end)

      it("answers as the primary does, while the primary goes on", function()
         run(4, 400, 6)
         cluster.catch_up(db, replica)
         assert.is_true(replica:value("SELECT pg_is_in_recovery()"))
         assert.equal("", ivf.findings(replica, "busy_v"))
         assert.equal(db:value("SELECT count(*) FROM busy"), ivf.reachable(replica, "busy", DIM))
      end)

      it("searches during replay of inserts and vacuums without an error", function()
         local failures, found = {}, 0
         replica:exec("SET enable_seqscan = off")
         run(4, 400, 7, function()
            local ok, rows = pcall(replica.exec, replica,
               ("SELECT id FROM busy ORDER BY v <-> vec(0, %d) LIMIT 10"):format(DIM))
            if ok then found = found + #rows
            -- The standby may cancel a query whose rows are vacuumed away.
            elseif rows.sqlstate ~= "40001" then failures[#failures + 1] = tostring(rows) end
            return false
         end)
         assert.same({}, failures)
         assert.is_true(found > 1000)
         cluster.catch_up(db, replica)
         assert.equal("", ivf.findings(replica, "busy_v"))
         assert.is_nil(standby:log():find("inconsistent page", 1, true))
      end)

      it("keeps the index when it is promoted", function()
         -- Without waiting: the replay of a vacuum may cancel a statement that waits with its snapshot.
         standby:connect():exec("SELECT pg_promote(false)")
         clock.wait_until("the standby to be promoted", 60, function()
            return not replica:value("SELECT pg_is_in_recovery()")
         end)
         replica:exec(([[INSERT INTO busy SELECT i, vec(i, %d) FROM generate_series(1, 300) i
            ON CONFLICT DO NOTHING]]):format(DIM))
         replica:exec("DELETE FROM busy WHERE id % 2 = 0")
         replica:exec("VACUUM busy")
         assert_sound(replica, "busy")
      end)
   end)
end)
