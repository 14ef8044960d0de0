-- Building a ruhnsw index with parallel workers: all rows, a sound graph, little memory, errors.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local ruhnsw = require("support.ruhnsw")

local DIM = 16
local SLOW = "WITH (m = 32, ef_construction = 1000)"

describe("a parallel build of a ruhnsw index", function()
   local server, db

   local function prepare(connection)
      connection:exec("SET max_parallel_maintenance_workers = 2; SET min_parallel_table_scan_size = 0")
      return connection
   end

   local function load(name, rows, distinct)
      -- parallel_workers: also with less memory than 32 MB for each.
      db:exec(("CREATE TABLE %s (id bigint PRIMARY KEY, v ruvector(%d)) WITH (parallel_workers = 2)")
         :format(name, DIM))
      db:exec(("INSERT INTO %s SELECT i, vec(i %% %d, %d) FROM generate_series(1, %d) i"):format(
         name, distinct or rows + 1, DIM, rows))
   end

   local function index(name)
      db:exec(("CREATE INDEX %s_v ON %s USING ruhnsw (v ruvector_l2_ops)"):format(name, name))
   end

   local function check(name, rows, floor)
      assert.equal("", ruhnsw.findings(db, name .. "_v"))
      assert.equal(rows, ruhnsw.reachable(db, name, DIM))
      if not floor then return end
      db:exec("SET ruvector.ef_search = 100")
      local recall = ruhnsw.recall(db, name, DIM, "<->", 10, 20)
      db:exec("RESET ruvector.ef_search")
      assert.is_true(recall >= floor, "recall is " .. recall)
   end

   local function workers()
      return db:value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'")
   end

   -- Starts a build that takes long enough to be met; returns when its workers have indexed rows.
   local function start_slow_build()
      local builder = prepare(server:connect())
      builder:send("CREATE INDEX slow_w ON slow USING ruhnsw (v) " .. SLOW)
      clock.wait_until("the workers to have indexed rows", 60, function()
         return workers() == 2 and
            (db:value("SELECT max(tuples_done) FROM pg_stat_progress_create_index") or 0) > 100
      end)
      return builder
   end

   setup(function()
      server = cluster.new({ settings = { max_worker_processes = 16 } }):start()
      db = prepare(server:connect())
      ruhnsw.prepare(db)
      load("plain", 6000)
      load("slow", 30000)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("indexes every row, in a graph that verifies and finds what is near", function()
      index("plain")
      check("plain", 6000, 0.95)
   end)

   it("does so concurrently with writers, and again", function()
      db:exec("DROP INDEX IF EXISTS plain_v")
      db:exec("CREATE INDEX CONCURRENTLY plain_v ON plain USING ruhnsw (v)")
      check("plain", 6000, 0.95)
      db:exec("DELETE FROM plain WHERE id % 10 = 0")
      db:exec("REINDEX INDEX CONCURRENTLY plain_v")
      check("plain", 5400, 0.95)
   end)

   it("keeps every row of equal vectors", function()
      load("equal", 5000, 20)
      index("equal")
      check("equal", 5000)
   end)

   it("takes an empty table, and one of NULLs", function()
      load("empty", 0)
      index("empty")
      check("empty", 0)
      db:exec("CREATE TABLE nothing (id bigint, v ruvector(16)) WITH (parallel_workers = 2)")
      db:exec("INSERT INTO nothing SELECT i, NULL FROM generate_series(1, 1000) i")
      index("nothing")
      check("nothing", 0)
   end)

   it("is made by the leader alone when no worker is free", function()
      load("alone", 1000)
      db:exec("SET max_parallel_workers = 0")
      index("alone")
      db:exec("RESET max_parallel_workers")
      check("alone", 1000, 0.95)
   end)

   it("goes on in the pages when the memory is used up, and says what would have sufficed", function()
      load("big", 8000)
      db:exec("SET maintenance_work_mem = '1MB'")
      local before = #db.notices
      index("big")
      local notice = db.notices[before + 1]
      local fitted = tonumber(notice.message:match(
         "no longer fits into maintenance_work_mem after (%d+) rows"))
      assert.is_true(fitted > 500 and fitted < 8000)
      check("big", 8000, 0.9)

      local enough = notice.hint:match("About (%d+) MB of maintenance_work_mem")
      db:exec(("ANALYZE big; SET maintenance_work_mem = '%dMB'"):format(enough))
      before = #db.notices
      db:exec("REINDEX INDEX big_v")
      assert.equal(before, #db.notices)
      db:exec("RESET maintenance_work_mem")
      check("big", 8000, 0.95)
   end)

   it("goes on in the pages when there are more equal rows than the memory has room for", function()
      load("same", 30000, 1)
      db:exec("SET maintenance_work_mem = '1MB'")
      index("same")
      db:exec("RESET maintenance_work_mem")
      check("same", 30000)
   end)

   it("leaves nothing behind when it is cancelled", function()
      local files = "SELECT count(*) FROM pg_class c, pg_stat_file(pg_relation_filepath(c.oid)) " ..
         "WHERE relname = 'slow_w'"
      local builder = start_slow_build()
      builder:cancel()
      local ok, err = pcall(builder.receive, builder)
      assert.is_false(ok)
      assert.equal("57014", err.sqlstate)
      builder:close()
      clock.wait_until("the workers to be gone", 30, function() return workers() == 0 end)
      assert.equal(0, db:value(files))
      assert.equal(0, db:value("SELECT count(*) FROM pg_ls_tmpdir()"))
   end)

   it("fails when a worker is told to stop, and leaves nothing behind", function()
      local builder = start_slow_build()
      db:exec [[SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE backend_type = 'parallel worker' LIMIT 1]]
      local ok, err = pcall(builder.receive, builder)
      assert.is_false(ok)
      assert.equal("57P01", err.sqlstate)
      builder:close()
      clock.wait_until("the workers to be gone", 30, function() return workers() == 0 end)
      assert.equal(0, db:value("SELECT count(*) FROM pg_class WHERE relname = 'slow_w'"))
   end)

   it("reports the error of a row, whoever met it", function()
      db:exec [[CREATE FUNCTION refuse(i bigint, v ruvector) RETURNS ruvector
         LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
         BEGIN
            IF i = 25000 THEN RAISE EXCEPTION 'row % is refused', i; END IF;
            RETURN v;
         END $$]]
      local err = db:fails("CREATE INDEX ON slow USING ruhnsw ((refuse(id, v)::ruvector(16)))")
      assert.equal("row 25000 is refused", err.message)
   end)
end)
