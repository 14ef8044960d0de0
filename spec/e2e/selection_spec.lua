-- Two indexes on one column: the planner takes the one that learned costs make the cheaper.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

describe("a column with a graph and lists", function()
   local server, db, directory
   local query = learning.queries(1, 3)[1]

   -- A selection policy by its body; nil for the shipped one.
   local function set_policy(body)
      local file = assert(io.open(directory .. "/selection.lua", "w"))
      if body then
         file:write("return { name = 'spec', version = '1', describe = 'of a spec', defaults = {},\n",
            "predict = function(features) ", body, " end }\n")
      else
         local shipped = assert(io.open("policies/selection.lua"))
         file:write(shipped:read("*a"))
         shipped:close()
      end
      file:close()
      db:exec("SELECT ruvector_reload_policies()")
   end

   -- The index of the plan of a search.
   local function planned(limit, condition)
      local lines = db:exec(("EXPLAIN (COSTS off) SELECT id FROM items %s ORDER BY embedding <-> '%s' " ..
         "LIMIT %d"):format(condition or "", query, limit or 10))
      for _, line in ipairs(lines) do
         local index = line[1]:match("Index Scan using (%S+) on items")
         if index then return index end
      end
      return nil
   end

   local function explained(k, selectivity)
      local rows = {}
      for _, row in ipairs(db:exec("SELECT * FROM ruvector_explain_selection('items', $1, $2)", k or 10,
         selectivity or 1)) do
         rows[row.method] = row
      end
      return rows
   end

   -- Searches by one of the two.
   local function search_by(index, count, seed)
      set_policy(index == "graph" and "return { hnsw = 1, ivfflat = 100 }"
         or "return { hnsw = 100, ivfflat = 1 }")
      assert.equal(index, planned())
      learning.search(db, "items", learning.queries(count, seed))
      assert.equal(index, db:value("SELECT index::text FROM ruvector_last_search()"))
   end

   setup(function()
      server = cluster.new { preload = true, settings = learning.SETTINGS }
      directory = server.directory .. "/policies"
      assert(os.execute(("mkdir -p '%s' && cp policies/*.lua '%s' && chmod -R a+rX '%s'")
         :format(directory, directory, directory)) == 0)
      server:configure { ["ruvector.policy_directory"] = directory }
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
      db:exec("ALTER INDEX items_embedding RENAME TO graph")
      db:exec("CREATE INDEX lists ON items USING ruivfflat (embedding ruvector_l2_ops) WITH (lists = 30)")
      db:exec("ANALYZE items")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("is searched by either, as the policy says", function()
      set_policy("return { hnsw = 1, ivfflat = 3 }")
      assert.equal("graph", planned())
      set_policy("return { hnsw = 3, ivfflat = 1 }")
      assert.equal("lists", planned())
      set_policy(nil)
   end)

   it("is searched by the planner's estimate where the choice is switched off", function()
      db:exec("SET ruvector.index_selection = off")
      set_policy("return { hnsw = 1, ivfflat = 3 }")
      local one = planned()
      set_policy("return { hnsw = 3, ivfflat = 1 }")
      assert.equal(one, planned())
      assert.matches("is off", explained().ruhnsw.reason, 1, true)
      db:exec("RESET ruvector.index_selection")
      set_policy(nil)
   end)

   it("tells the policy how many rows the index has to give", function()
      set_policy("return { hnsw = features.k < 50 and 1 or 9, ivfflat = 3 }")
      assert.equal("graph", planned(10))
      assert.equal("lists", planned(100))
      db:exec("SET enable_seqscan = off")
      assert.equal("lists", planned(10, "WHERE id % 17 = 3"), "a condition that leaves few rows")
      db:exec("RESET enable_seqscan")
      assert.is_true(explained(10).ruhnsw.preferred)
      assert.is_true(explained(10, 0.01).ruivfflat.preferred)
      assert.is_true(explained(100).ruivfflat.preferred)
      set_policy(nil)
   end)

   it("does without a policy that fails", function()
      set_policy("error('no')")
      assert.is_truthy(planned())
      assert.is_true(db:value("SELECT failures FROM ruvector_policies() WHERE kind = 'selection'") > 0)
      set_policy(nil)
   end)

   it("follows what searches took, and the recall they got", function()
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 1000)")
      local before = explained()
      assert.equal(0, before.ruhnsw.searches)
      assert.is_nil(before.ruhnsw.latency_us)
      -- Lists of a single probe are fast and find little; all of them find everything.
      db:exec("SET ruvector.ef_search = 200; SET ruvector.probes = 1")
      search_by("graph", 60, 5)
      search_by("lists", 60, 6)
      set_policy(nil)
      local costs = clock.wait_until("the searches to be measured and checked", learning.LIMIT, function()
         local now = explained()
         local seen = ("%s, %s"):format(tostring(now.ruhnsw.recall), tostring(now.ruivfflat.recall))
         return now.ruhnsw.searches >= 60 and now.ruivfflat.searches >= 60 and now.ruhnsw.recall and
            now.ruivfflat.recall and now, seen
      end)
      assert.is_true(costs.ruhnsw.latency_us > 0 and costs.ruivfflat.latency_us > 0)
      assert.is_true(costs.ruhnsw.distances > costs.ruivfflat.distances)
      assert.is_true(costs.ruhnsw.recall > 0.95)
      assert.is_true(costs.ruivfflat.recall < 0.7)
      assert.is_true(costs.ruhnsw.preferred)
      assert.equal("graph", planned())
      -- Asked for little recall, the cheaper one is enough.
      db:exec("SET ruvector.target_recall = 0.5; SET ruvector.probes = 1")
      local modest = explained()
      local by_time = modest.ruhnsw.latency_us <= modest.ruivfflat.latency_us * 1.3 ^
         (math.max(0.5 - modest.ruivfflat.recall, 0) / 0.01)
      assert.equal(by_time, modest.ruhnsw.preferred)
      assert.equal(by_time and "graph" or "lists", planned())
      db:exec("RESET ruvector.target_recall; RESET ruvector.probes; RESET ruvector.ef_search")
   end)

   it("keeps its costs over a restart", function()
      -- Of the last round; what came after it is not stored. The fourth is of 8 to 15 rows.
      local stored = db:exec([[SELECT a.amname AS method, s.cost_searches[4] AS searches,
            s.cost_latency_us[4] AS latency_us, s.cost_distances[4] AS distances
         FROM ruvector_index_state s JOIN pg_class c ON c.oid = s.index_oid JOIN pg_am a ON a.oid = c.relam]])
      local before = explained()
      server:restart()
      db = server:connect()
      clock.wait_until("the costs to be there again", learning.LIMIT, function()
         for _, row in pairs(explained()) do
            if not row.recall or (row.searches or 0) == 0 then return false end
         end
         return true
      end)
      local after = explained()
      assert.equal(2, #stored)
      for _, row in ipairs(stored) do
         local now = after[row.method]
         assert.is_true(row.searches > 0)
         assert.equal(row.searches, now.searches)
         assert.near(row.latency_us, now.latency_us, 0.01)
         assert.near(row.distances, now.distances, 0.01)
         assert.equal(before[row.method].recall, now.recall)
      end
   end)

   it("forgets the costs of an index that was rebuilt", function()
      db:exec("REINDEX INDEX lists")
      clock.wait_until("the costs to be forgotten", learning.LIMIT, function()
         local searches = explained().ruivfflat.searches
         return searches == 0, tostring(searches)
      end)
   end)

   it("is not confused by indexes that order by something else", function()
      db:exec("DROP INDEX lists")
      db:exec("CREATE INDEX lists ON items USING ruivfflat (embedding ruvector_cosine_ops) WITH (lists = 30)")
      set_policy("return { hnsw = 3, ivfflat = 1 }")
      assert.equal("graph", planned())
      assert.same({}, explained())
      set_policy(nil)
   end)
end)
