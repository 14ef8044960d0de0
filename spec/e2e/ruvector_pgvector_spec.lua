-- ruvector_pgvector: pgvector's vector columns under ruvector's indexes, and the casts between the two
-- types. Where the server has no pgvector every one of these is pending, with the reason, and none passes.

local cluster = require("ruvector.cluster")
local learning = require("support.learning")
local ruhnsw = require("support.ruhnsw")

-- What people write with pgvector. ruvector_pgvector must change neither a result nor an error.
local PGVECTOR_STATEMENTS = {
   "SELECT '[1,2]' <-> v FROM old ORDER BY id LIMIT 1",
   "SELECT v <-> '[1,2]' FROM old ORDER BY id LIMIT 1",
   "SELECT '[1,2]'::vector <#> '[3,4]'",
   "SELECT '[1,2]' <=> '[3,4]'::vector",
   "SELECT '[1,2]' <-> '[3,4]'", -- two literals without a type: an error
   "SELECT '[1,2]'::vector <-> '[3,4]'::halfvec",
   "SELECT '[1,0]'::vector <-> '{1:1}/2'::sparsevec",
   "SELECT '[1,2]'::vector <+> ARRAY[3,4]::vector",
   "SELECT '[1,2]'::vector <-> ARRAY[3,4]",
   "SELECT '[1,2]'::vector + '[3,4]', '[1,2]'::vector - '[3,4]', '[1,2]'::vector * '[3,4]'",
   "SELECT '[1,2]'::vector || '[3]'",
   "SELECT '[1,2]'::vector = '[1,2]', '[1,2]'::vector < '[1,3]'",
   "SELECT '[1,2]'::vector = ARRAY[1,2]::real[]",
   "SELECT l2_distance('[1,2]', v) FROM old ORDER BY id LIMIT 1",
   "SELECT l2_distance('[1,2]', '[3,4]')",
   "SELECT l2_normalize('[3,4]'::vector), l2_norm('[3,4]'::vector)",
   "SELECT subvector('[1,2,3]'::vector, 1, 2), vector_dims('[1,2]'::vector), vector_norm('[3,4]')",
   "SELECT avg(v), sum(v), min(v), max(v) FROM old",
   "SELECT array_agg(v) FROM old WHERE id < 3",
   "SELECT v::real[], v::halfvec, ARRAY[1,2]::vector FROM old ORDER BY id LIMIT 1",
   "SELECT array_length(v::real[], 1), unnest(v::real[]) FROM old ORDER BY id LIMIT 1",
   "SELECT coalesce(v, '[0,0]'), CASE WHEN id = 1 THEN v ELSE '[0,0]' END FROM old ORDER BY id LIMIT 1",
   "SELECT count(*) FROM (SELECT v FROM old UNION SELECT '[1,2]') x",
   "SELECT count(DISTINCT v), count(*) FILTER (WHERE v IN ('[1,2]', '[3,4]')) FROM old",
   "SELECT a.id FROM old a JOIN old b ON a.v = b.v GROUP BY a.id, a.v ORDER BY a.v LIMIT 1",
}

