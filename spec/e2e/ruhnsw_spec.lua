-- The ruhnsw index, one session at a time: what it finds, how it is built, kept and checked.
-- ruhnsw_concurrency_spec.lua has the rest: many sessions, crashes, standbys.

local cluster = require("ruvector.cluster")
local ruhnsw = require("support.ruhnsw")

describe("a ruhnsw index", function()
   local server, db

   setup(function()
      server = cluster.new():start()
      db = server:connect()
      ruhnsw.prepare(db)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   describe("finds the nearest rows", function()
      for name, operator in pairs(ruhnsw.OPERATORS) do
         it("under " .. name, function()
            local table_name = "metric_" .. name
            ruhnsw.create(db, table_name, 3000, 16, { opclass = "ruvector_" .. name .. "_ops" })
            assert.equal("", ruhnsw.findings(db, table_name .. "_v"))
            db:exec("SET ruvector.ef_search = 100")
            assert.is_true(ruhnsw.recall(db, table_name, 16, operator, 10, 20) >= 0.95)
            db:exec("INSERT INTO " .. table_name ..
               " SELECT i, vec(i, 16) FROM generate_series(3001, 4000) i")
            assert.equal("", ruhnsw.findings(db, table_name .. "_v"))
            assert.is_true(ruhnsw.recall(db, table_name, 16, operator, 10, 20) >= 0.95)
            db:exec("RESET ruvector.ef_search")
         end)
      end

      it("better the larger ef_search is, up to all of them", function()
         ruhnsw.create(db, "effort", 3000, 32, { with = "m = 8" })
         db:exec("SET ruvector.ef_search = 10")
         local low = ruhnsw.recall(db, "effort", 32, "<->", 10, 20)
         db:exec("SET ruvector.ef_search = 1000")
         local high = ruhnsw.recall(db, "effort", 32, "<->", 10, 20)
         db:exec("RESET ruvector.ef_search")
         assert.is_true(low < high)
         assert.is_true(high >= 0.999)
      end)

      it("all of them when a scan runs on to its end, wherever they came from", function()
         ruhnsw.create(db, "ends", 2000, 4)
         db:exec("INSERT INTO ends SELECT i, vec(i, 4) FROM generate_series(2001, 3000) i")
         assert.equal(3000, ruhnsw.reachable(db, "ends", 4))
      end)

      it("in a lateral join, a search for each outer row", function()
         local rows = ruhnsw.with_index(db, function()
            return db:exec [[SELECT q.id, n.id AS near FROM (SELECT * FROM ends WHERE id <= 50) q,
               LATERAL (SELECT id FROM ends ORDER BY v <-> q.v LIMIT 1) n]]
         end)
         assert.equal(50, #rows)
         for _, row in ipairs(rows) do assert.equal(row.id, row.near) end
      end)
   end)

   describe("is chosen by the planner", function()
      setup(function()
         ruhnsw.create(db, "planned", 10000, 8)
         db:exec("ANALYZE planned")
      end)

      it("for a few rows in the order of the distance", function()
         assert.matches("Index Scan using planned_v",
            ruhnsw.plan(db, "SELECT id FROM planned ORDER BY v <-> vec(0, 8) LIMIT 10"), 1, true)
      end)

      it("not for all rows", function()
         assert.matches("Seq Scan", ruhnsw.plan(db, "SELECT id FROM planned ORDER BY v <-> vec(0, 8)"))
         assert.matches("Seq Scan",
            ruhnsw.plan(db, "SELECT id FROM planned ORDER BY v <-> vec(0, 8) LIMIT 9500"))
      end)

      it("not for another operator, nor without an order", function()
         db:exec("SET enable_seqscan = off")
         assert.matches("Seq Scan",
            ruhnsw.plan(db, "SELECT id FROM planned ORDER BY v <=> vec(0, 8) LIMIT 1"))
         assert.matches("Seq Scan", ruhnsw.plan(db, "SELECT id FROM planned WHERE v = vec(1, 8)"))
         db:exec("RESET enable_seqscan")
      end)

      it("not for a tiny table", function()
         ruhnsw.create(db, "tiny", 50, 8)
         db:exec("ANALYZE tiny")
         assert.matches("Seq Scan",
            ruhnsw.plan(db, "SELECT id FROM tiny ORDER BY v <-> vec(0, 8) LIMIT 5"))
      end)
   end)

   describe("with rows that have one and the same vector", function()
      local function insert_equal(first, count)
         db:exec(([[INSERT INTO equal_rows SELECT i, vec(7, 8) FROM generate_series(%d, %d) i]]):format(
            first, first + count - 1))
      end

      it("stays connected, however many there are", function()
         db:exec [[CREATE TABLE equal_rows (id bigint PRIMARY KEY, v ruvector(8));
                   CREATE INDEX equal_rows_v ON equal_rows USING ruhnsw (v) WITH (m = 4)]]
         insert_equal(1, 2000)
         db:exec("INSERT INTO equal_rows SELECT i, vec(i, 8) FROM generate_series(10001, 10500) i")
         assert.equal("", ruhnsw.findings(db, "equal_rows_v"))
         assert.equal(2500, ruhnsw.reachable(db, "equal_rows", 8))
      end)

      it("is the same after a rebuild", function()
         db:exec("REINDEX INDEX equal_rows_v")
         assert.equal("", ruhnsw.findings(db, "equal_rows_v"))
         assert.equal(2500, ruhnsw.reachable(db, "equal_rows", 8))
      end)

      it("loses exactly those that are deleted, and takes new ones", function()
         db:exec("DELETE FROM equal_rows WHERE id % 3 = 0")
         db:exec("VACUUM equal_rows")
         insert_equal(3001, 100)
         assert.equal("", ruhnsw.findings(db, "equal_rows_v"))
         assert.equal(db:value("SELECT count(*) FROM equal_rows"),
            ruhnsw.reachable(db, "equal_rows", 8))
      end)

      it("gives up the node with the last of them", function()
         db:exec("DELETE FROM equal_rows WHERE id < 10000")
         db:exec("VACUUM equal_rows")
         db:exec("SELECT pg_current_xact_id()") -- moves the horizon past the removal
         db:exec("VACUUM equal_rows")
         assert.equal("", ruhnsw.findings(db, "equal_rows_v"))
         assert.equal(333, ruhnsw.reachable(db, "equal_rows", 8))
      end)
   end)

   describe("with long vectors, whose links lie on other pages", function()
      it("is sound after build, inserts, deletes and vacuum", function()
         ruhnsw.create(db, "long", 150, 2000, { with = "m = 16" })
         db:exec("INSERT INTO long SELECT i, vec(i, 2000) FROM generate_series(151, 250) i")
         assert.equal("", ruhnsw.findings(db, "long_v"))
         db:exec("DELETE FROM long WHERE id % 4 = 0")
         db:exec("VACUUM long")
         db:exec("SELECT pg_current_xact_id()")
         db:exec("VACUUM long")
         assert.equal("", ruhnsw.findings(db, "long_v"))
         local size = db:value("SELECT pg_relation_size('long_v')")
         db:exec("INSERT INTO long SELECT i, vec(i, 2000) FROM generate_series(301, 350) i")
         assert.equal("", ruhnsw.findings(db, "long_v"))
         assert.equal(db:value("SELECT count(*) FROM long"), ruhnsw.reachable(db, "long", 2000))
         assert.is_true(db:value("SELECT pg_relation_size('long_v')") <= size + 4 * 8192)
      end)

      it("chooses a storage that fits, and names the limit and the way out where none does", function()
         db:exec("CREATE TABLE too_long (id int, v ruvector(3000), w ruvector(9000))")
         db:exec("INSERT INTO too_long SELECT i, vec(i, 3000), vec(i, 9000) FROM generate_series(1, 20) i")
         db:exec("CREATE INDEX too_long_v ON too_long USING ruhnsw (v)")
         assert.equal("", ruhnsw.findings(db, "too_long_v"))
         local err = db:fails("CREATE INDEX ON too_long USING ruhnsw (v) WITH (storage = float32)")
         assert.equal("54000", err.sqlstate)
         assert.matches("cannot have more than 1578 dimensions", err.message)
         assert.matches("storage = float32", err.detail)
         assert.matches("another storage", err.hint)
         err = db:fails("CREATE INDEX ON too_long USING ruhnsw (w)")
         assert.equal("54000", err.sqlstate)
         assert.matches("cannot have more than 7896 dimensions", err.message)
         assert.matches("subvector", err.hint)
      end)
   end)

   describe("with a storage parameter", function()
      for _, storage in ipairs { "float32", "fixed32", "fixed24", "float16", "int8" } do
         it("keeps vectors as " .. storage, function()
            local name = "stored_" .. storage
            ruhnsw.create(db, name, 2000, 24, { with = "storage = " .. storage })
            db:exec("INSERT INTO " .. name .. " SELECT i, vec(i, 24) FROM generate_series(2001, 2500) i")
            assert.equal("", ruhnsw.findings(db, name .. "_v"))
            db:exec("SET ruvector.ef_search = 100")
            assert.is_true(ruhnsw.recall(db, name, 24, "<->", 10, 20) >= 0.9)
            db:exec("RESET ruvector.ef_search")
         end)
      end

      it("gives rows in the order of their own distances, where it keeps 24 bits beside the code", function()
         db:exec("CREATE TABLE ordered (id int, v ruvector(48))")
         db:exec("INSERT INTO ordered SELECT i, vec(i, 48) FROM generate_series(1, 3000) i")
         for _, op in ipairs { { "<->", "l2" }, { "<=>", "cosine" }, { "<#>", "ip" }, { "<+>", "l1" } } do
            db:exec(("CREATE INDEX ordered_v ON ordered USING ruhnsw (v ruvector_%s_ops)"):format(op[2]))
            db:exec("SET ruvector.ef_search = 400")
            ruhnsw.with_index(db, function()
               local last, rows = -math.huge, 0
               for _, distance in ipairs(db:column(([[SELECT v %s vec(-7, 48) FROM ordered
                     ORDER BY v %s vec(-7, 48) LIMIT 300]]):format(op[1], op[1]))) do
                  assert.is_true(distance >= last - 3e-7 * math.max(1, math.abs(last)))
                  last, rows = distance, rows + 1
               end
               assert.equal(300, rows)
            end)
            db:exec("DROP INDEX ordered_v")
         end
         db:exec("RESET ruvector.ef_search")
      end)

      it("takes vectors of any size as float16", function()
         db:exec [[CREATE TABLE sizes (id int, v ruvector(3));
            INSERT INTO sizes SELECT i, ARRAY[(i * 1e30)::real, 0, 1e30]::ruvector
               FROM generate_series(1, 50) i;
            INSERT INTO sizes SELECT 100 + i, ARRAY[(i * 1e-35)::real, 0, 1e-35]::ruvector
               FROM generate_series(1, 50) i;
            CREATE INDEX sizes_v ON sizes USING ruhnsw (v ruvector_l1_ops) WITH (storage = float16)]]
         assert.equal("", ruhnsw.findings(db, "sizes_v"))
         ruhnsw.with_index(db, function()
            assert.equal(7, db:value("SELECT id FROM sizes ORDER BY v <+> '[7e30,0,1e30]' LIMIT 1"))
            assert.equal(107, db:value("SELECT id FROM sizes ORDER BY v <+> '[7e-35,0,1e-35]' LIMIT 1"))
         end)
      end)

      it("refuses what it does not know", function()
         assert.matches('Valid values are "auto", "float32", "fixed32", "fixed24", "float16" and "int8"',
            db:fails("CREATE INDEX ON sizes USING ruhnsw (v) WITH (storage = float8)").detail)
         assert.matches("between \"0\" and \"32\"",
            db:fails("CREATE INDEX ON sizes USING ruhnsw (v) WITH (learned_links = 33)").detail)
      end)
   end)

   describe("built with too little memory", function()
      local notice

      setup(function()
         db:exec("CREATE TABLE big (id bigint PRIMARY KEY, v ruvector(64))")
         db:exec("INSERT INTO big SELECT i, vec(i, 64) FROM generate_series(1, 6000) i")
         db:exec("SET maintenance_work_mem = '1MB'")
         local before = #db.notices
         db:exec("CREATE INDEX big_v ON big USING ruhnsw (v)")
         db:exec("RESET maintenance_work_mem")
         notice = db.notices[before + 1]
      end)

      it("says when, and how much memory would have been enough", function()
         assert.matches("no longer fits into maintenance_work_mem after %d+ rows", notice.message)
         local enough = notice.hint:match("About (%d+) MB of maintenance_work_mem")
         assert.is_truthy(enough)
         db:exec(("SET maintenance_work_mem = '%dMB'"):format(enough))
         local before = #db.notices
         db:exec("REINDEX INDEX big_v")
         assert.equal(before, #db.notices)
         db:exec("RESET maintenance_work_mem")
      end)

      it("is as good as one that was built in memory", function()
         db:exec("SET maintenance_work_mem = '1MB'; REINDEX INDEX big_v; RESET maintenance_work_mem")
         assert.equal("", ruhnsw.findings(db, "big_v"))
         db:exec("SET ruvector.ef_search = 200")
         assert.is_true(ruhnsw.recall(db, "big", 64, "<->", 10, 15) >= 0.9)
         db:exec("RESET ruvector.ef_search")
      end)
   end)

   describe("after vacuum", function()
      it("uses the room of deleted rows again", function()
         ruhnsw.create(db, "churn", 2000, 16)
         local size = db:value("SELECT pg_relation_size('churn_v')")
         for round = 1, 6 do
            db:exec(("DELETE FROM churn WHERE id %% 4 = %d"):format(round % 4))
            db:exec("VACUUM churn")
            db:exec("SELECT pg_current_xact_id()")
            db:exec("VACUUM churn")
            db:exec(([[INSERT INTO churn SELECT i, vec(i, 16) FROM
               generate_series(%d, %d) i ON CONFLICT DO NOTHING]]):format(round * 10000, round * 10000 + 499))
            assert.equal("", ruhnsw.findings(db, "churn_v"))
         end
         assert.is_true(db:value("SELECT pg_relation_size('churn_v')") < 1.3 * size)
         assert.equal(db:value("SELECT count(*) FROM churn"), ruhnsw.reachable(db, "churn", 16))
      end)

      it("finds as well as a new index", function()
         db:exec("SET ruvector.ef_search = 100")
         local churned = ruhnsw.recall(db, "churn", 16, "<->", 10, 20)
         db:exec("RESET ruvector.ef_search")
         assert.is_true(churned >= 0.95)
      end)

      it("works when everything was deleted", function()
         db:exec("DELETE FROM churn")
         db:exec("VACUUM churn")
         assert.equal("", ruhnsw.findings(db, "churn_v"))
         assert.equal(0, ruhnsw.reachable(db, "churn", 16))
         db:exec("INSERT INTO churn SELECT i, vec(i, 16) FROM generate_series(1, 300) i")
         assert.equal("", ruhnsw.findings(db, "churn_v"))
         assert.equal(300, ruhnsw.reachable(db, "churn", 16))
      end)
   end)

   describe("with learned links", function()
      local function heal(options)
         return db:exec("SELECT * FROM ruvector_heal_index('healed_v'" .. (options or "") .. ")")[1]
      end

      setup(function()
         ruhnsw.create(db, "healed", 3000, 32, { with = "m = 4, ef_construction = 8" })
         db:exec("SET ruvector.ef_search = 5")
      end)

      teardown(function() db:exec("RESET ruvector.ef_search") end)

      it("finds rows that it missed", function()
         local before = heal()
         assert.equal(3000, before.checked)
         assert.is_true(before.missed > 0 and before.links > 0)
         assert.equal("", ruhnsw.findings(db, "healed_v"))
         assert.is_true(heal().missed < before.missed / 2)
      end)

      it("keeps them true when rows go", function()
         db:exec("DELETE FROM healed WHERE id % 2 = 0")
         db:exec("VACUUM healed")
         assert.equal("", ruhnsw.findings(db, "healed_v"))
         assert.equal(1500, ruhnsw.reachable(db, "healed", 32))
      end)

      it("gives them up when asked to, and no others", function()
         local taken = heal(", reset => true")
         assert.is_true(taken.links < 0)
         assert.equal(0, heal(", reset => true").links)
         assert.equal("", ruhnsw.findings(db, "healed_v"))
         assert.equal(1500, ruhnsw.reachable(db, "healed", 32))
      end)

      it("has no more of them than the storage parameter allows", function()
         db:exec("ALTER INDEX healed_v SET (learned_links = 0); REINDEX INDEX healed_v")
         local result = heal()
         assert.is_true(result.missed > 0)
         assert.equal(0, result.links)
      end)

      it("is healed by the owner only, and if it is a graph", function()
         assert.matches("is not a ruhnsw index",
            db:fails("SELECT ruvector_heal_index('healed_pkey')").message)
         db:exec("CREATE ROLE healer; SET ROLE healer")
         assert.equal("42501", db:fails("SELECT ruvector_heal_index('healed_v')").sqlstate)
         db:exec("RESET ROLE")
      end)
   end)

   describe("is identified by its epoch", function()
      -- Bytes 32 to 39 of the meta page: page header of 24, magic and version of 4 each.
      local function epoch(index)
         db:exec("CHECKPOINT")
         return db:value(("SELECT encode(pg_read_binary_file(pg_relation_filepath('%s'), 32, 8), 'hex')")
            :format(index))
      end

      it("which every rebuild draws anew and nothing else changes", function()
         ruhnsw.create(db, "epochs", 100, 4)
         local first = epoch("epochs_v")
         db:exec("INSERT INTO epochs SELECT i, vec(i, 4) FROM generate_series(101, 200) i")
         db:exec("VACUUM epochs")
         assert.equal(first, epoch("epochs_v"))
         db:exec("REINDEX INDEX epochs_v")
         assert.are_not.equal(first, epoch("epochs_v"))
      end)
   end)

   describe("reports damage", function()
      local path

      local function flip(offset, bytes)
         local file = assert(io.open(path, "r+b"))
         file:seek("set", offset)
         file:write(bytes)
         file:close()
      end

      -- Writes bytes into the file of a fresh copy of the index while the server is down.
      local function damage(offset, bytes)
         db:exec("REINDEX INDEX broken_v")
         path = server.data .. "/" .. db:value("SELECT pg_relation_filepath('broken_v')")
         server:stop()
         flip(offset, bytes)
         server:start()
         db = server:connect()
      end

      local function search()
         return ruhnsw.with_index(db, function()
            return db:fails("SELECT id FROM broken ORDER BY v <-> vec(0, 8) LIMIT 5")
         end)
      end

      setup(function() ruhnsw.create(db, "broken", 300, 8) end)

      it("of the meta page, as an error with its SQLSTATE", function()
         damage(24, "XXXX")
         local err = search()
         assert.equal("XX002", err.sqlstate)
         assert.matches("magic", err.message)
      end)

      it("of a page's frame, by the verifier", function()
         damage(2 * 8192 - 2, "??")
         local err = db:fails("SELECT * FROM ruvector_index_verify('broken_v')")
         assert.equal("XX002", err.sqlstate)
         assert.matches("corrupted at block 1: the page id is 3f3f", err.message)
      end)

      it("of a link that leads nowhere, by the verifier", function()
         db:exec("REINDEX INDEX broken_v")
         assert.equal("", ruhnsw.findings(db, "broken_v"))
         -- The first slot of block 1 begins at byte 64: 16 bytes of head and 8 of code (8 dimensions as
         -- fixed24, a byte each) before its links.
         damage(8192 + 64 + 16 + 8, "\255\255\0\0")
         assert.matches("links to block %d+, which is not there", ruhnsw.findings(db, "broken_v"))
      end)

      it("and REINDEX repairs it", function()
         db:exec("REINDEX INDEX broken_v")
         assert.equal("", ruhnsw.findings(db, "broken_v"))
      end)

      it("to the owner of the index only, and of ruhnsw indexes only", function()
         assert.matches("is not an index of ruvector",
            db:fails("SELECT * FROM ruvector_index_verify('broken_pkey')").message)
         db:exec("CREATE ROLE stranger; SET ROLE stranger")
         assert.equal("42501", db:fails("SELECT * FROM ruvector_index_verify('broken_v')").sqlstate)
         db:exec("RESET ROLE")
      end)
   end)
end)
