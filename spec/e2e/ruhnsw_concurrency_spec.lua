-- The ruhnsw index under many sessions, crashes, and on a standby. After everything the verifier
-- checks every page, link and row, and a search that runs on must find exactly the rows of the table.

local cluster = require("ruvector.cluster")
local clock = require("ruvector.clock")
local hammer = require("support.hammer")
local pg = require("ruvector.pg")
local ruhnsw = require("support.ruhnsw")

local DIM = 8

-- For builds that have to be met half-way.
local SLOW_BUILD = "WITH (m = 64, ef_construction = 400)"

-- The mixed load of support/hammer.lua on the table; returns the number of vacuums.
local function load(server, sessions, count, seed, on_statement)
   local failures, vacuums = hammer.run(server, { table = "busy", dim = DIM, sessions = sessions,
      count = count, seed = seed, on_statement = on_statement })
   assert.same({}, failures)
   return vacuums
end

local function assert_sound(db, name)
   assert.equal("", ruhnsw.findings(db, name .. "_v"))
   assert.equal(db:value("SELECT count(*) FROM " .. name), ruhnsw.reachable(db, name, DIM))
end

describe("a ruhnsw index that many sessions use", function()
   local server, db

   setup(function()
      server = cluster.new { settings = { wal_consistency_checking = "all", autovacuum = "off",
         max_wal_size = "2GB" } }
      server:start()
      db = server:connect()
      ruhnsw.prepare(db)
      ruhnsw.create(db, "busy", 1000, DIM, { with = "m = 4, ef_construction = 16" })
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("loses no row and breaks no rule under inserts, deletes, updates, searches and vacuum", function()
      local vacuums = load(server, 6, 1500, 1)
      assert.is_true(vacuums > 3)
      assert_sound(db, "busy")
   end)

   it("takes the first rows of an empty table from several sessions at once", function()
      for round = 1, 5 do
         db:exec(("CREATE TABLE fresh%d (id bigint, v ruvector(%d))"):format(round, DIM))
         db:exec(("CREATE INDEX fresh%d_v ON fresh%d USING ruhnsw (v) WITH (m = 2)"):format(round, round))
         local sessions = {}
         for i = 1, 8 do
            sessions[i] = server:connect()
            sessions[i]:exec("SELECT vec(1, 1)")
         end
         for i, session in ipairs(sessions) do
            session:send(("INSERT INTO fresh%d SELECT i, vec(i, %d) FROM generate_series(%d, %d) i"):format(
               round, DIM, 100 * i, 100 * i + 24))
         end
         for _, session in ipairs(sessions) do
            session:receive()
            session:close()
         end
         assert_sound(db, "fresh" .. round)
      end
   end)

   it("is built and rebuilt concurrently while rows come and go", function()
      local sql = "CREATE INDEX CONCURRENTLY busy_v2 ON busy USING ruhnsw (v)"
      local builder = server:connect()
      builder:send(sql)
      local stage = 1
      load(server, 3, 600, 2, function()
         if stage > 3 or not builder:ready() then return false end
         builder:receive()
         stage = stage + 1
         if stage <= 3 then builder:send("REINDEX INDEX CONCURRENTLY busy_v2") end
         return false
      end)
      if stage <= 3 then builder:receive() end
      builder:close()
      assert.equal("", ruhnsw.findings(db, "busy_v2"))
      assert_sound(db, "busy")
      db:exec("DROP INDEX busy_v2")
   end)

   it("is intact after the server was killed in the middle, with checked WAL", function()
      for round = 3, 5 do
         load(server, 5, 1000, round, function(done, worker)
            if done == 400 then db = hammer.crash(server, worker:backend_pid()) end
            return done == 400
         end)
         assert.is_nil(server:log():find("inconsistent page", 1, true))
         assert_sound(db, "busy")
         db:exec("VACUUM busy")
         assert_sound(db, "busy")
      end
   end)

   it("is not there after the server was killed during its build, and can be built again", function()
      db:exec(("CREATE TABLE halfway AS SELECT i AS id, vec(i, %d) AS v FROM generate_series(1, 20000) i")
         :format(DIM))
      db:exec(("ALTER TABLE halfway ALTER v TYPE ruvector(%d)"):format(DIM))
      local builder = server:connect()
      local pid = builder:backend_pid()
      builder:send("CREATE INDEX halfway_v ON halfway USING ruhnsw (v) " .. SLOW_BUILD)
      clock.wait_until("the build to have indexed rows", 60, function()
         return (db:value("SELECT max(tuples_done) FROM pg_stat_progress_create_index") or 0) > 1000
      end)
      db = hammer.crash(server, pid)
      assert.is_nil(db:value("SELECT to_regclass('halfway_v')::text"))
      db:exec("CREATE INDEX halfway_v ON halfway USING ruhnsw (v)")
      assert.equal("", ruhnsw.findings(db, "halfway_v"))
   end)

   it("survives a crash right after its build", function()
      db = hammer.crash(server, db:backend_pid())
      assert.equal("", ruhnsw.findings(db, "halfway_v"))
      assert_sound(db, "busy")
   end)

   it("is empty and usable after a crash when its table is unlogged", function()
      db:exec(("CREATE UNLOGGED TABLE passing (id bigint, v ruvector(%d))"):format(DIM))
      db:exec("CREATE INDEX passing_v ON passing USING ruhnsw (v)")
      db:exec(("INSERT INTO passing SELECT i, vec(i, %d) FROM generate_series(1, 200) i"):format(DIM))
      db = hammer.crash(server, db:backend_pid())
      assert_sound(db, "passing")
      db:exec(("INSERT INTO passing SELECT i, vec(i, %d) FROM generate_series(1, 200) i"):format(DIM))
      assert_sound(db, "passing")
      assert.equal(200, ruhnsw.reachable(db, "passing", DIM))
   end)

   it("stops its build when it is told to", function()
      local builder = server:connect()
      builder:send("CREATE INDEX halfway_w ON halfway USING ruhnsw (v) " .. SLOW_BUILD)
      clock.wait_until("the build to have indexed rows", 60, function()
         return (db:value("SELECT max(tuples_done) FROM pg_stat_progress_create_index") or 0) > 100
      end)
      assert.equal("building the graph in memory", (db:value(
         "SELECT split_part(phase, ': ', 2) FROM pg_stat_progress_create_index")))
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
         load(server, 4, 400, 6)
         cluster.catch_up(db, replica)
         assert.is_true(replica:value("SELECT pg_is_in_recovery()"))
         assert.equal("", ruhnsw.findings(replica, "busy_v"))
         assert.equal(db:value("SELECT count(*) FROM busy"), ruhnsw.reachable(replica, "busy", DIM))
      end)

      it("searches during replay of inserts and vacuums without an error", function()
         local failures, found = {}, 0
         replica:exec("SET enable_seqscan = off")
         load(server, 4, 400, 7, function()
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
         assert.equal("", ruhnsw.findings(replica, "busy_v"))
      end)

      it("finds exactly the rows of its snapshot while vacuums are replayed", function()
         local function ids(settings, sql)
            for _, setting in ipairs(settings) do replica:exec("SET LOCAL " .. setting) end
            local rows = replica:column(sql)
            table.sort(rows)
            return rows
         end
         local compared, sizes = 0, {}
         load(server, 4, 300, 8, function(done)
            if done % 10 ~= 0 then return false end
            local ok, err = pcall(replica.transaction, replica, function()
               replica:exec("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
               local all = ids({ "enable_indexscan = off", "enable_indexonlyscan = off" },
                  "SELECT id FROM busy")
               local found = ids({ "enable_indexscan = on", "enable_seqscan = off", "enable_sort = off",
                  "ruvector.max_scan_tuples = 2147483647" },
                  ("SELECT id FROM busy ORDER BY v <-> vec(0, %d) LIMIT 1000000000"):format(DIM))
               assert.same(all, found)
               compared, sizes[#all] = compared + 1, true
            end)
            -- The standby may cancel a query whose rows are vacuumed away.
            if not ok and not (pg.is_error(err) and err.sqlstate == "40001") then error(err, 0) end
            return false
         end)
         assert.is_true(compared > 5, compared .. " snapshots were compared")
         assert.is_truthy(next(sizes, (next(sizes)))) -- rows came and went meanwhile
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
