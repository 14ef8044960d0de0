-- Learning, end to end: what a table gains, and that it survives and forgets as promised.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")
local pause = require("support.pause")

local LIMIT = learning.LIMIT

describe("a table that learns", function()
   local server, db
   local tests = learning.queries(200, 4711)

   local function connect(options)
      db = server:connect(options)
      return db
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      connect():exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   describe("before it has learned anything", function()
      it("searches exactly as without learning, to the single distance", function()
         local before = learning.search(db, "items", tests)
         db:exec("SELECT ruvector_enable_learning('items', min_samples => 1000)")
         local after = learning.search(db, "items", tests)
         for i = 1, #tests do
            assert.same(before[i].ids, after[i].ids)
            assert.equal(before[i].distances, after[i].distances)
            assert.equal("static", after[i].mode)
            assert.equal("nothing learned yet", after[i].reason)
         end
      end)

      it("records every search", function()
         learning.wait_stats(db, "items", "the searches to be judged", function(stats)
            return stats.trajectories == #tests and stats.pending == 0
         end)
         local stats = learning.stats(db, "items")
         assert.equal("waiting", stats.state)
         assert.equal(0, stats.patterns)
         assert.equal(#tests, stats.judged)
         assert.equal(0, stats.ring_dropped + stats.ring_lost + stats.ring_torn)
      end)

      it("measures the recall of what was served exactly", function()
         db:exec("SET ruvector.trajectory_sample_rate = 0")
         local recall = learning.recall(learning.search(db, "items", tests),
            learning.truth(db, "items", tests))
         db:exec("RESET ruvector.trajectory_sample_rate")
         assert.near(recall, learning.stats(db, "items").mean_recall, 1e-4)
      end)
   end)

   describe("after its searches", function()
      local static, adaptive, truth

      setup(function()
         truth = learning.truth(db, "items", tests)
         db:exec("SELECT ruvector_clear_learning('items')")
         learning.teach(db, "items")
         db:exec("SET ruvector.trajectory_sample_rate = 0")
         db:exec("SET ruvector.adaptive_search = off")
         static = learning.search(db, "items", tests)
         db:exec("RESET ruvector.adaptive_search; SET ruvector.target_recall = 0.98")
         adaptive = learning.search(db, "items", tests)
      end)

      it("reaches the declared recall on queries it has not seen", function()
         assert.is_true(learning.recall(static, truth) < 0.85, "the data is too easy for this test")
         assert.is_true(learning.recall(adaptive, truth) > 0.955,
            "recall " .. learning.recall(adaptive, truth))
         assert.equal("learned", adaptive[1].reason)
      end)

      it("does less for a lower declared recall", function()
         db:exec("SET ruvector.target_recall = 0.8")
         local modest = learning.search(db, "items", tests)
         assert.is_true(learning.distances(modest) < learning.distances(adaptive))
      end)

      it("tells what it would do and what it promises", function()
         local target = learning.set_target_of(db, "items", { "slack", "memory" })
         local plan = db:row("SELECT * FROM ruvector_get_search_params('items_embedding', $1::ruvector, 25)",
            tests[1])
         assert.equal("adaptive", plan.mode)
         assert.equal(37, plan.window_size) -- 25 and half as many, to rank by exact distances
         assert.equal(1, plan.windows)
         assert.is_true(plan.slack > 0)
         assert.is_true(plan.expected_recall >= target and plan.expected_recall <= 1)
         assert.is_true(plan.ef_search >= 8 * learning.K)
         assert.is_true(plan.confidence > 0 and plan.confidence <= 1)
      end)

      it("goes on when more rows are taken than a window holds", function()
         learning.set_target_of(db, "items", { "slack", "memory" })
         local wide = learning.search(db, "items", { tests[1] }, 200)[1]
         assert.equal(200, #wide.ids)
         local last = db:row("SELECT * FROM ruvector_last_search()")
         assert.equal("adaptive", last.mode)
         assert.equal(2, last.windows) -- of 8 times 10 and half as many
         assert.equal(2, db:value(
            "SELECT windows FROM ruvector_get_search_params('items_embedding', $1, 200)", tests[1]))
         -- nor does a search know how many rows it needs where a filter takes some of them
         db:exec("SET enable_seqscan = off; SET enable_sort = off")
         db:exec("SELECT id FROM items WHERE id % 2 = 0 ORDER BY embedding <-> $1 LIMIT 20", tests[1])
         assert.is_true(db:value("SELECT windows FROM ruvector_last_search()") >= 2)
         db:exec("RESET enable_seqscan; RESET enable_sort")
      end)

      it("is static again where a setting or the index says so", function()
         db:exec("SET ruvector.adaptive_search = off")
         assert.equal("ruvector.adaptive_search is off",
            learning.search(db, "items", { tests[1] })[1].reason)
         db:exec("RESET ruvector.adaptive_search")
         db:exec("ALTER INDEX items_embedding SET (adaptive_search = false)")
         assert.equal("the index's adaptive_search is off",
            learning.search(db, "items", { tests[1] })[1].reason)
         db:exec("ALTER INDEX items_embedding RESET (adaptive_search)")
         assert.equal("learned", learning.search(db, "items", { tests[1] })[1].reason)
      end)

      it("gives every search an id of its own", function()
         local seen = {}
         for _ = 1, 20 do
            learning.search(db, "items", { tests[1] })
            local id = db:value("SELECT ruvector_last_query_id()")
            assert.is_truthy(id:match("^%x+%-%x+%-8%x+%-[89ab]%x+%-%x+$"), id)
            assert.is_nil(seen[id])
            seen[id] = true
         end
      end)

      it("keeps no more searches than its window, and of them enough that calibrate", function()
         -- With links in the graph some searches are judged and calibrate nothing: they may not fill the
         -- window.
         db:exec("SELECT ruvector_enable_learning('items', trajectory_window => 50, min_samples => 50)")
         db:exec("RESET ruvector.trajectory_sample_rate")
         learning.search(db, "items", learning.queries(400, 5))
         learning.wait_stats(db, "items", "old searches to be dropped", function(stats)
            return stats.state == "learned" and stats.pending == 0 and stats.samples == 50
         end)
         assert.equal(50, db:value("SELECT count(*) FROM ruvector_trajectory_log"))
         db:exec("SELECT ruvector_enable_learning('items', min_samples => 50)")
         db:exec("SET ruvector.trajectory_sample_rate = 0")
      end)

      it("extracts patterns on request and waits for it", function()
         assert.equal(db:value("SELECT count(*) FROM ruvector_patterns"),
            db:value("SELECT ruvector_extract_patterns('items')"))
      end)

      it("forgets on request", function()
         db:exec("SELECT ruvector_clear_learning('items')")
         assert.equal("nothing learned yet", learning.search(db, "items", { tests[1] })[1].reason)
         assert.equal(0, db:value("SELECT count(*) FROM ruvector_patterns"))
         assert.equal(0, db:value("SELECT count(*) FROM ruvector_trajectory_log"))
         learning.wait_stats(db, "items", "the worker to forget", function(stats)
            return stats.state == "waiting" and stats.trajectories == 0
         end)
      end)
   end)

   describe("that has learned", function()
      before_each(function()
         connect()
         if db:value("SELECT count(*) FROM ruvector_patterns") == 0 then learning.teach(db, "items") end
      end)

      it("keeps it over a restart of the server", function()
         local patterns = db:value("SELECT count(*) FROM ruvector_patterns")
         server:restart()
         learning.wait_adaptive(connect(), "items", tests[1])
         assert.equal(patterns, db:value("SELECT count(*) FROM ruvector_patterns"))
      end)

      it("takes the way with the least work, one effort for all among them, and shows them", function()
         learning.wait_adaptive(db, "items", tests[1])
         local levers = db:exec("SELECT * FROM ruvector_learning_levers('items') WHERE target_recall = 0.95")
         local active, least = {}, math.huge
         for _, row in ipairs(levers) do
            if row.active then active[#active + 1] = row end
            least = math.min(least, row.work)
            assert.is_true(row.queries >= 50)
         end
         assert.equal(3, #levers)
         assert.equal(1, #active)
         assert.is_true(active[1].in_reach)
         assert.is_true(active[1].expected_recall >= 0.95)
         assert.is_true(active[1].work <= 1.021 * least)
         db:exec("SET ruvector.target_recall = 0.95")
         local last = learning.search(db, "items", { tests[1] })[1]
         assert.equal("adaptive", last.mode)
         local search = db:row("SELECT * FROM ruvector_get_search_params('items_embedding', $1::ruvector)",
            tests[1])
         if active[1].lever == "static" then
            assert.equal(0, search.slack)
            assert.equal(math.ceil(active[1].effort), search.ef_search)
         else
            assert.near(active[1].effort, search.slack, 1e-6)
            assert.is_true(search.ef_search >= 8 * 10)
         end
      end)

      it("starts searches where similar queries were answered, also after a restart", function()
         local similar = learning.similar_queries(50, 8)
         local function with_entry_points()
            local count = 0
            db:exec("SET enable_seqscan = off; SET ruvector.trajectory_sample_rate = 0")
            for i = 1, 50 do
               db:exec("SELECT id FROM asked ORDER BY embedding <-> $1 LIMIT 10", similar[i])
               local last = db:row("SELECT mode, entry_points FROM ruvector_last_search()")
               if last.mode == "adaptive" and last.entry_points > 0 then count = count + 1 end
            end
            return count
         end
         learning.create_table(db, "asked")
         db:exec("SELECT ruvector_enable_learning('asked', min_samples => 50)")
         learning.search(db, "asked", learning.similar_queries(learning.QUERIES))
         learning.wait_learned(db, "asked", learning.QUERIES)
         learning.set_target_of(db, "asked", { "memory" })
         assert.is_true(with_entry_points() > 25)
         server:restart()
         learning.wait_adaptive(connect(), "asked", similar[1])
         learning.set_target_of(db, "asked", { "memory" })
         assert.is_true(with_entry_points() > 25)
         db:exec("DROP TABLE asked")
      end)

      it("keeps it when the worker is killed, and gets another worker", function()
         learning.wait_stats(db, "items", "a worker", function(stats) return stats.worker_pid end)
         local former = learning.stats(db, "items").worker_pid
         server:kill(former)
         clock.wait_until("another worker", LIMIT, function()
            local ok, stats = pcall(function()
               connect()
               return learning.stats(db, "items")
            end)
            return ok and stats.worker_pid and stats.worker_pid ~= former
         end)
         learning.wait_adaptive(db, "items", tests[1])
      end)

      it("keeps it when the whole server is killed", function()
         server:crash()
         server:start()
         learning.wait_adaptive(connect(), "items", tests[1])
      end)

      it("learns anew from the recorded queries when its index is rebuilt", function()
         local before = db:value("SELECT max(index_epoch) FROM ruvector_patterns")
         db:exec("REINDEX INDEX items_embedding")
         local first = learning.search(db, "items", { tests[1] })[1]
         assert.is_true(first.reason == "the index was rebuilt since" or first.reason == "learned",
            first.reason)
         db:exec("SET ruvector.trajectory_sample_rate = 0")
         learning.wait_adaptive(db, "items", tests[1])
         assert.not_equal(before, db:value("SELECT min(index_epoch) FROM ruvector_patterns"))
      end)

      it("adopts the recorded queries when its index is dropped and made again in one go", function()
         db:exec("SET ruvector.trajectory_sample_rate = 0")
         db:exec([[BEGIN; DROP INDEX items_embedding;
            CREATE INDEX items_embedding ON items USING ruhnsw (embedding ruvector_l2_ops); COMMIT]])
         learning.wait_adaptive(db, "items", tests[1])
         assert.equal(1, db:value("SELECT count(DISTINCT index_oid) FROM ruvector_trajectory_log"))
      end)

      it("follows its index when that is renamed", function()
         db:exec("ALTER INDEX items_embedding RENAME TO renamed")
         clock.wait_until("the rows to carry the new name", LIMIT, function()
            return db:value("SELECT count(*) FROM ruvector_patterns WHERE index_name = 'renamed'") > 0
         end)
         assert.equal("learned", learning.search(db, "items", { tests[1] })[1].reason)
         db:exec("ALTER INDEX renamed RENAME TO items_embedding")
      end)

      it("shows its searches to the owner and nobody else", function()
         db:exec([[CREATE ROLE other LOGIN; CREATE ROLE owner LOGIN; ALTER TABLE items OWNER TO owner;
            GRANT SELECT ON items TO other]])
         assert.is_true(server:connect({ user = "owner" }):value(
            "SELECT count(*) FROM ruvector_trajectories WHERE query IS NOT NULL") > 0)
         local other = server:connect({ user = "other" })
         assert.equal(0, other:value("SELECT count(*) FROM ruvector_trajectories"))
         assert.equal("42501", other:fails("SELECT * FROM ruvector_trajectory_log").sqlstate)
         assert.equal("42501", other:fails("SELECT ruvector_clear_learning('items')").sqlstate)
         assert.equal("42501", other:fails("SELECT ruvector_reload_policies()").sqlstate)
         assert.is_true(learning.stats(other, "items").patterns > 0)
         other:exec("SET enable_seqscan = off")
         assert.equal("adaptive", learning.search(other, "items", { tests[1] })[1].mode)
      end)
   end)

   it("stores a hash in the place of the query when asked to", function()
      connect()
      server:apply({ ["ruvector.trajectory_anonymize"] = "on" }, db)
      learning.create_table(db, "private_items", 200)
      local stats = learning.teach(db, "private_items")
      assert.is_true(stats.patterns > 0)
      local rows = db:row([[SELECT count(*) AS all, count(query) AS queries,
         count(query_hash) AS hashes FROM ruvector_trajectory_log
         WHERE table_id = 'private_items'::regclass]])
      assert.is_true(rows.all > 0)
      assert.equal(0, rows.queries)
      assert.equal(rows.all, rows.hashes)
      assert.equal(0, db:value([[SELECT count(*) FROM ruvector_memory
         WHERE table_id = 'private_items'::regclass]]))
      server:apply({ ["ruvector.trajectory_anonymize"] = "off" }, db)
   end)

   it("honours partial and expression indexes", function()
      learning.create_table(db, "parted", 600)
      db:exec([[DROP INDEX parted_embedding;
         CREATE FUNCTION shrunk(ruvector) RETURNS ruvector LANGUAGE sql IMMUTABLE
            AS 'SELECT public.subvector($1, 1, 8)::public.ruvector';
         CREATE INDEX parted_part ON parted USING ruhnsw ((shrunk(embedding)::ruvector(8)) ruvector_l2_ops)
            WHERE id % 2 = 0]])
      db:exec("SELECT ruvector_enable_learning('parted', min_samples => 20)")
      db:exec("SET enable_seqscan = off")
      for _, query in ipairs(learning.queries(60, 3)) do
         db:exec([[SELECT id FROM parted WHERE id % 2 = 0
            ORDER BY shrunk(embedding)::ruvector(8) <-> shrunk($1::ruvector)::ruvector(8) LIMIT 10]], query)
      end
      db:exec("RESET enable_seqscan")
      local stats = learning.wait_learned(db, "parted", 60)
      assert.is_true(stats.mean_recall > 0.5, "recall " .. tostring(stats.mean_recall))
   end)

   -- Stands the worker at the points, in their order; the function comes after it stands at the first.
   local function while_it_reads(points, meanwhile)
      local holds = {}
      for i, point in ipairs(points) do holds[i] = pause.hold(server, point) end
      server:apply({ ["ruvector.debug_pause_points"] = table.concat(points, ",") }, db)
      db:exec("CREATE TABLE noticed (id int); DROP TABLE noticed") -- a change of relations: it looks
      local pid = learning.stats(db, "parted").worker_pid
      local function wait_at(i)
         clock.wait_until("the worker to stand at " .. points[i], LIMIT, function()
            return holds[i]:holds(pid)
         end)
      end
      wait_at(1)
      meanwhile(function() -- on to the second
         holds[1]:release()
         wait_at(2)
      end)
      server:apply({ ["ruvector.debug_pause_points"] = "" }, db)
      for _, hold in ipairs(holds) do hold:release() end
      assert.equal(pid, learning.stats(db, "parted").worker_pid)
   end

   it("adopts recorded queries when its index is made again while the worker tidies its tables", function()
      local log = "FROM ruvector_trajectory_log WHERE table_id = 'again'::regclass"
      learning.teach(db, "again")
      learning.wait_adaptive(db, "again", tests[1])
      local recorded = db:value("SELECT count(*) " .. log)
      while_it_reads({ "ruvector-tidy-adopted" }, function()
         db:exec([[SET ruvector.trajectory_sample_rate = 0; BEGIN; DROP INDEX again_embedding;
            CREATE INDEX again_embedding ON again USING ruhnsw (embedding ruvector_l2_ops); COMMIT]])
      end)
      learning.wait_adaptive(db, "again", tests[1])
      assert.equal(recorded, db:value("SELECT count(*) " .. log))
      assert.equal(1, db:value("SELECT count(DISTINCT index_oid) " .. log))
      db:exec("RESET ruvector.trajectory_sample_rate")
   end)

   it("records searches at once also when it is enabled while the worker reads its configuration", function()
      while_it_reads({ "ruvector-tidy-adopted", "ruvector-configuration-read" }, function(go_on)
         learning.create_table(db, "late", 200)
         db:exec("SELECT ruvector_enable_learning('late', min_samples => 20)")
         go_on()
         learning.search(db, "late", learning.queries(30, 6))
      end)
      learning.wait_stats(db, "late", "all searches", function(stats) return stats.trajectories == 30 end)
   end)
end)
