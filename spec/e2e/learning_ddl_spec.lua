-- What learning leaves behind when tables, indexes, extensions and databases go, and what it says
-- where it cannot work.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

local LIMIT = learning.LIMIT
local TABLES = { "ruvector_learning", "ruvector_trajectory_log", "ruvector_patterns", "ruvector_index_state",
   "ruvector_memory" }

local function rows_left(db)
   local sum = 0
   for _, name in ipairs(TABLES) do sum = sum + db:value("SELECT count(*) FROM " .. name) end
   return sum
end

local function wait_empty(db)
   clock.wait_until("the learning tables to be empty", LIMIT, function()
      local rows = rows_left(db)
      return rows == 0, rows .. " rows"
   end)
end

local function workers(db, database)
   return db:value([[SELECT count(*) FROM pg_stat_activity
      WHERE backend_type = 'ruvector learning worker' AND datname = $1]], database)
end

describe("learning", function()
   local server, db
   local query = learning.queries(1, 3)[1]

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("leaves nothing behind when a table is dropped, and its worker ends", function()
      learning.teach(db, "items")
      assert.is_true(rows_left(db) > 0)
      db:exec("DROP TABLE items")
      wait_empty(db)
      clock.wait_until("the worker to end", LIMIT, function() return workers(db, "postgres") == 0 end)
   end)

   it("leaves nothing behind when an index is dropped", function()
      learning.teach(db, "items")
      db:exec("DROP INDEX items_embedding")
      clock.wait_until("the index's rows to go", LIMIT, function()
         return rows_left(db) == 1, rows_left(db) .. " rows"
      end)
      db:exec("DROP TABLE items")
      wait_empty(db)
   end)

   it("leaves nothing behind when it is disabled to be forgotten, and static search at once", function()
      learning.teach(db, "items")
      db:exec("SELECT ruvector_disable_learning('items', forget => true)")
      assert.equal("nothing learned yet", learning.search(db, "items", { query })[1].reason)
      assert.equal("off", learning.stats(db, "items").state)
      assert.equal(0, rows_left(db))
   end)

   it("does not begin when the transaction that enables it is rolled back", function()
      db:exec("BEGIN; SELECT ruvector_enable_learning('items'); ROLLBACK")
      learning.search(db, "items", { query })
      assert.equal("off", learning.stats(db, "items").state)
      assert.equal(0, rows_left(db))
   end)

   it("takes up an index that is made after it was enabled", function()
      db:exec("DROP INDEX items_embedding; SELECT ruvector_enable_learning('items', min_samples => 20)")
      db:exec("CREATE INDEX items_embedding ON items USING ruhnsw (embedding ruvector_l2_ops)")
      learning.wait_stats(db, "items", "the index to be taken up", function(stats)
         return stats.state == "waiting"
      end)
      learning.search(db, "items", learning.queries(40))
      assert.is_true(learning.wait_learned(db, "items", 40).patterns > 0)
   end)

   it("survives DROP EXTENSION and CREATE EXTENSION", function()
      db:exec("DROP EXTENSION ruvector CASCADE")
      clock.wait_until("the worker to end", LIMIT, function() return workers(db, "postgres") == 0 end)
      db:exec("DROP TABLE items; CREATE EXTENSION ruvector")
      assert.is_true(learning.teach(db, "items").patterns > 0)
   end)

   it("stays out of the way of concurrent DDL", function()
      local busy = server:connect()
      busy:exec("SET enable_seqscan = off")
      for round = 1, 8 do
         busy:send([[SELECT count(*) FROM generate_series(1, 40) n, LATERAL (SELECT id FROM items
            ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = n) LIMIT 10) s]])
         db:exec("SET lock_timeout = '30s'")
         busy:receive()
         if round % 4 == 0 then
            db:exec("REINDEX INDEX items_embedding")
         elseif round % 4 == 1 then
            db:exec("DROP INDEX items_embedding")
            db:exec("CREATE INDEX items_embedding ON items USING ruhnsw (embedding ruvector_l2_ops)")
         elseif round % 4 == 2 then
            db:exec("ALTER TABLE items ADD COLUMN c" .. round .. " int DEFAULT 1")
         else
            db:exec("TRUNCATE items; INSERT INTO items (id, embedding) SELECT n, array_fill(n::real, ARRAY["
               .. learning.DIM .. "])::ruvector FROM generate_series(1, 500) n")
         end
      end
      db:exec("DROP TABLE items")
      wait_empty(db)
      assert.is_nil(server:log():match("PANIC"))
      assert.is_nil(server:log():match("signal 11"))
   end)

   it("does not stand in the way of DROP DATABASE, RENAME or a copy", function()
      db:exec("CREATE DATABASE shop")
      local shop = server:connect({ dbname = "shop" })
      shop:exec("CREATE EXTENSION ruvector")
      learning.teach(shop, "items")
      assert.equal(1, workers(db, "shop"))
      shop:close()

      db:exec("CREATE DATABASE copy TEMPLATE shop")
      db:exec("ALTER DATABASE shop RENAME TO store")
      clock.wait_until("the worker to come back", LIMIT, function() return workers(db, "store") == 1 end)
      db:exec("DROP DATABASE store")
      assert.equal(0, workers(db, "store"))
      db:exec("DROP DATABASE copy")
   end)

   it("is not disturbed by somebody who may not drop the database", function()
      db:exec("CREATE DATABASE shop")
      db:exec("CREATE ROLE visitor LOGIN")
      local shop = server:connect({ dbname = "shop" })
      shop:exec("CREATE EXTENSION ruvector")
      learning.teach(shop, "items")
      shop:close()
      local worker = db:value([[SELECT pid FROM pg_stat_activity
         WHERE backend_type = 'ruvector learning worker' AND datname = 'shop']])
      assert.equal("42501", server:connect({ user = "visitor" }):fails("DROP DATABASE shop").sqlstate)
      assert.equal(worker, db:value([[SELECT pid FROM pg_stat_activity
         WHERE backend_type = 'ruvector learning worker' AND datname = 'shop']]))
      db:exec("DROP DATABASE shop")
   end)

   it("refuses more databases than there are rings, with what to do", function()
      server:configure { ["ruvector.max_learning_databases"] = 1 }
      server:restart()
      db = server:connect()
      learning.teach(db, "items")
      db:exec("CREATE DATABASE second")
      local second = server:connect({ dbname = "second" })
      second:exec("CREATE EXTENSION ruvector")
      learning.create_table(second, "items", 50)
      local err = second:fails("SELECT ruvector_enable_learning('items')")
      assert.equal("54000", err.sqlstate)
      assert.is_truthy(err.message:find("1 databases of this cluster learn already", 1, true))
      assert.is_truthy(err.hint:find("ruvector.max_learning_databases", 1, true))
      db:exec("DROP TABLE items")
      clock.wait_until("the ring to be free", LIMIT, function()
         return (pcall(second.exec, second, "SELECT ruvector_enable_learning('items')"))
      end)
   end)
end)

describe("without shared_preload_libraries", function()
   local server, db

   setup(function()
      server = cluster.new({}):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items", 300)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("the type and the index work, and say why a search is static", function()
      local result = learning.search(db, "items", learning.queries(1))[1]
      assert.equal(learning.K, #result.ids)
      assert.equal("ruvector is not in shared_preload_libraries", result.reason)
      assert.is_truthy(db:value("SELECT ruvector_last_query_id()"))
   end)

   it("every learning function says exactly what to add", function()
      for _, call in ipairs { "ruvector_enable_learning('items')", "ruvector_disable_learning('items')",
         "ruvector_clear_learning('items')", "ruvector_extract_patterns('items')",
         "ruvector_learning_stats('items')", "ruvector_consolidate_patterns('items_embedding')",
         "ruvector_prune_patterns('items_embedding', 1, 0.5)", "ruvector_export_patterns('items')",
         "ruvector_import_patterns('items', '{}')" } do
         local err = db:fails("SELECT " .. call)
         assert.equal("55000", err.sqlstate)
         assert.is_truthy(err.hint:find("shared_preload_libraries = 'ruvector'", 1, true), err.hint)
      end
   end)
end)
