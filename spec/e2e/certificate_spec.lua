-- The life of a recall certificate: not yet, certified, stale after a rebuild, below its target.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

describe("a recall certificate", function()
   local server, db
   local seed = 1000

   setup(function()
      server = cluster.new { preload = true, settings = learning.SETTINGS }
      server:configure { ["ruvector.policy_directory"] = server.directory .. "/policies" }
      local directory = server.directory .. "/policies"
      assert(os.execute(("mkdir -p '%s' && cp policies/*.lua '%s' && chmod -R a+rX '%s'")
         :format(directory, directory, directory)) == 0)
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   local function certificate(where)
      return db:exec("SELECT * FROM ruvector_recall_certificate('items_embedding')" .. (where or ""))
   end

   -- New queries of the table's distribution, and the wait until they are judged.
   local function search(count)
      seed = seed + 1
      local before = learning.stats(db, "items").trajectories
      local found = learning.search(db, "items", learning.queries(count, seed))
      learning.wait_stats(db, "items", "the searches to be judged", function(stats)
         return stats.trajectories >= before + count and stats.pending == 0
      end)
      return found
   end

   -- Searches until the row of 10 rows has such a verdict; the row.
   local function search_until(pattern)
      return clock.wait_until("the verdict " .. pattern, learning.LIMIT, function()
         search(300)
         local row = certificate(" WHERE k = 10 AND verdict NOT LIKE 'stale%'")[1]
         return row and row.verdict:match(pattern) and row, row and row.verdict or "no checks"
      end)
   end

   local function times_logged(text)
      local count, from = 0, 1
      local log = server:log()
      while true do
         local _, last = log:find(text, from, true)
         if not last then return count end
         count, from = count + 1, last + 1
      end
   end

   it("needs learning to be enabled", function()
      local err = db:fails("SELECT * FROM ruvector_recall_certificate('items_embedding')")
      assert.equal("55000", err.sqlstate)
      assert.equal('learning is not enabled for "items"', err.message)
   end)

   it("is not given without checks, and static searches are none", function()
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 1000)")
      search(100)
      local rows = certificate()
      assert.equal(1, #rows)
      assert.equal(0, rows[1].queries)
      assert.near(0.95, rows[1].target_recall, 1e-9)
      assert.is_nil(rows[1].k)
      assert.is_nil(rows[1].mean_recall)
      assert.matches("^not yet: %d+ more checks$", rows[1].verdict)
   end)

   it("is not given after a few checks", function()
      learning.teach(db, "items")
      learning.wait_adaptive(db, "items", learning.queries(1, 3)[1])
      search(60)
      local row = certificate()[1]
      assert.equal(10, row.k)
      assert.is_true(row.queries > 0 and row.queries < 460, tostring(row.queries))
      assert.matches("^not yet: %d+ more checks$", row.verdict)
      assert.is_true(row.recall_low <= row.mean_recall and row.mean_recall <= row.recall_high)
      assert.is_true(row.share_low < row.share_at_target and row.share_at_target <= 1)
      assert.is_true(row.since <= row["until"])
   end)

   it("is given once enough searches were checked", function()
      local row = search_until("^certified$")
      assert.is_true(row.recall_low >= 0.94)
      assert.is_true(row.queries >= 100)
      assert.equal(0, times_logged("is below its target"))
   end)

   it("agrees with the searches themselves", function()
      db:exec("SELECT ruvector_clear_learning('items')")
      learning.teach(db, "items", { min_samples = 60 })
      learning.wait_adaptive(db, "items", learning.queries(1, 3)[1])
      -- Every search of these, which the draw takes 3 in 10 of: within the standard error of a draw.
      seed = 5000
      local found = search(1000)
      local recall = learning.recall(found, learning.truth(db, "items", learning.queries(1000, seed)))
      local row = certificate(" WHERE k = 10")[1]
      assert.is_true(row.queries > 200)
      assert.near(recall, row.mean_recall, 0.02)
   end)

   it("has a row for each target and number of rows", function()
      db:exec("SET ruvector.target_recall = 0.9")
      learning.search(db, "items", learning.queries(100, 8), 5)
      search(1)
      db:exec("RESET ruvector.target_recall")
      local rows = certificate(" WHERE target_recall = 0.9 AND k = 5")
      assert.equal(1, #rows)
      assert.is_true(rows[1].queries > 0)
   end)

   it("survives a restart", function()
      local before = certificate()
      server:restart()
      db = server:connect()
      assert.same(before, certificate())
   end)

   it("is stale when the index was rebuilt, until searches of the new build were checked", function()
      db:exec("REINDEX INDEX items_embedding")
      for _, row in ipairs(certificate(" WHERE queries > 0")) do
         assert.equal("stale: index rebuilt", row.verdict)
      end
      assert.matches("^not yet", certificate(" WHERE queries = 0")[1].verdict)
      learning.wait_learned(db, "items")
      learning.wait_adaptive(db, "items", learning.queries(1, 3)[1])
      local row = search_until("^not yet")
      assert.is_true(row.queries < 300)
   end)

   it("raises effort at once, and says so once, when recall falls below its target", function()
      local query = learning.queries(1, 3)[1]
      local function slack()
         return db:value("SELECT slack FROM ruvector_get_search_params('items_embedding', $1::ruvector)",
            query)
      end
      local function widened()
         return db:value("SELECT active FROM ruvector_learning_levers('items') WHERE lever = 'guard'")
      end
      -- A build that is new may have been doubted already, until enough searches were learned from.
      clock.wait_until("nothing to be in doubt", learning.LIMIT, function()
         if not widened() then return true end
         search(50)
         return false
      end)
      local complained = times_logged("is below its target")
      local widened_before = times_logged("take more effort for now: recall below target")
      local file = assert(io.open(server.directory .. "/policies/interpolation.lua", "w"))
      file:write("return { name = 'careless', version = '1', describe = 'no effort', defaults = {},\n" ..
         "interpolate = function() return { slack = 0, ef_search = 10, probes = 1 } end }\n")
      file:close()
      db:exec("SELECT ruvector_reload_policies()")
      assert.equal(0, slack())
      local row = search_until("^below target$")
      assert.is_true(row.recall_high < 0.95, tostring(row.recall_high))
      assert.is_true(slack() > 0)
      -- Taken back, maybe, by now: what was learned later counts.
      assert.is_true(times_logged("take more effort for now: recall below target") > widened_before)
      search(300)
      assert.equal(complained + 1, times_logged('the recall of index "items_embedding" is below its target'))
   end)

   it("goes with what was learned", function()
      db:exec("SELECT ruvector_disable_learning('items', forget => true)")
      assert.equal(0, db:value("SELECT count(*) FROM ruvector_recall_checks"))
   end)
end)
