-- Races between insert, vacuum, entry-point promotion, scans and builds, each forced by holding one
-- side at a pause point (ext/src/pause.h) while the other runs. Afterwards the index must be sound:
-- the verifier finds nothing, and the index finds exactly the rows of the table.

local cluster = require("ruvector.cluster")
local indexed = require("support.indexed")
local methods = require("support.methods")
local pause = require("support.pause")
local ruhnsw = require("support.ruhnsw")

local DIM = 8
local METHOD = methods.ruhnsw

local function fails(session)
   local ok, err = pcall(session.receive, session)
   assert.is_false(ok)
   return err.sqlstate
end

describe("a ruhnsw index while two sessions race", function()
   local server, db

   setup(function()
      server = cluster.new { settings = { autovacuum = "off", deadlock_timeout = "100ms" } }
      server:start()
      db = server:connect()
      ruhnsw.prepare(db)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   before_each(function() indexed.create(db, METHOD, "race", 300, DIM) end)
   after_each(function()
      -- Sessions that a failed test left at a pause point would hold the table.
      server:disconnect()
      db = server:connect()
      db:exec("DROP TABLE race")
   end)

   local function assert_sound()
      assert.equal("", indexed.problems(db, METHOD, "race", DIM))
   end

   local function insert(first, last)
      return ("INSERT INTO race SELECT i, vec(i, %d) FROM generate_series(%d, %d) i"):format(DIM, first, last)
   end

   local function cancel_vacuum_at(point)
      local hold = pause.hold(server, point)
      local sweeper = pause.session(server, point)
      sweeper:send("VACUUM race")
      hold:wait_for(sweeper)
      sweeper:cancel()
      assert.equal("57014", fails(sweeper))
      hold:release()
      sweeper:close()
   end

   for _, point in ipairs { "ruhnsw-insert-searched", "ruhnsw-insert-placed" } do
      it("makes a vacuum wait for an insert that stands at " .. point, function()
         local hold = pause.hold(server, point)
         local inserter = pause.session(server, point)
         local sweeper = server:connect()
         db:exec("DELETE FROM race WHERE id <= 295")
         inserter:send(insert(1001, 1001))
         hold:wait_for(inserter)
         sweeper:send("VACUUM race")
         pause.wait_blocked(db, sweeper)
         assert.is_false(sweeper:ready())
         hold:release()
         inserter:receive()
         sweeper:receive()
         inserter:close()
         sweeper:close()
         assert_sound()
         db:exec("VACUUM race")
         assert_sound()
      end)

      it("lets searches and further inserts go on while an insert stands at " .. point, function()
         local hold = pause.hold(server, point)
         local inserter = pause.session(server, point)
         inserter:send(insert(1001, 1001))
         hold:wait_for(inserter)
         db:exec("SET lock_timeout = '10s'")
         -- A twin of the row that is being inserted, and others near it. An insert that draws a higher
         -- level than the entry point's has to wait, so it may only be refused for that.
         for i = 1, 20 do
            local ok, err = pcall(db.exec, db,
               ("SET lock_timeout = '1s'; INSERT INTO race VALUES (%d, vec(1001, %d))"):format(2000 + i, DIM))
            assert.is_true(ok or err.sqlstate == "55P03", tostring(err))
         end
         assert.equal(10, ruhnsw.with_index(db, function()
            return #db:exec(("SELECT id FROM race ORDER BY v <-> vec(1001, %d) LIMIT 10"):format(DIM))
         end))
         db:exec("RESET lock_timeout")
         hold:release()
         inserter:receive()
         inserter:close()
         assert_sound()
      end)

      it("removes what an insert left that was cancelled at " .. point, function()
         local hold = pause.hold(server, point)
         local inserter = pause.session(server, point)
         inserter:send(insert(1001, 1003))
         hold:wait_for(inserter)
         inserter:cancel()
         assert.equal("57014", fails(inserter))
         hold:release()
         inserter:close()
         assert.equal(300, db:value("SELECT count(*) FROM race"))
         db:exec(insert(1001, 1100))
         db:exec("VACUUM race")
         assert_sound()
      end)
   end

   it("reaches a row that joined one whose insert ended before it was linked everywhere", function()
      -- Half of the rows have upper layers, and few rows leave room there for every one.
      db:exec("DELETE FROM race WHERE id > 12")
      db:exec("VACUUM race")
      db:exec("ALTER INDEX race_v SET (m = 2, ef_construction = 8); REINDEX INDEX race_v")
      -- Who draws a higher level than the entry point's waits, and is refused for that.
      db:exec("SET lock_timeout = '100ms'")
      local joined = 0
      for id = 1001, 1024 do
         local hold = pause.hold(server, "ruhnsw-insert-linked")
         local inserter = pause.session(server, "ruhnsw-insert-linked")
         inserter:send(insert(id, id))
         hold:wait_for(inserter)
         local ok, err = pcall(db.exec, db,
            ("INSERT INTO race VALUES (%d, vec(%d, %d))"):format(id + 1000, id, DIM))
         assert.is_true(ok or err.sqlstate == "55P03", tostring(err))
         if ok then joined = joined + 1 end
         inserter:cancel()
         assert.equal("57014", fails(inserter))
         hold:release()
         inserter:close()
         assert.equal("", ruhnsw.findings(db, "race_v"))
      end
      assert.is_true(joined > 12, joined .. " rows had a twin")
      db:exec("RESET lock_timeout")
      assert_sound()
   end)

   -- Graphs so sparse that many a node is reached by way of one other.
   for _, m in ipairs { 2, 4 } do
      for _, point in ipairs { "ruhnsw-connecting", "ruhnsw-vacuum-repairing" } do
         it(("reaches every row at each step of a vacuum from %s on, m = %d"):format(point, m), function()
            db:exec(("ALTER INDEX race_v SET (m = %d, ef_construction = 8); REINDEX INDEX race_v"):format(m))
            -- The root, the entry point, and most of what lies around them.
            db:exec("DELETE FROM race WHERE id <= 60 OR id % 5 > 1")
            local hold = pause.hold(server, point)
            local sweeper = pause.session(server, point)
            sweeper:send("VACUUM race")
            hold:wait_for(sweeper)
            local steps, next_id = 0, 1001
            repeat
               steps = steps + 1
               assert.equal("", indexed.problems(db, METHOD, "race", DIM))
               if steps % 3 == 0 then
                  db:exec(insert(next_id, next_id + 1))
                  next_id = next_id + 2
               end
            until not hold:step(sweeper)
            sweeper:receive()
            sweeper:close()
            hold:release()
            assert.is_true(steps > 3, "only " .. steps .. " steps")
            assert_sound()
         end)
      end
   end

   it("takes the first rows again while the vacuum goes on that emptied it", function()
      db:exec("DELETE FROM race")
      local hold = pause.hold(server, "ruhnsw-vacuum-entry")
      local sweeper = pause.session(server, "ruhnsw-vacuum-entry")
      sweeper:send("VACUUM race")
      hold:wait_for(sweeper)
      db:exec(insert(1001, 1100))
      assert_sound()
      hold:release()
      sweeper:receive()
      sweeper:close()
      assert_sound()
      db:exec(insert(2001, 2100))
      assert_sound()
   end)

   it("finds what is inserted when every row is dead and the vacuum was cancelled", function()
      db:exec("DELETE FROM race")
      cancel_vacuum_at("ruhnsw-vacuum-removed")
      db:exec(insert(1001, 1001))
      assert_sound()
      db:exec(insert(1002, 1100))
      assert_sound()
      db:exec("VACUUM race")
      assert_sound()
   end)

   it("reaches every row although a vacuum was cancelled and rows are inserted among the dead", function()
      db:exec("ALTER INDEX race_v SET (m = 2, ef_construction = 8); REINDEX INDEX race_v")
      db:exec("DELETE FROM race WHERE id % 4 > 0")
      cancel_vacuum_at("ruhnsw-vacuum-removed")
      for first = 1001, 1900, 30 do
         db:exec(insert(first, first + 29))
         assert.equal("", ruhnsw.findings(db, "race_v"))
      end
      assert_sound()
      db:exec("VACUUM race")
      assert_sound()
   end)

   for _, point in ipairs { "ruhnsw-heal-missed", "ruhnsw-heal-linked" } do
      it("makes a vacuum wait for a heal that stands at " .. point, function()
         local hold = pause.hold(server, point)
         local healer, sweeper = pause.session(server, point), server:connect()
         -- So many rows are missed by a search with the least effort that there is something to heal.
         db:exec("ALTER INDEX race_v SET (m = 2, ef_construction = 4); REINDEX INDEX race_v")
         db:exec("DELETE FROM race WHERE id % 3 > 0") -- before the snapshot of the one who heals
         healer:exec("SET ruvector.ef_search = 1")
         healer:send("SELECT * FROM ruvector_heal_index('race_v')")
         hold:wait_for(healer)
         sweeper:send("VACUUM race")
         pause.wait_blocked(db, sweeper)
         assert.is_false(sweeper:ready())
         hold:release()
         healer:receive()
         sweeper:receive()
         healer:close()
         sweeper:close()
         assert_sound()
         db:exec("VACUUM race")
         assert_sound()
      end)
   end

   -- Every insert into an empty index wants to become the entry point.
   it("promotes one entry point at a time", function()
      db:exec("TRUNCATE race")
      local hold = pause.hold(server, "ruhnsw-insert-promote")
      local first = pause.session(server, "ruhnsw-insert-promote")
      local others = {}
      first:send(insert(1, 1))
      hold:wait_for(first)
      for i = 1, 4 do
         others[i] = server:connect()
         others[i]:send(insert(10 * i, 10 * i + 5))
         pause.wait_blocked(db, others[i])
      end
      hold:release()
      first:receive()
      first:close()
      for _, other in ipairs(others) do
         other:receive()
         other:close()
      end
      assert.equal(25, db:value("SELECT count(*) FROM race"))
      assert_sound()
   end)

   it("takes the next insert when the promotion of an entry point was cancelled", function()
      db:exec("TRUNCATE race")
      local hold = pause.hold(server, "ruhnsw-insert-promote")
      local first = pause.session(server, "ruhnsw-insert-promote")
      first:send(insert(1, 1))
      hold:wait_for(first)
      first:cancel()
      assert.equal("57014", fails(first))
      hold:release()
      first:close()
      db:exec(insert(2, 60))
      db:exec("VACUUM race")
      assert_sound()
   end)

   it("keeps an entry point's promotion apart from a vacuum that replaces it", function()
      db:exec("TRUNCATE race")
      db:exec("BEGIN; " .. insert(1, 200) .. "; ROLLBACK")
      local hold = pause.hold(server, "ruhnsw-vacuum-barrier")
      local sweeper = pause.session(server, "ruhnsw-vacuum-barrier")
      sweeper:send("VACUUM race")
      hold:wait_for(sweeper)
      db:exec(insert(1001, 1200)) -- the entry point is marked dead and not yet replaced
      assert_sound()
      hold:release()
      sweeper:receive()
      sweeper:close()
      assert_sound()
   end)

   for _, point in ipairs { "ruhnsw-vacuum-removed", "ruhnsw-vacuum-barrier", "ruhnsw-vacuum-entry",
      "ruhnsw-vacuum-repaired" } do
      it("takes inserts, deletes and searches while a vacuum stands at " .. point, function()
         db:exec("DELETE FROM race WHERE id % 3 > 0")
         local hold = pause.hold(server, point)
         local sweeper = pause.session(server, point)
         sweeper:send("VACUUM race")
         hold:wait_for(sweeper)
         db:exec(insert(1001, 1150))
         db:exec("DELETE FROM race WHERE id % 5 = 0")
         assert.equal("", indexed.differences(db, METHOD, "race", DIM))
         hold:release()
         sweeper:receive()
         sweeper:close()
         assert_sound()
         db:exec("VACUUM race")
         assert_sound()
      end)

      it("goes on where a vacuum stopped that was cancelled at " .. point, function()
         db:exec("DELETE FROM race WHERE id % 10 > 0")
         cancel_vacuum_at(point)
         db:exec(insert(1001, 1100))
         assert.equal("", indexed.differences(db, METHOD, "race", DIM))
         db:exec("VACUUM race")
         assert_sound()
      end)
   end

   it("never frees what a running cursor stands on", function()
      local reader = server:connect()
      indexed.exhaustive(reader, METHOD)
      reader:exec("BEGIN ISOLATION LEVEL REPEATABLE READ")
      reader:exec(("DECLARE c CURSOR FOR SELECT id FROM race ORDER BY v <-> vec(0, %d)"):format(DIM))
      local seen, count = {}, 0
      local function fetch(n)
         for _, id in ipairs(reader:column("FETCH " .. n .. " FROM c")) do
            assert.is_nil(seen[id])
            seen[id], count = true, count + 1
         end
      end
      fetch(50)
      for round = 1, 3 do
         db:exec(("DELETE FROM race WHERE id %% 4 = %d"):format(round))
         db:exec("VACUUM race")
         db:exec(insert(1000 * round, 1000 * round + 100))
         fetch(50)
      end
      fetch("ALL")
      assert.equal(300, count)
      reader:exec("COMMIT")
      reader:close()
      db:exec("VACUUM race")
      db:exec("VACUUM race")
      assert_sound()
   end)

   it("is searched rightly by a scan that read its meta page before a vacuum moved the entry", function()
      local hold = pause.hold(server, "ruhnsw-scan-meta")
      local reader = pause.session(server, "ruhnsw-scan-meta")
      for name, value in pairs(METHOD.exhaustive) do reader:exec(("SET %s = '%s'"):format(name, value)) end
      reader:exec("SET enable_sort = off")
      reader:send(([[SELECT count(DISTINCT id) FROM
         (SELECT id FROM race ORDER BY v <-> vec(0, %d) LIMIT 100000) x]]):format(DIM))
      hold:wait_for(reader)
      db:exec("DELETE FROM race")
      db:exec(insert(1001, 1100))
      db:exec("VACUUM race")
      db:exec("VACUUM race")
      hold:release()
      assert.equal(300, reader:receive()[1][1]) -- its snapshot is older than the deletion
      reader:close()
      db:exec("VACUUM race")
      assert_sound()
   end)

   it("leaves nothing of a build that is cancelled before it writes", function()
      db:exec("DROP INDEX race_v")
      local hold = pause.hold(server, "ruhnsw-build-write")
      local builder = pause.session(server, "ruhnsw-build-write")
      builder:send(indexed.index_sql(METHOD, "race"))
      hold:wait_for(builder)
      builder:cancel()
      assert.equal("57014", fails(builder))
      hold:release()
      builder:close()
      assert.is_nil(db:value("SELECT to_regclass('race_v')::text"))
      db:exec(indexed.index_sql(METHOD, "race"))
      assert_sound()
   end)

   it("has the rows that came while it was built concurrently", function()
      db:exec("DROP INDEX race_v")
      local hold = pause.hold(server, "ruhnsw-build-write")
      local builder = pause.session(server, "ruhnsw-build-write")
      builder:send((indexed.index_sql(METHOD, "race"):gsub("INDEX", "INDEX CONCURRENTLY", 1)))
      hold:wait_for(builder)
      db:exec(insert(1001, 1200))
      db:exec("DELETE FROM race WHERE id % 3 = 0")
      hold:release()
      builder:receive()
      builder:close()
      assert_sound()
   end)

   it("stops at pause points for superusers only, and only where nothing is locked", function()
      db:exec("CREATE ROLE plain LOGIN")
      local plain = server:connect { user = "plain" }
      plain:exec("SELECT '[1]'::ruvector")
      assert.equal("42501", plain:fails("SET ruvector.debug_pause_points = 'ruhnsw-insert-placed'").sqlstate)
      plain:close()
      assert.equal("22023", db:fails("SET ruvector.debug_pause_points = 'a,,b'").sqlstate)
      assert.is_nil(server:log():find("while a content lock was held", 1, true))
   end)
end)
