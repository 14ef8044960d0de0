-- A table with a ruivfflat index learns as one with a graph does: how far to go through the lists.

local cluster = require("ruvector.cluster")
local learning = require("support.learning")

describe("a table with a ruivfflat index that learns", function()
   local server, db, truth
   local tests = learning.queries(200, 4711)

   -- Searches that teach nothing; of the tests, or of other queries with their truth.
   local function measure(settings, queries, known)
      db:exec("SET ruvector.trajectory_sample_rate = 0; " .. settings)
      local found = learning.search(db, "lists", queries or tests)
      db:exec("RESET ALL")
      return learning.recall(found, known or truth), learning.distances(found), found
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "lists", 6000,
         "ruivfflat (embedding ruvector_l2_ops) WITH (lists = 60, storage = fixed32)")
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
      -- So many, on both sides, that a recall is off by 0.03 in one of some ten thousand runs: a third of the
      -- first are sampled, and the standard deviation of one query's recall is 0.15.
      learning.search(db, "lists", learning.queries(1500))
      assert.equal(0, learning.wait_learned(db, "lists", 1500).failures)
      local unseen = learning.queries(1000, 4712)
      local known = learning.truth(db, "lists", unseen)
      local former = 0
      for _, target in ipairs { 0.8, 0.9, 0.97 } do
         local recall, distances, found = measure("SET ruvector.target_recall = " .. target, unseen, known)
         assert.equal("adaptive", found[1].mode)
         assert.equal("learned", found[1].reason)
         assert.is_true(recall > target - 0.03, ("recall %.3f at a target of %.2f"):format(recall, target))
         assert.is_true(distances > former)
         former = distances
      end
   end)

   it("does little more work than the same lists for every search where nothing can be gained", function()
      -- The clusters of these data are all alike, so that the best number of lists is nearly the same for
      -- every query: knowing more cannot pay for the distances to what was learned. Enough queries
      -- that the recall of neither is off by much, and the static work at exactly the recall of the learned
      -- one: between two numbers of lists.
      local many = learning.queries(1000, 4712)
      local known = learning.truth(db, "lists", many)
      local recall, distances = measure("SET ruvector.target_recall = 0.9", many, known)
      local probes, before, after = 0, { recall = 0, distances = 0 }, { recall = 0, distances = 0 }
      while after.recall < recall do
         probes, before = probes + 1, after
         local reached, work =
            measure("SET ruvector.adaptive_search = off; SET ruvector.probes = " .. probes, many, known)
         after = { recall = reached, distances = work }
      end
      local share = (recall - before.recall) / (after.recall - before.recall)
      local static = before.distances + share * (after.distances - before.distances)
      assert.is_true(distances < 1.03 * static, ("%.0f distances against %.0f"):format(distances, static))
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
