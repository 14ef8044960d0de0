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

   local function explained(k, selectivity, session)
      local rows = {}
      for _, row in ipairs((session or db):exec("SELECT * FROM ruvector_explain_selection('items', $1, $2)",
         k or 10, selectivity or 1)) do
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

   -- The costs of searches for 8 to 15 rows (the fourth group) as they were stored after the last round.
   local function stored()
      return db:exec([[SELECT a.amname AS method, s.cost_searches[4] AS searches,
            s.cost_latency_us[4] AS latency_us, s.cost_distances[4] AS distances
         FROM ruvector_index_state s JOIN pg_class c ON c.oid = s.index_oid JOIN pg_am a ON a.oid = c.relam]])
   end

   -- Waits until a session's server has the stored costs of both indexes. Returns what it says of them.
   local function wait_for_costs(session, costs)
      return clock.wait_until("the costs to be there", learning.LIMIT, function()
         local now = explained(nil, nil, session)
         for _, row in ipairs(costs) do
            if not now[row.method].recall or now[row.method].searches ~= row.searches then
               return false, ("%s of %s searches"):format(tostring(now[row.method].searches), row.searches)
            end
         end
         return now
      end)
   end

   local function assert_costs(costs, now)
      assert.equal(2, #costs)
      for _, row in ipairs(costs) do
         assert.is_true(row.searches > 0)
         assert.near(row.latency_us, now[row.method].latency_us, 0.01)
         assert.near(row.distances, now[row.method].distances, 0.01)
      end
   end

   local function assert_recalls(before, now)
      assert.equal(before.ruhnsw.recall, now.ruhnsw.recall)
      assert.equal(before.ruivfflat.recall, now.ruivfflat.recall)
   end

   it("keeps its costs over a restart", function()
      local costs, before = stored(), explained() -- what came after the last round is not stored
      server:restart()
      db = server:connect()
      local after = wait_for_costs(db, costs)
      assert_costs(costs, after)
      assert_recalls(before, after)
   end)

   it("has the primary's costs on a standby, also those that come later", function()
      local standby = server:start_standby { preload = true, settings = learning.SETTINGS }
      local ok, err = pcall(function()
         local replica = standby:connect()
         local costs = stored()
         local there = wait_for_costs(replica, costs)
         assert_costs(costs, there)
         assert_recalls(explained(), there)
         search_by("graph", 60, 8)
         search_by("lists", 60, 9)
         set_policy(nil)
         db:exec("SELECT ruvector_extract_patterns('items')")
         local later = stored()
         for i, row in ipairs(later) do assert.is_true(row.searches > costs[i].searches) end
         cluster.catch_up(db, replica)
         assert_costs(later, wait_for_costs(replica, later))
      end)
      standby:remove()
      assert(ok, err)
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
