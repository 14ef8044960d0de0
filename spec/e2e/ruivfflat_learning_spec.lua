-- A table with a ruivfflat index learns as one with a graph does: how far to go through the lists.

local cluster = require("ruvector.cluster")
local learning = require("support.learning")

describe("a table with a ruivfflat index that learns", function()
   local server, db, truth
   local tests = learning.queries(200, 4711)

   -- Searches that teach nothing.
   local function measure(settings)
      db:exec("SET ruvector.trajectory_sample_rate = 0; " .. settings)
      local found = learning.search(db, "lists", tests)
      db:exec("RESET ALL")
      return learning.recall(found, truth), learning.distances(found), found
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "lists", 6000,
         "ruivfflat (embedding ruvector_l2_ops) WITH (lists = 60, storage = int8)")
      truth = learning.truth(db, "lists", tests)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("records its searches and measures their recall", function()
      db:exec("SET ruvector.probes = 3")
      db:exec("SELECT ruvector_enable_learning('lists', min_samples => 1000)")
      local recall = learning.recall(learning.search(db, "lists", tests), truth)
      assert.is_true(recall < 0.9, "the data is too easy for this test")
      local stats = learning.wait_stats(db, "lists", "the searches to be judged", function(stats)
         return stats.trajectories == #tests and stats.pending == 0
      end)
      assert.near(recall, stats.mean_recall, 1e-4)
      db:exec("RESET ALL")
      db:exec("SELECT ruvector_clear_learning('lists')")
   end)

   it("reaches the declared recall on queries that it has not seen", function()
      db:exec("SELECT ruvector_enable_learning('lists', min_samples => 50)")
      learning.search(db, "lists", learning.queries(learning.QUERIES))
      learning.wait_learned(db, "lists", learning.QUERIES)
      local former = 0
      for _, target in ipairs { 0.8, 0.9, 0.97 } do
         local recall, distances, found = measure("SET ruvector.target_recall = " .. target)
         assert.equal("adaptive", found[1].mode)
         assert.equal("learned", found[1].reason)
         assert.is_true(recall > target - 0.03, ("recall %.3f at a target of %.2f"):format(recall, target))
         assert.is_true(distances > former)
         former = distances
      end
   end)

   it("does no more work for it than the same number of lists for every search", function()
      local recall, distances = measure("SET ruvector.target_recall = 0.9")
      local probes, static_recall, static_distances = 0, 0, 0
      while static_recall < recall do
         probes = probes + 1
         static_recall, static_distances =
            measure("SET ruvector.adaptive_search = off; SET ruvector.probes = " .. probes)
      end
      assert.is_true(distances < 1.1 * static_distances,
         ("%.0f distances against %.0f"):format(distances, static_distances))
   end)

   it("searches statically when it is told to, and after a rebuild", function()
      local _, _, found = measure("SET ruvector.adaptive_search = off")
      assert.equal("static", found[1].mode)
      db:exec("ALTER INDEX lists_embedding SET (adaptive_search = off)")
      _, _, found = measure("")
      assert.equal("the index's adaptive_search is off", found[1].reason)
      db:exec("ALTER INDEX lists_embedding SET (adaptive_search = on)")
      db:exec("REINDEX INDEX lists_embedding")
      local first = learning.search(db, "lists", { tests[1] })[1]
      assert.equal("the index was rebuilt since", first.reason)
   end)
end)
