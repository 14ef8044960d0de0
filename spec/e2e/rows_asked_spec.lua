-- rows_asked_spec.lua - searches for 1, 10 and 100 rows on one index: each is calibrated for its own number
-- of rows, which the statement's LIMIT tells.

local cluster = require("ruvector.cluster")
local learning = require("support.learning")

local KS, TAUGHT, TESTED, TARGET = { 1, 10, 100 }, 500, 500, 0.95

describe("searches for different numbers of rows", function()
   local server, db

   -- Searches with all of KS in turns.
   local function teach(name)
      db:exec("SET enable_seqscan = off")
      local queries, searches = learning.queries(TAUGHT * #KS, 5), {}
      for _, k in ipairs(KS) do
         searches[k] = db:prepare(("SELECT id FROM %s ORDER BY embedding <-> $1 LIMIT %d"):format(name, k))
      end
      for i, query in ipairs(queries) do searches[KS[i % #KS + 1]]:exec(query) end
      for _, k in ipairs(KS) do searches[k]:close() end
      db:exec("RESET enable_seqscan")
      learning.wait_learned(db, name, #queries)
   end

   setup(function()
      server = cluster.new { preload = true, settings = learning.SETTINGS }
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
      db:exec(("SELECT ruvector_enable_learning('items', min_samples => 50, trajectory_window => %d)"):format(
         TAUGHT * #KS))
      teach("items")
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      db:exec("SET ruvector.target_recall = " .. TARGET)
      db:exec("SET enable_seqscan = off; SET enable_sort = off")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   -- What is in use for searches for k rows.
   local function in_use(k)
      return db:row([[SELECT lever, effort, queries FROM ruvector_learning_levers('items')
         WHERE active AND k = $1 AND target_recall = $2]], k, TARGET)
   end

   -- Whether the last search did what is in use for k rows.
   local function assert_last_used(k)
      local used, last = in_use(k), db:row("SELECT * FROM ruvector_last_search()")
      assert.equal("adaptive", last.mode)
      if used.lever == "static" then
         assert.equal(0, last.slack)
         assert.equal(math.ceil(used.effort), last.ef_search)
      elseif used.lever == "slack" or last.entry_points > 0 then
         assert.near(used.effort, last.slack, 1e-6)
      else
         assert.is_true(last.slack >= used.effort - 1e-6)
      end
   end

   -- Mean recall by distance, and mean distances computed, of searches for k rows.
   local function measure(k)
      local sql = ("SELECT embedding <-> $1 AS d FROM items ORDER BY embedding <-> $1 LIMIT %d"):format(k)
      local found, total, work = 0, 0, 0
      local search, exact = db:prepare(sql), server:connect()
      exact:exec("SET enable_indexscan = off")
      local truth = exact:prepare(sql)
      for _, query in ipairs(learning.queries(TESTED, 77)) do
         local got = search:exec(query)
         work = work + db:value("SELECT distances FROM ruvector_last_search()")
         local rows = truth:exec(query)
         local last = rows[#rows].d * (1 + 1e-6)
         for _, row in ipairs(got) do
            if row.d <= last then found = found + 1 end
         end
         total = total + k
      end
      search:close()
      exact:close()
      return found / total, work / TESTED
   end

   it("have a calibration each", function()
      local slacks = {}
      for i, k in ipairs(KS) do
         local used = in_use(k)
         assert.is_truthy(used, "nothing is in use for k = " .. k)
         assert.is_true(used.queries >= 50)
         slacks[i] = db:value([[SELECT effort FROM ruvector_learning_levers('items')
            WHERE k = $1 AND target_recall = $2 AND lever = 'slack']], k, TARGET)
      end
      -- the nearer the k-th row, the farther beyond it a search must look
      assert.is_true(slacks[1] > slacks[2] and slacks[2] > slacks[3], table.concat(slacks, " "))
   end)

   it("reach the declared recall, each with its own effort", function()
      local work = {}
      for i, k in ipairs(KS) do
         local recall
         recall, work[i] = measure(k)
         -- three standard errors, of these recalls and of those that it was calibrated by
         local share = (1 / TESTED + 1 / in_use(k).queries) / math.min(k, 5)
         assert.is_true(recall >= TARGET - 3 * math.sqrt(TARGET * (1 - TARGET) * share),
            ("k = %d: recall %.4f"):format(k, recall))
      end
      assert.is_true(work[2] < work[3], table.concat(work, " "))
   end)

   it("are told apart by the LIMIT that the executor evaluates", function()
      local query = learning.queries(1, 3)[1]
      local ordered = "SELECT id FROM items ORDER BY embedding <-> $1 "
      local statements = {
         { ordered .. "LIMIT 1", 1 },
         { ordered .. "LIMIT 60 + 40", 100 },
         { ordered .. "LIMIT $2::int", 100, 100 },
         { ordered .. "LIMIT 5 OFFSET 5", 10 },
         { "SELECT count(*) FROM (" .. ordered .. "LIMIT 100) s", 100 },
         { "SELECT * FROM (" .. ordered .. "LIMIT 100) s LIMIT 1", 1 },
         { "SELECT * FROM (" .. ordered .. "LIMIT 1) s LIMIT 100", 1 },
         { ordered .. "LIMIT 1 FOR UPDATE", 1 },
         { "SELECT (" .. ordered .. "LIMIT 1)", 1 },
         { "WITH found AS MATERIALIZED (" .. ordered .. "LIMIT 100) SELECT max(id) FROM found", 100 },
      }
      for _, statement in ipairs(statements) do
         local sql, k = statement[1], statement[2]
         if statement[3] then db:exec(sql, query, statement[3]) else db:exec(sql, query) end
         local ok, err = pcall(assert_last_used, k)
         assert(ok, sql .. ": " .. tostring(err))
      end
   end)

   it("are told apart inside of functions and of each other", function()
      db:exec([[CREATE FUNCTION nearest(query ruvector) RETURNS bigint LANGUAGE plpgsql AS $$
         BEGIN RETURN (SELECT id FROM items ORDER BY embedding <-> query LIMIT 1); END $$]])
      local query = learning.queries(1, 3)[1]
      db:exec("SELECT nearest($1)", query)
      assert_last_used(1)
      db:exec("SELECT id, nearest(embedding) FROM items ORDER BY embedding <-> $1 LIMIT 100", query)
      assert_last_used(100) -- its scan ends last
      -- an error on the way leaves nothing behind
      pcall(db.exec, db, "SELECT 1 / (nearest($1) - nearest($1))", query)
      db:exec("SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 100", query)
      assert_last_used(100)
   end)

   it("take that of the most common number where nobody knows how many rows they need", function()
      local query = learning.queries(1, 3)[1]
      local common = db:value([[SELECT k FROM ruvector_learning_levers('items') WHERE lever = 'misses']])
      for _, sql in ipairs {
         "SELECT id FROM items WHERE id % 2 = 0 ORDER BY embedding <-> $1 LIMIT 1",
         "SELECT a.id FROM items a JOIN items b ON a.id = b.id + 1 ORDER BY a.embedding <-> $1 LIMIT 1",
      } do
         db:exec("SET enable_hashjoin = off; SET enable_mergejoin = off")
         db:exec(sql, query)
         local ok, err = pcall(assert_last_used, common)
         assert(ok, sql .. ": " .. tostring(err))
      end
      db:exec("RESET enable_hashjoin; RESET enable_mergejoin")
   end)

   it("take that of the next larger number without one of their own, or stretch the largest", function()
      local query = learning.queries(1, 3)[1]
      local function params(k)
         return db:row("SELECT * FROM ruvector_get_search_params('items_embedding', $1::ruvector, $2)",
            query, k)
      end
      for _, pair in ipairs { { 1, 1 }, { 2, 10 }, { 10, 10 }, { 11, 100 }, { 100, 100 } } do
         local asked, own = params(pair[1]), params(pair[2])
         assert.equal(own.slack, asked.slack)
         assert.equal(own.ef_search, asked.ef_search)
         assert.equal(own.window_size, asked.window_size)
      end
      assert.is_true(params(250).window_size >= 250)
      assert.is_true(params(250).ef_search >= 2.5 * params(100).ef_search - 8)
      assert.equal(params(800).window_size, params(5000).window_size)
   end)

   it("keep their calibrations over a restart", function()
      local before = {}
      for _, k in ipairs(KS) do before[k] = in_use(k).effort end
      server:restart()
      db = server:connect()
      db:exec("SET ruvector.trajectory_sample_rate = 0; SET ruvector.target_recall = " .. TARGET)
      db:exec("SET enable_seqscan = off; SET enable_sort = off")
      local query = learning.queries(1, 3)[1]
      learning.wait_adaptive(db, "items", query)
      db:exec("SET enable_seqscan = off")
      for _, k in ipairs(KS) do
         assert.equal(before[k], in_use(k).effort)
         db:exec(("SELECT id FROM items ORDER BY embedding <-> $1 LIMIT %d"):format(k), query)
         assert_last_used(k)
      end
   end)
end)
