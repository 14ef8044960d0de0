-- The ruivfflat index, one session at a time: what it finds, how it is built, kept and checked.
-- ruivfflat_concurrency_spec.lua has the rest: many sessions, crashes, standbys.

local cluster = require("ruvector.cluster")
local ivf = require("support.ruivfflat")

describe("a ruivfflat index", function()
   local server, db

   setup(function()
      server = cluster.new():start()
      db = server:connect()
      ivf.prepare(db)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   describe("finds the nearest rows", function()
      for name, operator in pairs(ivf.OPERATORS) do
         for _, storage in ipairs(ivf.STORAGES) do
            it(("under %s with storage %s"):format(name, storage), function()
               local t = ("metric_%s_%s"):format(name, storage)
               ivf.create(db, t, 3000, 16, { opclass = "ruvector_" .. name .. "_ops",
                  with = "lists = 20, storage = " .. storage })
               assert.equal("", ivf.findings(db, t .. "_v"))
               assert.is_true(ivf.recall_at(db, 8, t, 16, operator, 10, 20) >= 0.85)
               assert.equal(1, ivf.recall_at(db, 20, t, 16, operator, 10, 20))
               db:exec("INSERT INTO " .. t .. " SELECT i, vec(i, 16) FROM generate_series(3001, 4000) i")
               db:exec("DELETE FROM " .. t .. " WHERE id % 3 = 0")
               db:exec("VACUUM " .. t)
               assert.equal("", ivf.findings(db, t .. "_v"))
               assert.is_true(ivf.recall_at(db, 8, t, 16, operator, 10, 20) >= 0.85)
               assert.equal(1, ivf.recall_at(db, 20, t, 16, operator, 10, 20))
            end)
         end
      end

      it("better the more lists are probed", function()
         local former = 0
         for _, probes in ipairs { 1, 3, 8 } do
            local recall = ivf.recall_at(db, probes, "metric_l2_fixed32", 16, "<->", 10, 30)
            assert.is_true(recall > former)
            former = recall
         end
      end)

      it("in the order of their exact distances, whatever the codes", function()
         for _, storage in ipairs(ivf.STORAGES) do
            local distances = ivf.with_index(db, function()
               return db:column(([[SELECT v <-> vec(-5, 16) FROM metric_l2_%s
                  ORDER BY v <-> vec(-5, 16) LIMIT 100]]):format(storage))
            end)
            for i = 2, #distances do assert.is_true(distances[i] >= distances[i - 1] - 1e-6) end
         end
      end)

      it("in a lateral join, a search for each outer row", function()
         local rows = ivf.with_index(db, function()
            return db:exec [[SELECT q.id, n.id AS near
               FROM (SELECT * FROM metric_l2_fixed32 WHERE id <= 50) q,
               LATERAL (SELECT id FROM metric_l2_fixed32 ORDER BY v <-> q.v LIMIT 1) n]]
         end)
         assert.is_true(#rows > 30)
         for _, row in ipairs(rows) do assert.equal(row.id, row.near) end
      end)
   end)

   describe("goes on when the first lists are used up", function()
      setup(function()
         ivf.create(db, "long_scan", 4000, 8, { with = "lists = 40, storage = fixed32" })
      end)

      local function rows(sql)
         return ivf.with_index(db, function() return db:column(sql) end)
      end

      it("to every row in relaxed_order", function()
         assert.equal(4000, ivf.reachable(db, "long_scan", 8))
      end)

      it("not at all with iterative_scan off", function()
         db:exec("SET ruvector.iterative_scan = off")
         local found = #rows("SELECT id FROM long_scan ORDER BY v <-> vec(0, 8) LIMIT 4000")
         db:exec("RESET ruvector.iterative_scan")
         assert.is_true(found > 0 and found < 1000)
      end)

      it("in ascending order only in strict_order", function()
         db:exec("SET ruvector.iterative_scan = strict_order")
         local distances = rows("SELECT v <-> vec(0, 8) FROM long_scan ORDER BY v <-> vec(0, 8) LIMIT 4000")
         db:exec("RESET ruvector.iterative_scan")
         for i = 2, #distances do assert.is_true(distances[i] >= distances[i - 1]) end
      end)

      it("until max_scan_tuples rows were compared", function()
         db:exec("SET ruvector.max_scan_tuples = 1000")
         local found = #rows("SELECT id FROM long_scan ORDER BY v <-> vec(0, 8) LIMIT 4000")
         db:exec("RESET ruvector.max_scan_tuples")
         assert.is_true(found >= 800 and found < 1300)
      end)

      it("under a filter, until the limit is reached", function()
         assert.equal(20,
            #rows("SELECT id FROM long_scan WHERE id % 100 = 7 ORDER BY v <-> vec(0, 8) LIMIT 20"))
      end)

      it("in a cursor, as far as it is asked", function()
         ivf.with_index(db, function()
            db:exec("BEGIN")
            db:exec("DECLARE c CURSOR FOR SELECT id FROM long_scan ORDER BY v <-> vec(0, 8)")
            local seen, count = {}, 0
            for _ = 1, 12 do
               for _, id in ipairs(db:column("FETCH 300 FROM c")) do
                  assert.is_nil(seen[id])
                  seen[id], count = true, count + 1
               end
            end
            db:exec("COMMIT")
            assert.equal(3600, count)
         end)
      end)
   end)

   describe("is chosen by the planner", function()
      setup(function()
         ivf.create(db, "planned", 20000, 8, { with = "lists = 50" })
         db:exec("ANALYZE planned")
      end)

      it("for a few rows in the order of the distance", function()
         assert.matches("Index Scan using planned_v",
            ivf.plan(db, "SELECT id FROM planned ORDER BY v <-> vec(0, 8) LIMIT 10"), 1, true)
      end)

      it("not for all rows", function()
         assert.matches("Seq Scan", ivf.plan(db, "SELECT id FROM planned ORDER BY v <-> vec(0, 8)"))
         assert.matches("Seq Scan",
            ivf.plan(db, "SELECT id FROM planned ORDER BY v <-> vec(0, 8) LIMIT 19000"))
      end)

      it("not for another operator, nor without an order", function()
         db:exec("SET enable_seqscan = off")
         assert.matches("Seq Scan",
            ivf.plan(db, "SELECT id FROM planned ORDER BY v <=> vec(0, 8) LIMIT 1"))
         assert.matches("Seq Scan", ivf.plan(db, "SELECT id FROM planned WHERE v = vec(1, 8)"))
         db:exec("RESET enable_seqscan")
      end)

      it("not for a tiny table", function()
         ivf.create(db, "tiny", 50, 8)
         db:exec("ANALYZE tiny")
         assert.matches("Seq Scan",
            ivf.plan(db, "SELECT id FROM tiny ORDER BY v <-> vec(0, 8) LIMIT 5"))
      end)
   end)

   describe("is built", function()
      local function fill(name, rows, d)
         db:exec(([[CREATE TABLE %s AS SELECT i AS id, vec(i, %d)::ruvector(%d) AS v
            FROM generate_series(1, %d) i]]):format(name, d, d, rows))
      end

      it("with lists by the number of rows when none is asked for", function()
         local function lists(index)
            db:exec("CHECKPOINT")
            return db:value(([[SELECT get_byte(b, 0) + 256 * get_byte(b, 1) FROM
               pg_read_binary_file(pg_relation_filepath('%s'), 24 + 20, 2) b]]):format(index))
         end
         fill("many", 30000, 3)
         db:exec("CREATE INDEX many_v ON many USING ruivfflat (v)")
         assert.is_true(math.abs(lists("many_v") - 30) <= 3)
         db:exec("ALTER INDEX many_v SET (lists = 7)")
         db:exec("REINDEX INDEX many_v")
         assert.equal(7, lists("many_v"))
         assert.equal("", ivf.findings(db, "many_v"))
      end)

      it("the same from the same rows, with workers or without", function()
         local function content()
            db:exec("REINDEX INDEX many_v")
            db:exec("CHECKPOINT")
            -- Without the epoch, and the pages' log positions.
            return db:value [[SELECT
               string_agg(md5(substr(b, 9 + CASE WHEN n = 0 THEN 32 ELSE 0 END)), '' ORDER BY n)
               FROM generate_series(0, pg_relation_size('many_v') / 8192 - 1) n,
               LATERAL (SELECT pg_read_binary_file(pg_relation_filepath('many_v'), n * 8192, 8192) b) x]]
         end
         db:exec("SET max_parallel_maintenance_workers = 0")
         local alone = content()
         assert.equal(alone, content())
         db:exec("SET max_parallel_maintenance_workers = 2; SET min_parallel_table_scan_size = 0")
         db:exec("ALTER TABLE many SET (parallel_workers = 2)")
         assert.equal(alone, content())
         assert.equal("", ivf.findings(db, "many_v"))
         db:exec("RESET max_parallel_maintenance_workers; RESET min_parallel_table_scan_size")
      end)

      it("from a smaller sample when memory is short, and says what would be enough", function()
         fill("wide", 8000, 64)
         db:exec("SET maintenance_work_mem = '1MB'")
         local before = #db.notices
         db:exec("CREATE INDEX wide_v ON wide USING ruivfflat (v) WITH (lists = 50)")
         local notice = db.notices[before + 1]
         assert.matches("sample for 50 lists was reduced from %d+ to %d+ rows", notice.message)
         local enough = notice.hint:match("^(%d+) MB of maintenance_work_mem")
         assert.equal("", ivf.findings(db, "wide_v"))
         db:exec(("SET maintenance_work_mem = '%dMB'"):format(enough))
         before = #db.notices
         db:exec("REINDEX INDEX wide_v")
         assert.equal(before, #db.notices)
         db:exec("RESET maintenance_work_mem")
      end)

      it("not when the centres alone do not fit, and says how much would be needed", function()
         db:exec("SET maintenance_work_mem = '1MB'")
         local err = db:fails("CREATE INDEX wide_w ON wide USING ruivfflat (v) WITH (lists = 5000)")
         db:exec("RESET maintenance_work_mem")
         assert.equal("54000", err.sqlstate)
         assert.matches("5000 lists of 64 dimensions do not fit into maintenance_work_mem", err.message)
         assert.matches("maintenance_work_mem is 1 MB, at least %d+ MB are needed", err.detail)
      end)

      it("with fewer lists than asked for when there are fewer rows, and says so", function()
         fill("few", 20, 3)
         local before = #db.notices
         db:exec("CREATE INDEX few_v ON few USING ruivfflat (v) WITH (lists = 100)")
         assert.matches("has 20 of 100 lists", db.notices[before + 1].message)
         assert.equal("", ivf.findings(db, "few_v"))
         assert.equal(20, ivf.reachable(db, "few", 3))
      end)

      it("from the rows that it is for, however rare they are", function()
         db:exec("CREATE INDEX many_rare ON many USING ruivfflat (v) WITH (lists = 40) WHERE id % 100 = 1")
         db:exec("CHECKPOINT")
         assert.equal(40, db:value([[SELECT get_byte(pg_read_binary_file(
            pg_relation_filepath('many_rare'), 24 + 20, 1), 0)]]))
         assert.equal("", ivf.findings(db, "many_rare"))
      end)

      it("of an empty table, and takes rows then", function()
         ivf.create(db, "empty", 0, 4)
         assert.equal(0, ivf.reachable(db, "empty", 4))
         db:exec("INSERT INTO empty SELECT i, vec(i, 4) FROM generate_series(1, 5000) i")
         assert.equal("", ivf.findings(db, "empty_v"))
         assert.equal(5000, ivf.reachable(db, "empty", 4))
      end)
   end)

   describe("with vectors of 2000 dimensions", function()
      for _, storage in ipairs(ivf.STORAGES) do
         it("is sound after build, inserts, deletes and vacuum as " .. storage, function()
            local t = "long_" .. storage
            ivf.create(db, t, 100, 2000, { with = "lists = 3, storage = " .. storage })
            db:exec("INSERT INTO " .. t .. " SELECT i, vec(i, 2000) FROM generate_series(101, 150) i")
            db:exec("DELETE FROM " .. t .. " WHERE id % 4 = 0")
            db:exec("VACUUM " .. t)
            local size = db:value("SELECT pg_relation_size('" .. t .. "_v')")
            db:exec("INSERT INTO " .. t .. " SELECT i, vec(i, 2000) FROM generate_series(201, 225) i")
            assert.equal("", ivf.findings(db, t .. "_v"))
            assert.equal(db:value("SELECT count(*) FROM " .. t), ivf.reachable(db, t, 2000))
            assert.is_true(db:value("SELECT pg_relation_size('" .. t .. "_v')") <= size + 20 * 8192)
         end)
      end

      it("refuses more and names the way out", function()
         db:exec("CREATE TABLE too_long (v ruvector(2001))")
         local err = db:fails("CREATE INDEX ON too_long USING ruivfflat (v)")
         assert.equal("54000", err.sqlstate)
         assert.matches("cannot have more than 2000 dimensions", err.message)
         assert.matches("subvector", err.hint)
      end)
   end)

   it("keeps values that half precision cannot hold", function()
      db:exec("CREATE TABLE huge (id bigint PRIMARY KEY, v ruvector(2))")
      db:exec("INSERT INTO huge SELECT i, ARRAY[i * 1000.0, -i]::ruvector FROM generate_series(1, 200) i")
      db:exec("CREATE INDEX huge_v ON huge USING ruivfflat (v) WITH (lists = 5, storage = fixed32)")
      assert.equal("", ivf.findings(db, "huge_v"))
      db:exec("SET ruvector.probes = 5")
      assert.same({ 150, 151, 149 }, ivf.with_index(db, function()
         return db:column("SELECT id FROM huge ORDER BY v <-> '[150100,-150]' LIMIT 3")
      end))
      db:exec("RESET ruvector.probes")
   end)

   describe("after vacuum", function()
      for _, storage in ipairs(ivf.STORAGES) do
         it("uses the room of deleted rows again as " .. storage, function()
            local t = "churn_" .. storage
            ivf.create(db, t, 3000, 16, { with = "lists = 10, storage = " .. storage })
            local size = db:value("SELECT pg_relation_size('" .. t .. "_v')")
            for round = 1, 5 do
               db:exec(("DELETE FROM %s WHERE id %% 4 = %d"):format(t, round % 4))
               db:exec("VACUUM " .. t)
               db:exec(("INSERT INTO %s SELECT i, vec(i, 16) FROM generate_series(%d, %d) i"):format(t,
                  round * 10000, round * 10000 + 699))
               assert.equal("", ivf.findings(db, t .. "_v"))
            end
            assert.is_true(db:value("SELECT pg_relation_size('" .. t .. "_v')") < 1.2 * size)
            assert.equal(db:value("SELECT count(*) FROM " .. t), ivf.reachable(db, t, 16))
         end)
      end

      it("works when everything was deleted", function()
         db:exec("DELETE FROM churn_fixed32")
         db:exec("VACUUM churn_fixed32")
         assert.equal("", ivf.findings(db, "churn_fixed32_v"))
         assert.equal(0, ivf.reachable(db, "churn_fixed32", 16))
         db:exec("INSERT INTO churn_fixed32 SELECT i, vec(i, 16) FROM generate_series(1, 300) i")
         assert.equal("", ivf.findings(db, "churn_fixed32_v"))
         assert.equal(300, ivf.reachable(db, "churn_fixed32", 16))
      end)
   end)

   describe("in a session that keeps its centres", function()
      setup(function()
         ivf.create(db, "kept", 1000, 8, { with = "lists = 8" })
         db:exec("INSERT INTO kept SELECT i, vec(i, 8) FROM generate_series(1001, 1100) i")
      end)

      it("takes rows where another session has rebuilt it", function()
         local other = server:connect()
         other:exec("REINDEX INDEX kept_v")
         other:close()
         db:exec("INSERT INTO kept SELECT i, vec(i, 8) FROM generate_series(1101, 1200) i")
         assert.equal("", ivf.findings(db, "kept_v"))
         assert.equal(1200, ivf.reachable(db, "kept", 8))
      end)

      it("is searched and takes rows where they would take more than work_mem", function()
         db:exec("ALTER INDEX kept_v SET (lists = 800)")
         db:exec("INSERT INTO kept SELECT i, vec(i, 8) FROM generate_series(1201, 4000) i")
         db:exec("SET work_mem = '64kB'") -- 800 centres of 64 dimensions take 200 kB
         db:exec("ALTER TABLE kept ALTER v TYPE ruvector(64) USING vec(id::int, 64)")
         db:exec("INSERT INTO kept SELECT i, vec(i, 64) FROM generate_series(4001, 4100) i")
         assert.equal("", ivf.findings(db, "kept_v"))
         assert.equal(4100, ivf.reachable(db, "kept", 64))
         db:exec("RESET work_mem")
      end)
   end)

   describe("reports damage", function()
      local path

      -- Writes bytes into the file of a fresh copy of the index while the server is down. changes:
      -- offset -> bytes.
      local function damage(changes)
         db:exec("REINDEX INDEX broken_v")
         path = server.data .. "/" .. db:value("SELECT pg_relation_filepath('broken_v')")
         server:stop()
         local file = assert(io.open(path, "r+b"))
         for offset, bytes in pairs(changes) do
            file:seek("set", offset)
            file:write(bytes)
         end
         file:close()
         server:start()
         db = server:connect()
         db:exec("SET ruvector.probes = 10")
      end

      local function search()
         return ivf.with_index(db, function()
            return db:fails("SELECT id FROM broken ORDER BY v <-> vec(0, 8) LIMIT 5")
         end)
      end

      setup(function() ivf.create(db, "broken", 2000, 8, { with = "lists = 4, storage = fixed32" }) end)

      it("of the meta page, as an error with its SQLSTATE", function()
         damage { [24] = "XXXX" }
         local err = search()
         assert.equal("XX002", err.sqlstate)
         assert.matches("magic", err.message)
      end)

      it("of a page's frame, of the centres, and of a link, by search and verifier", function()
         local page = 8192
         for _, case in ipairs {
            { "does not belong to this access method", { [3 * page - 2] = "??" } },
            { "holds other lists", { [page + 24] = "\9" } },
            { "list 0 begins at block", { [page + 32] = "\255\255\255\127" } },
            { "link to the next page is out of range", { [2 * page + 24 + 4] = "\1\0\0\0" } },
            { "link to what codes leave out is out of range", { [2 * page + 24 + 24] = "\0\0\0\0" } },
            { "more slots in use than it has", { [2 * page + 24 + 12] = "\255\255" } },
            { "belongs to list 77", { [2 * page + 24] = "\77\0\0\0" } },
         } do
            damage(case[2])
            local err = search()
            assert.equal("XX002", err.sqlstate)
            assert.matches(case[1], err.message, 1, true)
            assert.matches(case[1], ivf.findings(db, "broken_v"), 1, true)
         end
      end)

      it("of a code's scale and of its bound, by the verifier", function()
         -- Block 2 is the first list page, of 368 slots: rows from byte 80 on, then scales, then bounds.
         local scales = 2 * 8192 + 80 + 6 * 368
         damage { [scales] = "\0\0\128\127" }
         assert.matches("of the vector in slot 0 is not finite", ivf.findings(db, "broken_v"))
         damage { [scales + 4 * 368] = "\0\0\0\0" }
         assert.matches("the error bound of slot 0 is 0, less than", ivf.findings(db, "broken_v"))
      end)

      it("of a lost row, by the verifier", function()
         damage { [2 * 8192 + 80 + 4] = "\0\0" }
         local findings = ivf.findings(db, "broken_v")
         assert.matches("holds %d+ rows and counts %d+", findings)
         assert.matches("of the table is not in the index", findings)
      end)

      it("never by a crash, whichever bytes are wrong", function()
         local state = 4711
         local function random(n)
            state = (state * 16807) % 2147483647
            return state % n
         end
         for _ = 1, 12 do
            local size = db:value("SELECT pg_relation_size('broken_v')")
            local changes = {}
            for _ = 1, 60 do changes[random(size)] = string.char(random(256)) end
            damage(changes)
            for q = 1, 5 do
               ivf.with_index(db, function()
                  pcall(db.exec, db, ("SELECT id FROM broken ORDER BY v <-> vec(%d, 8) LIMIT 2000"):format(q))
               end)
            end
            pcall(db.exec, db, "INSERT INTO broken SELECT i, vec(i, 8) FROM generate_series(5001, 5050) i")
            pcall(db.exec, db, "DELETE FROM broken WHERE id > 5000")
            pcall(db.exec, db, "VACUUM broken")
            pcall(ivf.findings, db, "broken_v")
            assert.equal(1, db:value("SELECT 1"))
         end
         assert.is_nil(server:log():find("terminated by signal", 1, true))
      end)

      it("and REINDEX repairs it", function()
         db:exec("REINDEX INDEX broken_v")
         assert.equal("", ivf.findings(db, "broken_v"))
      end)

      it("to the owner of the index only, and of the extension's indexes only", function()
         assert.matches("is not an index of ruvector",
            db:fails("SELECT * FROM ruvector_index_verify('broken_pkey')").message)
         db:exec("CREATE ROLE stranger; SET ROLE stranger")
         assert.equal("42501", db:fails("SELECT * FROM ruvector_index_verify('broken_v')").sqlstate)
         db:exec("RESET ROLE")
      end)
   end)
end)
