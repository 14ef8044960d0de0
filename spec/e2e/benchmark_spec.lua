-- The benchmark functions against searches and arithmetic of our own.

local cluster = require("ruvector.cluster")
local learning = require("support.learning")

local METHODS = {
   ruhnsw = { index = "ruhnsw (embedding ruvector_l2_ops)", setting = "ruvector.ef_search", value = 40 },
   ruivfflat = { index = "ruivfflat (embedding ruvector_l2_ops) WITH (lists = 30)",
      setting = "ruvector.probes", value = 4 },
}

describe("a benchmark in SQL", function()
   local server, db
   local queries = learning.queries(120, 77)

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   local function create_truth(name)
      db:exec(("CREATE TABLE %s_truth (query ruvector, neighbours bigint[])"):format(name))
      db:exec("SET enable_indexscan = off")
      local insert = db:prepare(("INSERT INTO %s_truth SELECT $1::ruvector, ARRAY(SELECT id FROM %s " ..
         "ORDER BY embedding <-> $1::ruvector LIMIT %d)"):format(name, name, learning.K))
      for _, query in ipairs(queries) do insert:exec(query) end
      insert:close()
      db:exec("RESET enable_indexscan")
   end

   for method, spec in pairs(METHODS) do
      it("counts recall and distances of " .. method .. " as they are", function()
         learning.create_table(db, method, nil, spec.index)
         create_truth(method)
         local rows = db:exec("SELECT * FROM ruvector_benchmark_recall($1::regclass, $2::regclass, 1000, $3)",
            method, method .. "_truth", learning.K)
         local by_setting = {}
         for _, row in ipairs(rows) do by_setting[row.setting] = row end
         local row = by_setting[("%s = %d"):format(spec.setting, spec.value)]
         db:exec(("SET %s = %d"):format(spec.setting, spec.value))
         local found = learning.search(db, method, queries)
         db:exec("RESET " .. spec.setting)
         local recall = learning.recall(found, learning.truth(db, method, queries))
         assert.is_true(recall < 1, "too easy to tell anything")
         assert.equal(#queries, row.queries)
         assert.near(recall, row.recall, 1e-9)
         assert.near(learning.distances(found), row.distances, 1e-6)
         assert.is_true(row.recall_low < recall and recall < row.recall_high)
         assert.is_true(row.least_recall < recall)
         assert.equal(method .. "_embedding", row.index)
         assert.is_true(by_setting.session.recall < by_setting[rows[#rows].setting].recall)
      end)
   end

   it("measures declared targets where searches are adaptive, and records nothing", function()
      learning.teach(db, "ruhnsw")
      learning.wait_adaptive(db, "ruhnsw", queries[1])
      learning.wait_learned(db, "ruhnsw")
      local before = learning.stats(db, "ruhnsw").trajectories
      local rows = db:exec([[SELECT * FROM ruvector_benchmark_recall('ruhnsw', 'ruhnsw_truth')
         WHERE setting LIKE 'ruvector.target_recall%']])
      assert.equal(4, #rows)
      for i = 2, 4 do
         assert.is_true(rows[i].distances >= rows[i - 1].distances)
         assert.is_true(rows[i].recall >= rows[i - 1].recall - 0.01)
      end
      assert.is_true(rows[4].recall > 0.96)
      db:exec("SELECT * FROM ruvector_benchmark_latency('ruhnsw')")
      assert.equal(before, learning.stats(db, "ruhnsw").trajectories)
   end)

   it("gives quantiles of the work of recorded searches to the owner, of rows to others", function()
      local rows = db:exec("SELECT * FROM ruvector_benchmark_latency('ruhnsw', 100, 10, '{0.1,0.5,0.9,1}')")
      assert.equal(4, #rows)
      assert.equal("recorded searches", rows[1].measured_with)
      assert.equal(100, rows[1].queries)
      for i = 2, 4 do
         assert.is_true(rows[i].latency_us >= rows[i - 1].latency_us)
         assert.is_true(rows[i].distances >= rows[i - 1].distances)
      end
      db:exec("CREATE ROLE reader; GRANT SELECT ON ruhnsw TO reader; SET ROLE reader")
      assert.equal("rows",
         db:value("SELECT min(measured_with) FROM ruvector_benchmark_latency('ruhnsw', 40)"))
      db:exec("RESET ROLE")
   end)

   it("refuses a ground truth whose rows are gone", function()
      db:exec("DELETE FROM ruivfflat WHERE id = (SELECT neighbours[1] FROM ruivfflat_truth LIMIT 1)")
      local err = db:fails("SELECT * FROM ruvector_benchmark_recall('ruivfflat', 'ruivfflat_truth')")
      assert.equal('the ground truth does not fit "ruivfflat"', err.message)
      assert.matches("^Query %d+ has 10 different neighbours of which the table has 9%.$", err.detail)
   end)

   it("says when searches do not use an index", function()
      db:exec("CREATE TABLE partial AS SELECT * FROM ruhnsw LIMIT 100")
      db:exec("CREATE INDEX ON partial USING ruhnsw (embedding ruvector_l2_ops) WHERE id < 50")
      local err = db:fails("SELECT * FROM ruvector_benchmark_latency('partial')")
      assert.equal('searches of "partial" do not use an index of ruvector', err.message)
   end)
end)
