-- ruvector_analyze_patterns: its figures against those computed from the recorded searches by other
-- means, and drift against queries that were moved on purpose.

local cluster = require("ruvector.cluster")
local learning = require("support.learning")

describe("the analysis of recent searches", function()
   local server, db

   local function analysis() return db:row("SELECT * FROM ruvector_analyze_patterns('items')") end

   -- Nearest-rank quantile, written out.
   local function quantile(values, q)
      table.sort(values)
      return values[math.max(1, math.ceil(q * #values))]
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("has nothing to say before anything was recorded", function()
      local row = analysis()
      assert.equal(0, row.searches)
      for _, name in ipairs { "since", "k_values", "latency_p50_us", "mean_recall", "hard_share", "drift" } do
         assert.is_nil(row[name], name)
      end
   end)

   it("agrees with the recorded searches", function()
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 200)")
      -- The first 200 are all looked at, later ones in part: what must be seen comes first.
      for _ = 1, 40 do learning.search(db, "items", learning.queries(1)) end
      learning.search(db, "items", learning.queries(20, 5), 3)
      learning.search(db, "items", learning.queries(300))
      learning.wait_learned(db, "items", 360)
      local rows = db:exec("SELECT * FROM ruvector_trajectories")
      local seen, repeated, latencies, distances, needed, by_k, recall = {}, 0, {}, {}, {}, {}, 0
      for i, row in ipairs(rows) do
         if seen[row.query] then repeated = repeated + 1 end
         seen[row.query] = true
         latencies[i], distances[i] = row.latency_us, row.distances
         needed[#needed + 1] = row.needed_distances
         by_k[row.k] = (by_k[row.k] or 0) + 1
         recall = recall + row.recall
      end
      local hard = #rows - #needed
      local limit = 3 * quantile(needed, 0.5)
      for _, value in ipairs(needed) do
         if value > limit then hard = hard + 1 end
      end
      local found = analysis()
      assert.equal(#rows, found.searches)
      assert.near(recall / #rows, found.mean_recall, 1e-6)
      assert.is_true(found.recall_low < found.mean_recall and found.mean_recall < found.recall_high)
      assert.equal(1, found.exact_share)
      assert.is_true(repeated > 0)
      assert.near(repeated / #rows, found.repeated_share, 1e-9)
      assert.is_true(hard > 0 and hard < #rows)
      assert.near(hard / #rows, found.hard_share, 1e-9)
      assert.equal(("{10,3} {%d,%d}"):format(by_k[10], by_k[3]), found.k_values .. " " .. found.k_searches)
      for name, q in pairs { p50 = 0.5, p95 = 0.95, p99 = 0.99 } do
         assert.near(quantile(latencies, q), found["latency_" .. name .. "_us"], 1e-3)
         assert.equal(quantile(distances, q), found["distances_" .. name])
      end
      assert.equal(db:value("SELECT min(searched_at) FROM ruvector_trajectories"), found.since)
      assert.equal(db:value("SELECT max(searched_at) FROM ruvector_trajectories"), found["until"])
   end)

   it("sees queries move away from what was learned", function()
      assert.is_true(db:value("SELECT count(centroid) FROM ruvector_patterns") > 0)
      local calm = analysis().drift
      assert.is_true(calm >= 0 and calm < 0.15, tostring(calm))
      -- The newest quarter asks for something ten times as far out.
      db:exec [[BEGIN; UPDATE ruvector_trajectory_log SET query = array_fill(10::real, ARRAY[32])::ruvector
         WHERE searched_at >= (SELECT percentile_disc(0.7) WITHIN GROUP (ORDER BY searched_at)
            FROM ruvector_trajectory_log)]]
      local moved = analysis().drift
      db:exec("ROLLBACK")
      assert.is_true(moved > 0.9 and moved < 1, tostring(moved))
      assert.equal(calm, analysis().drift)
   end)

   it("knows repeated queries by their hashes, and no drift, where queries are not kept", function()
      db:exec [[BEGIN; UPDATE ruvector_trajectory_log SET query = NULL,
         query_hash = sha256(ruvector_send(query))]]
      local repeated = analysis().repeated_share
      local drift = analysis().drift
      db:exec("UPDATE ruvector_trajectory_log SET query_hash = NULL")
      local unknown = analysis().repeated_share
      db:exec("ROLLBACK")
      assert.equal(analysis().repeated_share, repeated)
      assert.is_nil(drift)
      assert.is_nil(unknown)
   end)
end)
