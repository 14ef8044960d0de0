-- What people who come from other vector indexes rely on, of the ruhnsw index: the planner's choice at real
-- sizes, recall under filters, while rows go and after it, memory that is too small, sessions that insert
-- the same or very long vectors at once, dumps, standbys and crashes.

local cluster = require("ruvector.cluster")
local clock = require("ruvector.clock")
local ruhnsw = require("support.ruhnsw")

describe("the behaviour of a ruhnsw index", function()
   local server, db

   setup(function()
      server = cluster.new { settings = { autovacuum = "off", wal_consistency_checking = "all",
         max_wal_size = "2GB" } }
      server:start()
      db = server:connect()
      ruhnsw.prepare(db)
      db:exec("SET ruvector.adaptive_search = off")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   -- Runs one statement in each of several sessions at once, `rounds` times; statement(session, round) is
   -- its text. Every one of them has to succeed.
   local function at_once(sessions, rounds, statement)
      local open = {}
      for i = 1, sessions do
         open[i] = server:connect()
         open[i]:exec("SET enable_seqscan = off")
      end
      for round = 1, rounds do
         for i, session in ipairs(open) do session:send(statement(i, round)) end
         for _, session in ipairs(open) do session:receive() end
      end
      for _, session in ipairs(open) do session:close() end
   end

   -- Mean share of the k nearest rows that satisfy condition which a search finds, by distance.
   local function filtered_recall(name, d, condition, operator, k, queries)
      local hits, wanted = 0, 0
      for q = 1, queries do
         local nearest = ("SELECT v %s vec(%d, %d) AS distance FROM %s WHERE %s ORDER BY 1 LIMIT %d"):format(
            operator, -q, d, name, condition, k)
         db:exec("SET enable_indexscan = off; SET enable_bitmapscan = off")
         local truth = db:row("SELECT count(*) AS rows, max(distance) AS last FROM (" .. nearest .. ") x")
         db:exec("RESET enable_indexscan; RESET enable_bitmapscan")
         wanted = wanted + truth.rows
         hits = hits + ruhnsw.with_index(db, function()
            return db:value("SELECT count(*) FROM (" .. nearest ..
               ") x WHERE distance <= $1 + 1e-6", truth.last)
         end)
      end
      return hits / wanted
   end

   describe("is that the planner", function()
      local function fill(name, d, first, last)
         db:exec(([[INSERT INTO %s SELECT i, array_agg((i * j * 79 + j * 1047) %% 1009) FROM
            generate_series(%d, %d) i, generate_series(1, %d) j GROUP BY i]]):format(name, first, last, d))
         db:exec("ANALYZE " .. name)
      end

      for _, d in ipairs { 384, 1536 } do
         it(("takes it for a few of some thousand rows of %d dimensions, not for all"):format(d), function()
            local name = "cost_" .. d
            db:exec(("CREATE TABLE %s (id bigint, v ruvector(%d))"):format(name, d))
            fill(name, d, 1, 2500)
            db:exec(("CREATE INDEX %s_v ON %s USING ruhnsw (v) WITH (m = 8, ef_construction = 16)"):format(
               name, name))
            db:exec("ANALYZE " .. name)
            local query = ("FROM %s ORDER BY v <-> (SELECT v FROM %s LIMIT 1)"):format(name, name)
            assert.matches("Index Scan using " .. name,
               ruhnsw.plan(db, "SELECT id " .. query .. " LIMIT 10"), 1, true)
            assert.matches("Seq Scan", ruhnsw.plan(db, "SELECT id " .. query))
            assert.matches("Seq Scan", ruhnsw.plan(db, "SELECT id " .. query .. " LIMIT 2450"))
         end)
      end

      it("counts the index's scans", function()
         local function scans()
            return db:value("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'cost_384_v'")
         end
         local before = scans()
         ruhnsw.with_index(db, function()
            for _ = 1, 5 do
               db:exec("SELECT id FROM cost_384 ORDER BY v <-> (SELECT v FROM cost_384 LIMIT 1) LIMIT 1")
            end
         end)
         local now = clock.wait_until("the statistics to arrive", 30, function()
            db:exec("SELECT pg_stat_force_next_flush()")
            return scans() >= before + 5 and scans()
         end)
         assert.equal(before + 5, now)
      end)
   end)

   describe("under a filter", function()
      setup(function()
         ruhnsw.create(db, "filtered", 8000, 3)
         db:exec("CREATE INDEX filtered_cosine ON filtered USING ruhnsw (v ruvector_cosine_ops)")
      end)

      teardown(function() db:exec("RESET ruvector.iterative_scan; RESET ruvector.max_scan_tuples") end)

      for _, operator in ipairs { "<->", "<=>" } do
         for _, mode in ipairs { "strict_order", "relaxed_order" } do
            for _, share in ipairs { 50, 500 } do
               it(("of one row in %d, %s finds them by %s"):format(share, mode, operator), function()
                  db:exec("SET ruvector.iterative_scan = " .. mode)
                  local recall = filtered_recall("filtered", 3, "id % " .. share .. " = 0", operator, 20, 8)
                  assert.is_true(recall >= 0.97, ("recall %.3f"):format(recall))
               end)
            end
         end
      end

      it("max_scan_tuples bounds the share of the table that is looked at", function()
         db:exec("SET ruvector.iterative_scan = relaxed_order")
         for _, share in ipairs { 0.25, 0.5, 0.75 } do
            db:exec("SET ruvector.max_scan_tuples = " .. 8000 * share)
            local sum = 0
            for q = 1, 8 do
               sum = sum + ruhnsw.with_index(db, function()
                  return db:value(([[SELECT count(*) FROM (SELECT id FROM filtered WHERE id %% 100 = 0
                     ORDER BY v <-> vec(%d, 3) LIMIT 81) x]]):format(-q))
               end)
            end
            assert.near(80 * share, sum / 8, 16)
         end
      end)
   end)

   describe("when most rows go", function()
      setup(function()
         ruhnsw.create(db, "leaving", 8000, 3, { with = "m = 4, ef_construction = 16" })
         db:exec("DELETE FROM leaving WHERE id > 2000")
      end)

      it("finds the rest before vacuum, dead rows notwithstanding", function()
         db:exec("SET ruvector.ef_search = 100")
         local recall = ruhnsw.recall(db, "leaving", 3, "<->", 20, 10)
         assert.is_true(recall >= 0.93, ("recall %.3f"):format(recall))
      end)

      it("finds them with little effort after it", function()
         db:exec("VACUUM leaving")
         assert.equal("", ruhnsw.findings(db, "leaving_v"))
         db:exec("SET ruvector.ef_search = 20")
         local recall = ruhnsw.recall(db, "leaving", 3, "<->", 20, 10)
         db:exec("RESET ruvector.ef_search")
         assert.is_true(recall >= 0.95, ("recall %.3f"):format(recall))
      end)

      it("is searched by many sessions while vacuum takes the last rows out", function()
         db:exec("DELETE FROM leaving")
         local sweeper = server:connect()
         sweeper:send("VACUUM leaving")
         at_once(4, 60, function(i, round)
            return ("SELECT id FROM leaving ORDER BY v <-> vec(%d, 3) LIMIT 10"):format(-i * 100 - round)
         end)
         sweeper:receive()
         sweeper:close()
         assert.equal("", ruhnsw.findings(db, "leaving_v"))
         assert.equal(0, ruhnsw.reachable(db, "leaving", 3))
      end)
   end)

   describe("when several sessions insert at once", function()
      it("very long vectors, keeps every row, on every round", function()
         db:exec("CREATE TABLE long_rows (id bigint, v ruvector(1900))")
         db:exec("CREATE INDEX long_rows_v ON long_rows USING ruhnsw (v)")
         for round = 1, 4 do
            at_once(8, 2, function(i, turn)
               return ([[INSERT INTO long_rows SELECT %d, array_agg((%d * j) %% 997)
                  FROM generate_series(1, 1900) j]]):format(i, 100 * round + 10 * turn + i)
            end)
            assert.equal("", ruhnsw.findings(db, "long_rows_v"))
            assert.equal(16, ruhnsw.with_index(db, function()
               return db:value [[SELECT count(*) FROM
                  (SELECT id FROM long_rows ORDER BY v <-> (SELECT v FROM long_rows LIMIT 1)) x]]
            end))
            db:exec("TRUNCATE long_rows")
         end
      end)

      it("one and the same vector, keeps every row", function()
         db:exec("CREATE TABLE same_rows (id serial, v ruvector(3))")
         db:exec("CREATE INDEX same_rows_v ON same_rows USING ruhnsw (v)")
         at_once(5, 60, function() return "INSERT INTO same_rows (v) VALUES ('[1,1,1]')" end)
         assert.equal("", ruhnsw.findings(db, "same_rows_v"))
         assert.equal(300, ruhnsw.reachable(db, "same_rows", 3))
      end)

      it("rows that are rolled back, finds none of them", function()
         at_once(3, 20, function(i, round)
            if round % 2 == 0 then return ("INSERT INTO same_rows (v) VALUES ('[3,3,%d]')"):format(i) end
            return [[DO $$ BEGIN
               INSERT INTO same_rows (v) VALUES ('[2,2,2]');
               RAISE EXCEPTION 'undone';
               EXCEPTION WHEN raise_exception THEN NULL;
               END $$]]
         end)
         assert.equal("", ruhnsw.findings(db, "same_rows_v"))
         assert.equal(330, ruhnsw.reachable(db, "same_rows", 3))
         assert.equal(0, (ruhnsw.with_index(db, function()
            return db:value [[SELECT count(*) FROM (SELECT v FROM same_rows
               ORDER BY v <-> '[2,2,2]' LIMIT 400) x WHERE v = '[2,2,2]']]
         end)))
         db:exec("VACUUM same_rows")
         assert.equal("", ruhnsw.findings(db, "same_rows_v"))
      end)
   end)

   describe("that was dumped and restored", function()
      it("is there again with its parameters, and sound", function()
         db:exec("CREATE DATABASE dumped")
         db:exec("CREATE DATABASE restored")
         local source = server:connect { dbname = "dumped" }
         ruhnsw.prepare(source)
         ruhnsw.create(source, "kept", 500, 8, { opclass = "ruvector_cosine_ops",
            with = "m = 8, ef_construction = 40, adaptive_search = false" })
         source:exec("CREATE INDEX kept_part ON kept USING ruhnsw (v ruvector_l1_ops) WHERE id % 2 = 0")
         local function client(program, database, ...)
            return server:as_server_user { server.bin .. "/" .. program, "-h", server.socket_directory, "-p",
               tostring(server.port), "-U", server:conninfo().user, "-d", database, ... }
         end
         assert.equal(0, os.execute(client("pg_dump", "dumped") .. " | (" ..
            client("psql", "restored", "-X", "-q", "-v", "ON_ERROR_STOP=1") .. ") >/dev/null"))
         local target = server:connect { dbname = "restored" }
         for _, index in ipairs { "kept_v", "kept_part" } do
            assert.equal((source:value("SELECT pg_get_indexdef($1::regclass)", index)),
               (target:value("SELECT pg_get_indexdef($1::regclass)", index)))
            assert.equal("", ruhnsw.findings(target, index))
         end
         assert.equal(500, (target:value("SELECT count(*) FROM kept WHERE v = vec(id, 8)")))
         source:close()
         target:close()
      end)
   end)

   describe("of an unlogged table", function()
      it("is kept by a clean restart, and emptied with its table by a crash", function()
         db:exec("CREATE UNLOGGED TABLE passing (id bigint, v ruvector(8))")
         db:exec("CREATE INDEX passing_v ON passing USING ruhnsw (v ruvector_l2_ops)")
         db:exec("INSERT INTO passing SELECT i, vec(i, 8) FROM generate_series(1, 300) i")
         server:restart()
         db = server:connect()
         assert.equal(300, ruhnsw.reachable(db, "passing", 8))
         assert.equal("", ruhnsw.findings(db, "passing_v"))
         server:crash()
         server:start()
         db = server:connect()
         assert.equal(0, ruhnsw.reachable(db, "passing", 8))
         db:exec("INSERT INTO passing SELECT i, vec(i, 8) FROM generate_series(1, 100) i")
         assert.equal(100, ruhnsw.reachable(db, "passing", 8))
         assert.equal("", ruhnsw.findings(db, "passing_v"))
      end)
   end)

   describe("of a temporary table", function()
      it("belongs to its session, and leaves no file when that is killed", function()
         local session = server:connect()
         session:exec("CREATE TEMP TABLE own (id bigint, v ruvector(8))")
         session:exec("CREATE INDEX own_v ON own USING ruhnsw (v ruvector_l2_ops)")
         session:exec("INSERT INTO own SELECT i, vec(i, 8) FROM generate_series(1, 200) i")
         assert.equal("", ruhnsw.findings(session, "own_v"))
         assert.equal(200, ruhnsw.reachable(session, "own", 8))
         local schema = session:value(
            "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'own_v'")
         local err = db:fails(("SELECT count(*) FROM ruvector_index_verify('%s.own_v')"):format(schema))
         assert.equal("0A000", err.sqlstate)
         db:exec("SELECT pg_terminate_backend($1::int)", session:value("SELECT pg_backend_pid()"))
         clock.wait_until("the session's table to go", 30, function()
            return db:value("SELECT count(*) FROM pg_class WHERE relname = 'own_v'") == 0
         end)
      end)
   end)

   describe("on a standby", function()
      local standby, replica

      setup(function()
         ruhnsw.create(db, "mirrored", 800, 16, { with = "m = 6, ef_construction = 24" })
         standby = server:start_standby { settings = { wal_consistency_checking = "all" } }
         replica = standby:connect()
      end)

      teardown(function()
         if standby then standby:remove() end
      end)

      -- The ids of the nearest rows to three queries, in order, as one text.
      local function answers(connection)
         return ruhnsw.with_index(connection, function()
            local out = {}
            for q = 1, 3 do
               out[q] = table.concat(connection:column(
                  ("SELECT id FROM mirrored ORDER BY v <-> vec(%d, 16) LIMIT 10"):format(-q)), ",")
            end
            return table.concat(out, " ")
         end)
      end

      local function agree()
         cluster.catch_up(db, replica)
         assert.equal(answers(db), answers(replica))
      end

      it("gives the primary's answers after each delete, vacuum and insert", function()
         agree()
         for round = 0, 5 do
            db:exec("DELETE FROM mirrored WHERE id % 10 = " .. round)
            agree()
            db:exec("VACUUM mirrored")
            agree()
            db:exec(("INSERT INTO mirrored SELECT i, vec(i, 16) FROM generate_series(%d, %d) i"):format(
               1000 + round * 100, 1079 + round * 100))
            agree()
         end
         db:exec("REINDEX INDEX CONCURRENTLY mirrored_v")
         agree()
         assert.equal("", ruhnsw.findings(replica, "mirrored_v"))
      end)

      it("is searched there and changed nowhere", function()
         assert.equal("25006", replica:fails("INSERT INTO mirrored VALUES (1, vec(1, 16))").sqlstate)
         assert.equal("25006", replica:fails("REINDEX INDEX mirrored_v").sqlstate)
      end)
   end)
end)