describe("ruvector_pgvector", function()
   local server, db, missing

   -- A specification that needs pgvector.
   local function with_pgvector(name, body)
      it(name, function()
         if missing then pending("pgvector is not installed in this PostgreSQL: " .. name) end
         body()
      end)
   end

   local function plan_of(sql)
      return ruhnsw.with_index(db, function() return ruhnsw.plan(db, sql) end)
   end

   -- What a statement gives: its rows, or how it fails.
   local function outcome(sql)
      local ok, result = pcall(db.exec, db, "SELECT x::text FROM (" .. sql .. ") x")
      if not ok then return result.sqlstate .. " " .. result.message end
      local rows = {}
      for i, row in ipairs(result) do rows[i] = row[1] end
      return table.concat(rows, "; ")
   end

   local function outcomes()
      local out = {}
      for _, sql in ipairs(PGVECTOR_STATEMENTS) do out[sql] = outcome(sql) end
      return out
   end

   local function fresh_database(name)
      db:exec("CREATE DATABASE " .. name)
      return server:connect { dbname = name }
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      missing = db:value("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'") == 0
   end)

   teardown(function()
      if server then server:remove() end
   end)

   with_pgvector("comes with the two extensions it is for", function()
      local err = db:fails("CREATE EXTENSION ruvector_pgvector")
      assert.matches('required extension "vector" is not installed', err.message, 1, true)
      db:exec("CREATE EXTENSION ruvector_pgvector CASCADE")
      assert.same({ "ruvector", "ruvector_pgvector", "vector" },
         db:column("SELECT extname::text FROM pg_extension WHERE extname ~ 'vector' ORDER BY 1"))
      ruhnsw.prepare(db)
   end)

   with_pgvector("has operator classes that validate, and L2 as the default", function()
      local seen = {}
      for _, row in ipairs(db:exec [[SELECT c.opcname::text AS name, c.opcdefault AS standard,
         amvalidate(c.oid) AS valid FROM pg_opclass c JOIN pg_am a ON a.oid = c.opcmethod
         WHERE a.amname = 'ruhnsw' AND c.opcintype = 'vector'::regtype ORDER BY 1]]) do
         assert.is_true(row.valid, row.name)
         seen[#seen + 1] = row.name .. (row.standard and " (default)" or "")
      end
      assert.same({ "vector_cosine_ops", "vector_ip_ops", "vector_l1_ops", "vector_l2_ops (default)" }, seen)
   end)

   describe("casts", function()
      with_pgvector("a value either way as it is, and check the dimensions asked for", function()
         assert.equal("[1,-2.5,1e-20]", (db:value("SELECT '[1,-2.5,1e-20]'::vector::ruvector::text")))
         assert.equal("[1,-2.5,1e-20]", (db:value("SELECT '[1,-2.5,1e-20]'::ruvector::vector::text")))
         assert.is_true(db:value([[SELECT vector_send('[1,2,3e38]'::vector) =
            ruvector_send('[1,2,3e38]'::vector::ruvector)]]))
         assert.equal("expected 2 dimensions, not 3",
            db:fails("SELECT '[1,2,3]'::vector::ruvector(2)").message)
         assert.equal("expected 2 dimensions, not 3",
            db:fails("SELECT '[1,2,3]'::ruvector::vector(2)").message)
         assert.equal(16000, (db:value(
            "SELECT ruvector_dims(array_agg(i)::vector::ruvector) FROM generate_series(1, 16000) i")))
      end)

      with_pgvector("assign from one column to another, and change a column's type", function()
         db:exec [[CREATE TABLE ours (id int, v ruvector(3)); CREATE TABLE theirs (id int, v vector(3));
            INSERT INTO theirs VALUES (1, '[1,2,3]'), (2, NULL);
            INSERT INTO ours SELECT id, v FROM theirs;
            UPDATE theirs t SET v = o.v + '[1,1,1]' FROM ours o WHERE o.id = t.id]]
         assert.equal("[1,2,3]", (db:value("SELECT v::text FROM ours WHERE id = 1")))
         assert.equal("[2,3,4]", (db:value("SELECT v::text FROM theirs WHERE id = 1")))
         db:exec("ALTER TABLE theirs ALTER v TYPE ruvector(3)")
         assert.equal("[2,3,4]", (db:value("SELECT v::text FROM theirs WHERE id = 1")))
         db:exec("ALTER TABLE theirs ALTER v TYPE vector(3)")
         assert.equal(0, (db:value("SELECT count(*) FROM theirs WHERE id = 1 AND v <> '[2,3,4]'")))
      end)

      with_pgvector("without copying the table when no number of dimensions is to be checked", function()
         local file = db:value("SELECT pg_relation_filenode('theirs')")
         db:exec("ALTER TABLE theirs ALTER v TYPE ruvector")
         assert.equal(file, (db:value("SELECT pg_relation_filenode('theirs')")))
      end)

      with_pgvector("do not mix the types silently: a mixed comparison asks for a cast", function()
         for _, mixed in ipairs { "'[1]'::vector <-> '[1]'::ruvector", "'[1]'::ruvector <=> '[1]'::vector",
            "'[1]'::vector = '[1]'::ruvector", "l2_distance('[1]'::vector, '[1]'::ruvector)" } do
            local err = db:fails("SELECT " .. mixed)
            assert.equal("42883", err.sqlstate, mixed)
            assert.matches("explicit type casts", err.hint)
         end
         assert.equal(1, (db:value("SELECT '[1]'::vector <-> '[2]'::ruvector::vector")))
         assert.equal(1, (db:value("SELECT '[1]'::vector::ruvector <-> '[2]'::ruvector")))
      end)
   end)

   with_pgvector("changes nothing about statements that were written for pgvector", function()
      local main = db
      db = fresh_database("plain")
      db:exec [[CREATE EXTENSION vector; CREATE TABLE old (id int, v vector(2));
         INSERT INTO old SELECT i, ARRAY[i, i % 3] FROM generate_series(1, 9) i]]
      local before = outcomes()
      db:exec("CREATE EXTENSION ruvector; CREATE EXTENSION ruvector_pgvector")
      local after = outcomes()
      db:close()
      db = main
      assert.equal("(2.8284271247461903)", before["SELECT '[1,2]'::vector <-> '[3,4]'::halfvec"])
      assert.equal("(1)", before["SELECT '[1,2]' <-> v FROM old ORDER BY id LIMIT 1"])
      for _, sql in ipairs(PGVECTOR_STATEMENTS) do
         assert.equal(before[sql], after[sql], sql)
      end
   end)

   describe("indexes a vector column that is there", function()
      for name, operator in pairs(ruhnsw.OPERATORS) do
         with_pgvector("under " .. name, function()
            local items = "vectors_" .. name
            db:exec(([[CREATE TABLE %s (id bigint PRIMARY KEY, v vector(16));
               INSERT INTO %s SELECT i, vec(i, 16) FROM generate_series(1, 1500) i]]):format(items, items))
            local file = db:value("SELECT pg_relation_filenode($1::regclass)", items)
            db:exec(("CREATE INDEX %s_v ON %s USING ruhnsw (v vector_%s_ops)"):format(items, items, name))
            assert.equal(file, (db:value("SELECT pg_relation_filenode($1::regclass)", items)))
            assert.equal("", ruhnsw.findings(db, items .. "_v"))
            db:exec("INSERT INTO " .. items ..
               " SELECT i, vec(i, 16) FROM generate_series(1501, 2000) i")
            db:exec("DELETE FROM " .. items .. " WHERE id % 5 = 0")
            db:exec("VACUUM " .. items)
            assert.equal("", ruhnsw.findings(db, items .. "_v"))
            assert.matches("Index Scan using " .. items .. "_v", plan_of(
               ("SELECT id FROM %s ORDER BY v %s vec(-1, 16)::vector LIMIT 5"):format(items, operator)),
               1, true)
            db:exec("SET ruvector.ef_search = 200")
            local hits = 0
            for q = 1, 10 do
               local nearest = ("SELECT id FROM %s ORDER BY v %s vec(%d, 16)::vector LIMIT 10"):format(
                  items, operator, -q)
               db:exec("SET enable_indexscan = off")
               local truth = table.concat(db:column(nearest), ",")
               db:exec("RESET enable_indexscan")
               hits = hits + ruhnsw.with_index(db, function()
                  return db:value("SELECT count(*) FROM (" .. nearest ..
                     ") x WHERE id = ANY ($1::bigint[])", "{" .. truth .. "}")
               end)
            end
            db:exec("RESET ruvector.ef_search")
            assert.is_true(hits >= 95, hits .. " of 100 found")
         end)
      end

      for name, operator in pairs(ruhnsw.OPERATORS) do
         with_pgvector("by lists under " .. name, function()
            local items = "listed_" .. name
            db:exec(([[CREATE TABLE %s (id bigint PRIMARY KEY, v vector(16));
               INSERT INTO %s SELECT i, vec(i, 16) FROM generate_series(1, 1500) i]]):format(items, items))
            db:exec(("CREATE INDEX %s_v ON %s USING ruivfflat (v vector_%s_ops) WITH (lists = 10)"):format(
               items, items, name))
            db:exec("INSERT INTO " .. items ..
               " SELECT i, vec(i, 16) FROM generate_series(1501, 2000) i")
            assert.equal("", ruhnsw.findings(db, items .. "_v"))
            local nearest = ("SELECT id FROM %s ORDER BY v %s vec(-1, 16)::vector LIMIT 10"):format(items,
               operator)
            assert.matches("Index Scan using " .. items .. "_v", plan_of(nearest), 1, true)
            db:exec("SET enable_indexscan = off")
            local truth = db:column(nearest)
            db:exec("RESET enable_indexscan; SET ruvector.probes = 10")
            assert.same(truth, ruhnsw.with_index(db, function() return db:column(nearest) end))
            db:exec("RESET ruvector.probes")
         end)
      end

      with_pgvector("and pgvector's own index on the column stays as good as it was", function()
         db:exec [[CREATE INDEX vectors_l2_hnsw ON vectors_l2 USING hnsw (v vector_l2_ops);
            DROP INDEX vectors_l2_v]]
         local nearest = "SELECT id FROM vectors_l2 ORDER BY v <-> vec(1, 16)::vector LIMIT 1"
         assert.matches("vectors_l2_hnsw", plan_of(nearest))
         db:exec("CREATE INDEX vectors_l2_v ON vectors_l2 USING ruhnsw (v)")
         db:exec("DROP INDEX vectors_l2_hnsw")
         assert.matches("vectors_l2_v", plan_of(nearest))
      end)

      with_pgvector("with NULLs, rows that are stored out of line, and a query from a subquery", function()
         db:exec [[CREATE TABLE toasted (id int, v vector(1500));
            ALTER TABLE toasted ALTER v SET STORAGE extended;
            INSERT INTO toasted SELECT i, array_agg((i * j) % 7)
               FROM generate_series(1, 30) i, generate_series(1, 1500) j GROUP BY i;
            INSERT INTO toasted VALUES (31, NULL);
            CREATE INDEX toasted_v ON toasted USING ruhnsw (v vector_l2_ops)]]
         assert.equal("", ruhnsw.findings(db, "toasted_v"))
         ruhnsw.with_index(db, function()
            local rows = db:exec [[SELECT v <-> (SELECT v FROM toasted WHERE id = 3) AS distance
               FROM toasted ORDER BY v <-> (SELECT v FROM toasted WHERE id = 3)]]
            assert.equal(30, #rows)
            assert.equal(0, rows[1].distance)
         end)
      end)

      with_pgvector("under an expression of the other type too", function()
         db:exec([[CREATE INDEX toasted_part ON toasted USING
            ruhnsw ((subvector(v::ruvector, 1, 8)::ruvector(8)) ruvector_l2_ops)]])
         assert.equal("", ruhnsw.findings(db, "toasted_part"))
         assert.matches("toasted_part", plan_of [[SELECT id FROM toasted
            ORDER BY subvector(v::ruvector, 1, 8)::ruvector(8) <-> vec(1, 8) LIMIT 1]])
      end)

      with_pgvector("when the value is cast to the column's type, whichever that is", function()
         assert.matches("vectors_l2_v",
            plan_of("SELECT id FROM vectors_l2 ORDER BY v <-> '[1,2]'::ruvector::vector LIMIT 1"))
         db:exec [[CREATE TABLE native (id int, v ruvector(2));
            CREATE INDEX native_v ON native USING ruhnsw (v)]]
         assert.matches("native_v",
            plan_of("SELECT id FROM native ORDER BY v <-> '[1,2]'::vector::ruvector LIMIT 1"))
      end)

      with_pgvector("and says what is wrong when it cannot", function()
         assert.matches('operator class "ruvector_l2_ops" does not accept data type vector',
            db:fails("CREATE INDEX ON vectors_l2 USING ruhnsw (v ruvector_l2_ops)").message, 1, true)
         db:exec("CREATE TABLE undeclared (v vector)")
         assert.equal("column does not have dimensions",
            db:fails("CREATE INDEX ON undeclared USING ruhnsw (v vector_l2_ops)").message)
         ruhnsw.with_index(db, function()
            assert.matches("different vector dimensions",
               db:fails("SELECT id FROM vectors_l2 ORDER BY v <-> '[1,2]' LIMIT 1").message)
         end)
      end)
   end)

   with_pgvector("lets a vector column learn", function()
      learning.create_table(db, "learned")
      db:exec [[DROP INDEX learned_embedding;
         ALTER TABLE learned ALTER embedding TYPE vector(32);
         CREATE INDEX learned_embedding ON learned USING ruhnsw (embedding vector_l2_ops)]]
      local stats = learning.teach(db, "learned")
      assert.is_true(stats.mean_recall > 0.5 and stats.mean_recall < 1, tostring(stats.mean_recall))
      assert.is_true(stats.patterns >= 1)
      local tests = learning.queries(100, 4711)
      learning.wait_adaptive(db, "learned", tests[1])
      db:exec("SET ruvector.adaptive_search = off; SET ruvector.trajectory_sample_rate = 0")
      local truth = learning.truth(db, "learned", tests)
      local static = learning.recall(learning.search(db, "learned", tests), truth)
      db:exec("RESET ruvector.adaptive_search")
      local adaptive = learning.recall(learning.search(db, "learned", tests), truth)
      db:exec("RESET ruvector.trajectory_sample_rate")
      assert.is_true(adaptive > static, ("%.3f adaptive, %.3f static"):format(adaptive, static))
      assert.is_true(adaptive >= 0.92, ("recall %.3f for a target of 0.95"):format(adaptive))
      assert.equal("adaptive", (db:value(
         "SELECT mode FROM ruvector_get_search_params('learned_embedding', $1)", tests[1])))
      db:exec("SELECT ruvector_disable_learning('learned')")
   end)

   with_pgvector("is dumped and restored with its indexes", function()
      local source, target = fresh_database("dumped"), fresh_database("restored")
      source:exec [[CREATE SCHEMA extra; CREATE EXTENSION vector SCHEMA extra; CREATE EXTENSION ruvector;
         CREATE EXTENSION ruvector_pgvector SCHEMA extra;
         SET search_path = public, extra;
         CREATE TABLE kept (id int, v vector(3));
         INSERT INTO kept SELECT i, ARRAY[i, i % 7, i % 3] FROM generate_series(1, 300) i;
         CREATE INDEX kept_v ON kept USING ruhnsw (v vector_cosine_ops) WITH (m = 8)]]
      local function client(program, database, ...)
         return server:as_server_user { server.bin .. "/" .. program, "-h", server.socket_directory, "-p",
            tostring(server.port), "-U", server:conninfo().user, "-d", database, ... }
      end
      assert.equal(0, os.execute(client("pg_dump", "dumped") .. " | (" ..
         client("psql", "restored", "-X", "-q", "-v", "ON_ERROR_STOP=1") .. ") >/dev/null"))
      target:exec("SET search_path = public, extra")
      assert.equal((source:value("SELECT pg_get_indexdef('kept_v'::regclass)")),
         (target:value("SELECT pg_get_indexdef('kept_v'::regclass)")))
      assert.equal("", ruhnsw.findings(target, "kept_v"))
      assert.equal(300, (target:value("SELECT count(*) FROM kept")))
      source:close()
      target:close()
   end)

   with_pgvector("goes in any order, and takes its indexes along but no rows", function()
      for round, order in ipairs { { "ruvector_pgvector", "ruvector", "vector" },
         { "ruvector_pgvector", "vector", "ruvector" } } do
         local name = "dropped" .. round
         local other = fresh_database(name)
         other:exec [[CREATE EXTENSION ruvector_pgvector CASCADE; CREATE TABLE kept (id int, v vector(2));
            INSERT INTO kept VALUES (1, '[1,2]'); CREATE INDEX kept_v ON kept USING ruhnsw (v)]]
         assert.equal("2BP01", other:fails("DROP EXTENSION ruvector_pgvector").sqlstate)
         assert.equal("2BP01", other:fails("DROP EXTENSION ruvector").sqlstate)
         other:exec("ALTER EXTENSION ruvector_pgvector SET SCHEMA pg_catalog")
         other:exec("DROP EXTENSION ruvector_pgvector CASCADE")
         assert.equal("[1,2]", (other:value("SELECT v::text FROM kept")))
         assert.is_true(other:value("SELECT to_regclass('kept_v') IS NULL"))
         assert.equal(0, (other:value([[SELECT count(*) FROM pg_cast
            WHERE castsource IN ('vector'::regtype, 'ruvector'::regtype)
            AND casttarget IN ('vector'::regtype, 'ruvector'::regtype) AND castsource <> casttarget]])))
         other:exec("DROP TABLE kept")
         for i = 2, 3 do other:exec("DROP EXTENSION " .. order[i]) end
         other:exec("CREATE EXTENSION ruvector_pgvector CASCADE")
         other:exec("DROP EXTENSION " .. order[3] .. " CASCADE")
         assert.equal(0, (other:value(
            "SELECT count(*) FROM pg_extension WHERE extname = 'ruvector_pgvector'")))
         other:close()
      end
   end)
end)
