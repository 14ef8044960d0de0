-- ruvector_auto_tune(): it measures truly, sets what it says, and works with and without learning.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

local METHODS = {
   ruhnsw = { index = "ruhnsw (embedding ruvector_l2_ops)", parameter = "ef_search" },
   ruivfflat = { index = "ruivfflat (embedding ruvector_l2_ops) WITH (lists = 40)", parameter = "probes" },
}

describe("tuning an index", function()
   local server, db

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   local function tune(name, goal, queries)
      local curve = db:exec("SELECT * FROM ruvector_auto_tune($1::regclass, $2, $3)", name .. "_embedding",
         goal, queries or 200)
      local chosen
      for _, point in ipairs(curve) do
         if point.chosen then
            assert.is_nil(chosen, "one point is chosen")
            chosen = point
         end
      end
      return chosen, curve
   end

   local function options(name)
      return db:value("SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE relname = $1",
         name .. "_embedding")
   end

   -- Recall and distances of static searches of the recorded queries, by the executor.
   local function served(name, queries)
      db:exec("SET ruvector.adaptive_search = off; SET ruvector.trajectory_sample_rate = 0")
      local found = learning.search(db, name, queries)
      local recall = learning.recall(found, learning.truth(db, name, queries))
      db:exec("RESET ruvector.adaptive_search; RESET ruvector.trajectory_sample_rate")
      return recall, learning.distances(found)
   end

   for method, spec in pairs(METHODS) do
      describe("of " .. method, function()
         local queries = learning.queries(150, 21)

         setup(function()
            learning.create_table(db, method, nil, spec.index)
         end)

         it("takes rows where no searches were recorded, and says so", function()
            db:exec("SET log_min_messages = notice")
            local chosen, curve = tune(method, "balanced")
            db:exec("RESET log_min_messages")
            assert.matches(('index "%s_embedding" was tuned with rows of the table'):format(method),
               server:log(), 1, true)
            assert.equal("rows", chosen.measured_with)
            assert.equal(200, chosen.queries)
            assert.equal(spec.parameter, chosen.parameter)
            assert.is_true(#curve > 3)
            for i = 2, #curve do
               assert.is_true(curve[i].value > curve[i - 1].value)
               assert.is_true(curve[i].distances >= curve[i - 1].distances)
               assert.is_true(curve[i].recall >= curve[i - 1].recall - 0.01)
            end
            assert.is_true(curve[#curve].recall > 0.99)
            assert.is_true(curve[1].recall < 0.97, "nothing to tune: " .. curve[1].recall)
         end)

         it("takes recorded searches where they are, and measures what the executor does", function()
            db:exec("SELECT ruvector_enable_learning($1::regclass, min_samples => 1000)", method)
            learning.search(db, method, queries)
            learning.wait_stats(db, method, "the searches to be judged", function(stats)
               return stats.judged >= #queries and stats.pending == 0
            end)
            local chosen = tune(method, "balanced", 1000)
            assert.equal("recorded searches", chosen.measured_with)
            assert.equal(#queries, chosen.queries)
            local recall, distances = served(method, queries)
            assert.near(recall, chosen.recall, 1e-3)
            assert.near(1, distances / chosen.distances, 0.02)
         end)

         it("sets what it chose, for each goal, in order of effort", function()
            local fast, even, sure = tune(method, "latency"), tune(method, "balanced"), tune(method, "recall")
            assert.is_true(fast.value <= even.value and even.value <= sure.value)
            assert.is_true(fast.recall >= 0.9 and sure.recall >= 0.99)
            local text = options(method)
            assert.matches(spec.parameter .. "=" .. sure.value, text, 1, true)
            assert.matches("target_recall=" .. ("%g"):format(sure.target_recall), text, 1, true)
            local plan = db:row("SELECT * FROM ruvector_get_search_params($1::regclass, $2::ruvector)",
               method .. "_embedding", queries[1])
            assert.equal(sure.value, plan[spec.parameter])
            assert.near(sure.target_recall, plan.target_recall, 1e-9)
         end)

         it("knows a row that was updated in place as the same", function()
            local name = method .. "_updated"
            learning.create_table(db, name, 600, spec.index)
            db:exec(("ALTER TABLE %s ADD note int, SET (fillfactor = 40)"):format(name))
            db:exec("VACUUM FULL " .. name)
            local _, before = tune(name, "balanced", 600)
            db:exec(("UPDATE %s SET note = id"):format(name))
            clock.wait_until("the updates to be counted", learning.LIMIT, function()
               return 600 == db:value("SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1",
                  name)
            end)
            local _, after = tune(name, "balanced", 600)
            assert.equal(#before, #after)
            for i, point in ipairs(before) do
               assert.equal(point.value, after[i].value)
               assert.near(point.recall, after[i].recall, 1e-6)
            end
         end)

         it("leaves no searches behind", function()
            local before = learning.stats(db, method).trajectories
            tune(method, "balanced")
            assert.equal(before, learning.stats(db, method).trajectories)
         end)

         it("can be undone, down to where it began", function()
            for _ = 1, 6 do
               db:exec("SELECT ruvector_auto_tune_undo($1::regclass)", method .. "_embedding")
            end
            local err = db:fails("SELECT ruvector_auto_tune_undo($1::regclass)", method .. "_embedding")
            assert.equal("55000", err.sqlstate)
            assert.is_nil((options(method) or ""):match(spec.parameter .. "="))
            assert.is_nil((options(method) or ""):match("target_recall"))
         end)

         it("can be cancelled", function()
            local other = server:connect()
            local pid = other:backend_pid()
            other:exec("SET statement_timeout = '1ms'")
            local err = other:fails("SELECT * FROM ruvector_auto_tune($1::regclass, 'recall', 3000)",
               method .. "_embedding")
            assert.equal("57014", err.sqlstate)
            assert.equal(pid, other:backend_pid())
            assert.is_nil((options(method) or ""):match("target_recall"))
         end)
      end)
   end

   it("reaches the tuned recall when searches are adaptive", function()
      learning.teach(db, "items")
      local chosen = tune("items", "recall")
      learning.wait_adaptive(db, "items", learning.queries(1, 3)[1])
      local tests = learning.queries(200, 4711)
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      local recall = learning.recall(learning.search(db, "items", tests),
         learning.truth(db, "items", tests))
      assert.is_true(recall > chosen.target_recall - 0.03, ("%g of %g"):format(recall, chosen.target_recall))
      assert.is_true(recall > 0.96, "the index's own target holds: " .. recall)
   end)
end)

describe("tuning without shared_preload_libraries", function()
   it("sets the static effort and says what has no effect", function()
      cluster.with({ preload = false }, function(server)
         local db = server:connect()
         db:exec("CREATE EXTENSION ruvector")
         learning.create_table(db, "items", 1000)
         db:exec("SET client_min_messages = notice; SET log_min_messages = notice")
         local chosen = db:row("SELECT * FROM ruvector_auto_tune('items_embedding') WHERE chosen")
         assert.equal("rows", chosen.measured_with)
         assert.matches("only the static effort has an effect", server:log(), 1, true)
         learning.search(db, "items", learning.queries(1, 3))
         assert.equal(chosen.value, db:value("SELECT ef_search FROM ruvector_last_search()"))
      end)
   end)
end)
