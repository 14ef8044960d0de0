-- Tables on which a pass for every batch would take too long: searches of large effort stand for the
-- truth, and audits say how far these are off. The limit is set so low that every table is one of them,
-- and the graph made so thin that even such a search misses something.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")
local pause = require("support.pause")

local TARGET = 0.9
local REFERENCE_EF = 2000

describe("an audit of reference searches", function()
   local server, db
   local seed = 2000

   setup(function()
      local settings = { ["ruvector.exact_pass_limit"] = 0, ["ruvector.audit_pass_limit"] = 0,
         ["ruvector.learned_links"] = "off" }
      for name, value in pairs(learning.SETTINGS) do settings[name] = value end
      server = cluster.new { preload = true, settings = settings }
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items", 4000,
         "ruhnsw (embedding ruvector_l2_ops) WITH (m = 2, ef_construction = 4)")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   -- New queries of the table's distribution, judged and learned from; what they found and the queries.
   local function search(count)
      seed = seed + 1
      local queries = learning.queries(count, seed)
      local found = learning.search(db, "items", queries)
      db:exec("SELECT ruvector_extract_patterns('items')")
      return found, queries
   end

   local function search_until(what, condition)
      return clock.wait_until(what, learning.LIMIT, function()
         search(60)
         local stats = learning.stats(db, "items")
         return condition(stats) and stats
      end)
   end

   local function checks()
      return db:row([[SELECT * FROM ruvector_recall_certificate('items_embedding')
         WHERE verdict NOT LIKE 'stale%' ORDER BY queries DESC LIMIT 1]])
   end

   local function times_logged(text)
      local _, count = server:log():gsub(text, "")
      return count
   end

   local function stand_in_audit(hold)
      clock.wait_until("the worker to stand in an audit", learning.LIMIT, function()
         seed = seed + 1
         learning.search(db, "items", learning.queries(300, seed)) -- enough for a pass at once
         return hold:holds(learning.stats(db, "items").worker_pid)
      end)
   end

   -- Has the worker stand in an audit while something begins to wait, and then go on: the figures are what
   -- they were. No other audit follows meanwhile.
   local function ends_for(wait)
      local hold = pause.hold(server, "ruvector-audit")
      server:apply({ ["ruvector.debug_pause_points"] = "ruvector-audit" }, db)
      stand_in_audit(hold)
      server:apply({ ["ruvector.audit_pass_limit"] = 0, ["ruvector.debug_pause_points"] = "" }, db)
      local before = learning.stats(db, "items")
      local other = server:connect()
      local waits, err = pcall(wait, other)
      hold:release()
      assert(waits, err)
      other:receive()
      other:close()
      search(60) -- stores what an audit found
      local after = learning.stats(db, "items")
      server:apply({ ["ruvector.audit_pass_limit"] = 300 }, db)
      assert.equal(before.reference_recall, after.reference_recall)
      assert.equal(0, after.failures)
   end

   -- The recall that the largest effort is expected to reach.
   local function expected()
      return db:value([[SELECT max(expected_recall) FROM ruvector_learning_levers('items')
         WHERE lever = 'static']])
   end

   local expected_before

   it("does not take place when it is switched off, and then there is no certificate", function()
      db:exec("SET ruvector.target_recall = " .. TARGET)
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 50)")
      search(400)
      local stats = learning.stats(db, "items")
      assert.is_nil(stats.reference_recall)
      assert.is_nil(stats.reference_checks)
      assert.equal(0, db:value("SELECT exact_share FROM ruvector_analyze_patterns('items')"))
      assert.equal(0, checks().queries)
      expected_before = expected()
   end)

   it("measures what the reference searches miss", function()
      local session = server:connect()
      session:exec("SET ruvector.adaptive_search = off")
      session:exec("SET ruvector.ef_search = " .. REFERENCE_EF)
      session:exec("SET ruvector.trajectory_sample_rate = 0")
      local queries = learning.queries(400, 17)
      local recall = learning.recall(learning.search(session, "items", queries),
         learning.truth(session, "items", queries))
      session:close()
      assert.is_true(recall < 0.95, "the reference misses too little: " .. recall)

      server:apply({ ["ruvector.audit_pass_limit"] = 300 }, db)
      local stats = search_until("a few audits", function(now)
         return now.reference_checks and now.reference_checks >= 120
      end)
      -- four standard errors; that of one query is some 0.2
      assert.near(recall, stats.reference_recall, 0.08)
   end)

   it("gives the exact recall of each checked search for a certificate", function()
      search_until("enough checks", function() return checks().queries >= 50 end)
      assert.equal(0, db:value("SELECT exact_share FROM ruvector_analyze_patterns('items')"))
      db:exec("SET enable_indexscan = off")
      local rows = db:exec([[SELECT c.recall,
            (SELECT count(*) FROM unnest(t.result_distances) d WHERE sqrt(d) <= n.last * 1.00001) / n.found
               AS true
         FROM ruvector_recall_checks c JOIN ruvector_trajectory_log t USING (index_oid, searched_at)
         CROSS JOIN LATERAL (SELECT max(distance) AS last, count(*)::float8 AS found
            FROM (SELECT embedding <-> t.query AS distance FROM items ORDER BY 1 LIMIT 10) x) n
         WHERE c.k = 10]])
      db:exec("RESET enable_indexscan")
      assert.is_true(#rows >= 50)
      local misses = 0
      for _, row in ipairs(rows) do
         assert.near(row["true"], row.recall, 1e-6)
         misses = misses + (row.recall < 1 and 1 or 0)
      end
      assert.is_true(misses > 0)
   end)

   it("has less expected of any effort, by what the reference searches miss", function()
      server:apply({ ["ruvector.audit_pass_limit"] = 0 }, db)
      search(300) -- calibrates with what is known by now
      local recall = learning.stats(db, "items").reference_recall
      server:apply({ ["ruvector.audit_pass_limit"] = 300 }, db)
      assert.is_true(expected() < expected_before * (1 + recall) / 2)
   end)

   it("is no alarm where the reference searches themselves find less than was declared", function()
      local message = "take more effort for now: recall below target"
      server:apply({ ["ruvector.audit_pass_limit"] = 0 }, db) -- no exact checks: those may well be one
      db:exec("SET ruvector.target_recall = 0.99")
      search(60) -- served with the effort of this target from now on
      local before, judged = times_logged(message), learning.stats(db, "items").judged
      for _ = 1, 8 do search(60) end
      assert.is_true(learning.stats(db, "items").judged >= judged + 100)
      assert.equal(before, times_logged(message))
      db:exec("SET ruvector.target_recall = " .. TARGET)
      server:apply({ ["ruvector.audit_pass_limit"] = 300 }, db)
   end)

   it("survives a restart", function()
      local before = learning.stats(db, "items")
      server:restart()
      db = server:connect()
      db:exec("SET ruvector.target_recall = " .. TARGET)
      local after = learning.stats(db, "items")
      assert.equal(before.reference_recall, after.reference_recall)
      assert.equal(before.reference_checks, after.reference_checks)
   end)

   it("ends when somebody waits for a lock on the table", function()
      ends_for(function(other)
         other:send("ALTER TABLE items ALTER COLUMN id SET DEFAULT 0")
         pause.wait_blocked(db, other)
      end)
   end)

   it("ends when somebody waits for what was recorded to be learned", function()
      ends_for(function(other)
         other:send("SELECT ruvector_extract_patterns('items')")
         clock.wait_until("the call to wait", learning.LIMIT, function()
            return db:value("SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $1",
               other:backend_pid())
         end)
      end)
   end)

   it("says nothing of a new build, until that was audited", function()
      db:exec("REINDEX INDEX items_embedding")
      assert.is_nil(learning.stats(db, "items").reference_recall)
      local stats = search_until("an audit", function(now) return now.reference_recall ~= nil end)
      assert.is_true(stats.reference_recall > 0)
   end)

   it("is given up, and said to be, where it takes longer than it may, until it may take longer", function()
      local message = 'reference searches of index "items_embedding" cannot be audited'
      -- Not begun: it is known to take longer.
      server:apply({ ["ruvector.audit_pass_limit"] = "1us" }, db)
      search_until("the log to say so", function() return times_logged(message) > 0 end)
      local before = learning.stats(db, "items")
      for _ = 1, 3 do search(60) end
      assert.equal(1, times_logged(message))
      -- Ended: it should have taken less.
      local hold = pause.hold(server, "ruvector-audit")
      server:apply({ ["ruvector.audit_pass_limit"] = "300ms",
         ["ruvector.debug_pause_points"] = "ruvector-audit" }, db)
      stand_in_audit(hold)
      clock.pause(0.4)
      hold:release()
      clock.wait_until("the log to say so", learning.LIMIT, function() return times_logged(message) == 2 end)
      server:apply({ ["ruvector.debug_pause_points"] = "" }, db)
      for _ = 1, 3 do search(60) end
      local after = learning.stats(db, "items")
      assert.equal(2, times_logged(message))
      assert.equal(before.reference_recall, after.reference_recall)
      assert.is_true(after.judged > before.judged)
      assert.equal(0, after.failures)
      server:apply({ ["ruvector.audit_pass_limit"] = 300 }, db)
      search_until("an audit", function(stats) return stats.reference_recall ~= before.reference_recall end)
   end)

   it("finds a recall that is out of reach missed, once, and raises no effort for it", function()
      db:exec("SET ruvector.target_recall = 0.99")
      local raised = times_logged("take more effort for now: recall below target")
      local function missed() return times_logged("is below its target: %d%.%d+ of 0.99 for 10 rows") end
      search_until("the log to say that the target is missed", function() return missed() > 0 end)
      for _ = 1, 5 do search(60) end
      assert.equal(1, missed())
      assert.truthy(server:log():match("HINT:  No more than %d%.%d+ is in reach of the index: rebuild it"))
      assert.equal(raised, times_logged("take more effort for now: recall below target"))
   end)
end)
