-- What is kept of queries: all of them, hashes of them, or nothing; what is bounded, and what is taken
-- back or forgotten on request.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

-- Enough traced searches for patterns of regions.
local OPTIONS = { min_samples = 200 }

describe("queries that were searched for", function()
   local server, db
   local tests = learning.queries(20, 4711)

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   before_each(function() db = server:connect() end)

   -- How many rows of the table's learned data hold something of a query.
   local function kept(name)
      return db:row([[SELECT
         (SELECT count(*) FROM ruvector_trajectory_log WHERE table_id = $1::regclass) AS rows,
         (SELECT count(query) FROM ruvector_trajectory_log WHERE table_id = $1::regclass) AS vectors,
         (SELECT count(query_hash) FROM ruvector_trajectory_log WHERE table_id = $1::regclass) AS hashes,
         (SELECT coalesce(sum(cardinality(nearest) + coalesce(cardinality(result_ids), 0)
               + coalesce(cardinality(result_distances), 0)), 0) FROM ruvector_trajectory_log
            WHERE table_id = $1::regclass) AS nearest,
         (SELECT count(centroid) FROM ruvector_patterns WHERE table_id = $1::regclass) AS centroids,
         (SELECT count(*) FROM ruvector_memory WHERE table_id = $1::regclass) AS memories]], name)
   end

   local function anonymize(setting)
      server:apply({ ["ruvector.trajectory_anonymize"] = setting }, db)
   end

   local function wait_judged()
      learning.wait_stats(db, "items", "the searches to be judged", function(stats)
         return stats.pending == 0
      end)
   end

   it("are stored, remembered and averaged into patterns by default", function()
      learning.teach(db, "items", OPTIONS)
      local there = kept("items")
      assert.equal(there.rows, there.vectors)
      assert.equal(0, there.hashes)
      assert.is_true(there.centroids > 0 and there.memories == 1 and there.nearest > 0)
   end)

   it("are taken back when hashes shall take their place, and the index learns on without", function()
      learning.wait_adaptive(db, "items", tests[1])
      db:exec("SET ruvector.trajectory_sample_rate = 0") -- nothing but what was recorded before
      anonymize("on")
      clock.wait_until("the vectors to go", learning.LIMIT, function()
         local there = kept("items")
         return there.vectors + there.centroids + there.memories + there.nearest == 0,
            ("%d vectors, %d centroids"):format(there.vectors, there.centroids)
      end)
      learning.wait_adaptive(db, "items", tests[1])
      wait_judged()
      local there = kept("items")
      assert.is_true(there.rows > 0)
      assert.equal(there.rows, there.hashes)
      assert.equal(0, there.vectors + there.centroids + there.memories + there.nearest)
      for _, query in ipairs(tests) do
         learning.search(db, "items", { query })
         local last = db:row("SELECT mode, entry_points, patterns_used FROM ruvector_last_search()")
         assert.same({ mode = "adaptive", entry_points = 0, patterns_used = 1 },
            { mode = last.mode, entry_points = last.entry_points, patterns_used = last.patterns_used })
      end
   end)

   it("have equal hashes when they are equal, and different ones for different keys", function()
      local repeated = learning.queries(8, 5)
      for _ = 1, 60 do learning.search(db, "items", repeated) end
      wait_judged()
      local hash = db:row([[SELECT query_hash::text AS hash, count(*) AS count FROM ruvector_trajectories
         GROUP BY 1 ORDER BY 2 DESC LIMIT 1]])
      assert.is_true(hash.count > 5)
      server:restart()
      db = server:connect()
      learning.wait_stats(db, "items", "the worker", function(stats) return stats.worker_pid end)
      for _ = 1, 60 do learning.search(db, "items", repeated) end
      wait_judged()
      local after = db:column([[SELECT DISTINCT query_hash::text FROM ruvector_trajectories
         WHERE searched_at > pg_postmaster_start_time()]])
      assert.is_true(#after >= 1 and #after <= #repeated, #after .. " hashes")
      for _, other in ipairs(after) do assert.not_equal(hash.hash, other) end
      anonymize("off")
   end)

   it("leave no trace where a table does not keep them, and it learns all the same", function()
      learning.create_table(db, "secrets")
      db:exec("SELECT ruvector_enable_learning('secrets', keep_queries => false)")
      learning.teach(db, "secrets", OPTIONS) -- enables again: that does not change it
      assert.is_false(learning.stats(db, "secrets").keep_queries)
      learning.wait_adaptive(db, "secrets", tests[1])
      local there = kept("secrets")
      assert.is_true(there.rows >= 200)
      assert.equal(0, there.vectors + there.hashes + there.nearest + there.centroids + there.memories)
      server:restart("immediate")
      db = server:connect()
      learning.wait_adaptive(db, "secrets", tests[1])
   end)

   it("are forgotten when a table that kept them shall not any more", function()
      learning.teach(db, "items", OPTIONS)
      assert.is_true(kept("items").vectors > 0)
      db:exec("BEGIN; SELECT ruvector_enable_learning('items', keep_queries => false); ROLLBACK")
      assert.is_true(kept("items").vectors > 0)
      db:exec("SELECT ruvector_enable_learning('items', keep_queries => false)")
      local there = kept("items")
      assert.equal(0, there.rows + there.centroids + there.memories)
      assert.equal("nothing learned yet", learning.search(db, "items", { tests[1] })[1].reason)
      learning.teach(db, "items", OPTIONS)
      there = kept("items")
      assert.is_true(there.rows >= 200)
      assert.equal(0, there.vectors + there.hashes + there.nearest + there.centroids + there.memories)
      db:exec("SELECT ruvector_disable_learning('items', forget => true)")
   end)

   it("wait for the day on which learning is enabled again, unless they shall be forgotten", function()
      learning.teach(db, "items")
      local before, patterns = kept("items"), db:value("SELECT count(*) FROM ruvector_patterns")
      db:exec("SELECT ruvector_disable_learning('items')")
      assert.equal("off", learning.stats(db, "items").state)
      assert.equal("nothing learned yet", learning.search(db, "items", { tests[1] })[1].reason)
      assert.same(before, kept("items"))
      server:restart()
      db = server:connect()
      assert.equal("nothing learned yet", learning.search(db, "items", { tests[1] })[1].reason)
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      db:exec("SELECT ruvector_enable_learning('items')")
      learning.wait_adaptive(db, "items", tests[1])
      assert.equal(patterns, db:value("SELECT count(*) FROM ruvector_patterns"))
   end)

   it("are no more than the window, also when that becomes smaller", function()
      assert.is_true(kept("items").rows > 60)
      db:exec("SELECT ruvector_enable_learning('items', trajectory_window => 60, min_samples => 50)")
      assert.equal(60, kept("items").rows)
      local before = learning.stats(db, "items").trajectories
      learning.search(db, "items", learning.queries(200, 5))
      local stats = learning.wait_learned(db, "items", before + 150)
      assert.equal(60, kept("items").rows)
      assert.equal(60, stats.samples)
      assert.equal(60, stats.trajectory_window)
      -- In one statement: the worker goes on with the rest of the searches.
      assert.is_true(db:value([[SELECT oldest = (SELECT min(searched_at) FROM ruvector_trajectories
         WHERE table_id = 'items'::regclass) FROM ruvector_learning_stats('items')]]))
      assert.is_true(stats.stored_bytes > 60 * learning.DIM * 4 and stats.stored_bytes < 60 * 2000,
         tostring(stats.stored_bytes))
   end)

   it("count in what learning gained", function()
      local stats = learning.stats(db, "items")
      assert.is_true(stats.recall_before < 0.9, tostring(stats.recall_before))
      assert.is_true(stats.recall_after > stats.recall_before, tostring(stats.recall_after))
      assert.is_true(stats.latency_before_us > 0 and stats.latency_after_us > 0)
      assert.near(1 - stats.distances_after / stats.distances_before, stats.distances_saved, 1e-9)
   end)
end)
