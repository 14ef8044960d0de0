-- The ReasoningBank, end to end: patterns changed by sessions while the worker learns, exchanged
-- between databases, checked before they serve another build of an index, and kept.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local json = require("dkjson")
local signal = require("posix.signal")
local learning = require("support.learning")

local LIMIT = learning.LIMIT

-- Whole numbers below n, the same in every run.
local random = {}
function random.new(seed)
   local state = seed
   return function(n)
      state = (state * 48271) % 2147483647
      return state % n
   end
end

describe("a bank of patterns", function()
   local server, db
   local query = learning.queries(1, 3)[1]

   local PLAN = "SELECT * FROM ruvector_get_search_params('items_embedding', $1::ruvector)"

   local function patterns(connection)
      return (connection or db):value("SELECT count(*) FROM ruvector_patterns")
   end

   local function export(connection)
      local text = (connection or db):value("SELECT ruvector_export_patterns('items')::text")
      return (json.decode(text, 1, json.null))
   end

   local function import(document, mode, connection)
      return (connection or db):row("SELECT * FROM ruvector_import_patterns('items', $1::jsonb, $2)",
         type(document) == "table" and json.encode(document) or document, mode or "merge")
   end

   -- What searches use: patterns of the bank as published.
   local function wait_plan(what, condition)
      return clock.wait_until(what, LIMIT, function()
         local plan = db:row(PLAN, query)
         local seen = ("%s, %s, %s"):format(plan.mode, plan.reason, plan.confidence or "-")
         return condition(plan) and plan, seen
      end)
   end

   -- Hand-made regions of the index's present build, beside what was learned.
   local function add_regions(count)
      db:exec([[INSERT INTO ruvector_patterns SELECT index_oid, 1000 + n, table_id, index_name, index_epoch,
         'region', (SELECT array_agg(100 + j + n / 1000.0)::real[]::ruvector FROM generate_series(1, 32) j),
         k, 50, 0, created_at, updated_at, optimal_ef_search, optimal_probes, target_recall, slack,
         expected_recall, 0.5, 1, mean_distances, '{}', table_slack, table_ef, table_recall
         FROM ruvector_patterns, generate_series(1, $1::int) n WHERE scope = 'index']], count)
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.teach(db, "items")
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      learning.wait_adaptive(db, "items", query)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("goes out and comes back exactly", function()
      local document = export()
      assert.equal("ruhnsw", document.indexes[1].method)
      assert.is_truthy(document.indexes[1].memory:match("^%x+$"))
      assert.equal(patterns(), #document.indexes[1].bank.patterns)
      local outcome = import(document, "replace")
      assert.equal("certified", outcome.state)
      assert.equal(patterns(), outcome.taken)
      assert.same(document, export())
      wait_plan("searches to go on with it", function(plan) return plan.mode == "adaptive" end)
   end)

   it("changed by a session is what searches use, after the commit and not before", function()
      local confidence = wait_plan("a plan", function(plan) return plan.mode == "adaptive" end).confidence
      local document = export()
      document.indexes[1].bank.patterns[1].confidence = 0.125
      db:exec("BEGIN")
      assert.equal("certified", import(document, "replace").state)
      db:exec("ROLLBACK")
      assert.near(confidence, db:row(PLAN, query).confidence, 1e-6)

      db:exec("BEGIN")
      import(document, "replace")
      assert.near(confidence, server:connect():row(PLAN, query).confidence, 1e-6)
      db:exec("COMMIT")
      wait_plan("the change to be published", function(plan) return plan.confidence == 0.125 end)
   end)

   it("is consolidated and pruned on request", function()
      db:exec("SELECT ruvector_consolidate_patterns('items_embedding')") -- what was learned itself
      add_regions(3)
      local before = patterns()
      assert.equal(2, db:value("SELECT ruvector_consolidate_patterns('items_embedding')"))
      assert.equal(before - 2, patterns())
      assert.equal(150, db:value("SELECT max(samples) FROM ruvector_patterns WHERE pattern_id > 1000"))
      assert.equal(patterns() - 1, db:value("SELECT ruvector_prune_patterns('items_embedding', 1000000, 0)"))
      assert.equal("index", db:value("SELECT scope FROM ruvector_patterns"))
      wait_plan("the regions to be gone", function(plan) return plan.patterns == 1 end)
   end)

   it("can be changed while the worker stands still, which takes it up later", function()
      local stats = learning.wait_stats(db, "items", "the worker to be idle", function(stats)
         return stats.worker_state == "idle" and stats.pending == 0 and stats.worker_pid
      end)
      add_regions(2)
      server:kill(stats.worker_pid, signal.SIGSTOP)
      local merged = db:value("SELECT ruvector_consolidate_patterns('items_embedding')")
      local document = export()
      document.indexes[1].bank.patterns[1].confidence = 0.25
      import(document, "replace")
      server:kill(stats.worker_pid, signal.SIGCONT)
      assert.equal(1, merged)
      wait_plan("the worker to take it up", function(plan) return plan.confidence == 0.25 end)
   end)

   it("held by a session's transaction does not keep the worker from its work", function()
      local other = server:connect()
      other:exec("BEGIN")
      other:exec("SELECT ruvector_prune_patterns('items_embedding', 1000000, 1)")
      local before = learning.stats(db, "items").trajectories
      db:exec("RESET ruvector.trajectory_sample_rate")
      learning.search(db, "items", learning.queries(100, 31))
      learning.wait_stats(db, "items", "the ring to be read", function(stats)
         return stats.trajectories >= before + 100
      end)
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      other:exec("ROLLBACK")
      learning.wait_stats(db, "items", "the searches to be learned from", function(stats)
         return stats.state == "learned"
      end)
   end)

   it("takes valid documents or nothing, however they are damaged", function()
      local rng = random.new(20)
      db:exec("SELECT ruvector_extract_patterns('items')") -- what came before, so that nothing comes later
      local good = db:value("SELECT ruvector_export_patterns('items')::text")
      local numbers = { "0", "1", "0.75", "12", "0.5", "1e-40", "1e3", "-0.0" }
      local values = { "1e999999", "-1", "0", "null", "true", '""', '"1"', '"x"', "[]", "{}",
         "[[[[[[[[[1]]]]]]]]]",
         "1e-400", '"NaN"', "1.5", '"\\u0000"', '"18446744073709551616"', "99999999999", '"region"' }
      local taken, refused = 0, 0
      for _ = 1, 400 do
         local text = good
         for _ = 1, 1 + rng(2) do
            -- some value, behind a colon, a comma or a bracket
            local at = rng(#text)
            local from, to = text:find('[:,%[]%s*[^%s,:%[%]{}]+', at)
            if from then
               local keep = text:sub(from, from)
               local numeric = text:sub(from + 1, to):match("^%s*%-?%d") and rng(3) > 0
               local value = numeric and numbers[1 + rng(#numbers)] or values[1 + rng(#values)]
               text = text:sub(1, from - 1) .. keep .. value .. text:sub(to + 1)
            end
         end
         db:exec("BEGIN")
         local ok, err = pcall(import, text, rng(2) == 0 and "merge" or "replace")
         if ok then
            taken = taken + 1
            assert(pcall(export), "what was taken can be exported")
         else
            refused = refused + 1
            assert(type(err) == "table" and err.sqlstate and not err.sqlstate:find("^XX"), err.message or err)
         end
         db:exec("ROLLBACK")
      end
      assert.is_true(taken > 10 and refused > 100, taken .. " taken, " .. refused .. " refused")
      assert.equal(good, db:value("SELECT ruvector_export_patterns('items')::text"))
   end)

   it("of another build is checked on a few searches before it serves", function()
      local document = export()
      db:exec("REINDEX INDEX items_embedding")
      db:exec("SELECT ruvector_clear_learning('items')")
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 1000)")
      assert.equal("prior", import(document).state)
      wait_plan("searches to be static", function(plan)
         return plan.mode == "static" and plan.reason == "the index was rebuilt since"
      end)
      db:exec("RESET ruvector.trajectory_sample_rate")
      learning.search(db, "items", learning.queries(60, 77))
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      wait_plan("the patterns to be checked", function(plan) return plan.mode == "adaptive" end)
      local index = db:row("SELECT * FROM ruvector_patterns WHERE scope = 'index'")
      assert.is_true(index.samples >= 30 and index.samples <= 60, index.samples)
      -- an index that knows better leaves priors out
      local outcome = import(document)
      assert.equal(#document.indexes[1].bank.patterns, outcome.left_out)
      assert.equal("certified", outcome.state)
   end)

   it("survives a crash right after the commit of a change", function()
      local document = export()
      document.indexes[1].bank.patterns[1].confidence = 0.375
      import(document, "replace")
      server:crash()
      server:start()
      db = server:connect()
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      wait_plan("the change to be published", function(plan) return plan.confidence == 0.375 end)
   end)

   it("goes with its database through pg_dump and pg_restore, and is checked there", function()
      db:exec("SELECT ruvector_clear_learning('items'); RESET ruvector.trajectory_sample_rate")
      learning.teach(db, "items")
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      local learned, epoch = patterns(), db:value("SELECT max(index_epoch) FROM ruvector_patterns")
      db:exec("CREATE DATABASE restored")
      local function client(program, ...)
         return server:as_server_user { server.bin .. "/" .. program, "-h", server.socket_directory, "-p",
            tostring(server.port), ... }
      end
      local archive = server.directory .. "/dump"
      assert.equal(0, os.execute(client("pg_dump", "-Fc", "-f", archive, "postgres")))
      assert.equal(0, os.execute(client("pg_restore", "-d", "restored", "--exit-on-error", archive)))
      local restored = server:connect { dbname = "restored" }
      assert.is_true(learned > 0 and restored:value("SELECT count(*) FROM ruvector_trajectory_log") > 0)
      learning.wait_adaptive(restored, "items", query)
      clock.wait_until("patterns of the restored index", LIMIT, function()
         return restored:value("SELECT bool_and(index_epoch <> $1) FROM ruvector_patterns", epoch)
      end)
      restored:close()
   end)

   it("of a table that is rewritten is learned anew from the recorded queries", function()
      local epoch = db:value("SELECT max(index_epoch) FROM ruvector_patterns")
      db:exec("VACUUM FULL items")
      clock.wait_until("patterns of the rewritten index", LIMIT, function()
         return db:value("SELECT bool_and(index_epoch <> $1) FROM ruvector_patterns", epoch)
      end)
      learning.wait_adaptive(db, "items", query)
   end)

   it("follows its table through a rename", function()
      local rename = "ALTER TABLE %s RENAME TO %s; ALTER INDEX %s_embedding RENAME TO %s_embedding"
      db:exec(rename:format("items", "articles", "items", "articles"))
      assert.equal(patterns(), db:value([[SELECT sum(jsonb_array_length(i #> '{bank,patterns}'))
         FROM jsonb_array_elements(ruvector_export_patterns('articles') -> 'indexes') i]]))
      assert.equal("adaptive", learning.search(db, "articles", { query })[1].mode)
      db:exec(rename:format("articles", "items", "articles", "items"))
   end)

   it("is consolidated by the worker on its interval", function()
      add_regions(3)
      db:exec("ALTER SYSTEM SET ruvector.pattern_consolidation_interval = 10")
      server:restart() -- the worker reads the rows anew
      db = server:connect()
      clock.wait_until("the regions to be merged", LIMIT, function()
         return db:value("SELECT count(*) FROM ruvector_patterns WHERE pattern_id > 1000") == 1
      end)
   end)

   it("goes with its table", function()
      db:exec("DROP TABLE items")
      clock.wait_until("its rows to go", LIMIT, function() return patterns() == 0 end)
   end)
end)

describe("a bank that does not fit into ruvector.bank_memory", function()
   local DIM = 1000
   local server, db

   local function stats(name, index)
      return db:row("SELECT * FROM ruvector_learning_stats($1::regclass) WHERE index = $2::regclass",
         name, index)
   end

   local function vector(rng)
      local values = {}
      for i = 1, DIM do values[i] = ("%.3f"):format(rng(2000) / 1000 - 1) end
      return "[" .. table.concat(values, ",") .. "]"
   end

   setup(function()
      local settings = { ["ruvector.bank_memory"] = "1MB" }
      for name, value in pairs(learning.SETTINGS) do settings[name] = value end
      server = cluster.new({ preload = true, settings = settings }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      db:exec(("CREATE TABLE wide (id bigint PRIMARY KEY, embedding ruvector(%d))"):format(DIM))
      local rng = random.new(5)
      for id = 1, 60 do db:exec("INSERT INTO wide VALUES ($1, $2)", id, vector(rng)) end
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("keeps the regions that are used most, says so, and fits", function()
      db:exec("CREATE INDEX wide_l2 ON wide USING ruhnsw (embedding ruvector_l2_ops)")
      db:exec("SELECT ruvector_enable_learning('wide', min_samples => 1000)")
      local document = json.decode(db:value("SELECT ruvector_export_patterns('wide')::text"), 1, json.null)
      local rng, patterns = random.new(9), {}
      for id = 1, 400 do
         local centroid = {}
         for i = 1, DIM do centroid[i] = rng(100) / 8 end
         local tables = { slack = {}, ef = {}, recall = {} }
         for i = 1, 12 do tables.slack[i], tables.ef[i], tables.recall[i] = 0.1, 20, 0.5 + i / 32 end
         patterns[id] = { id = tostring(id), scope = "region", index_epoch = "7", k = 10, samples = 30,
            usage = tostring(id), created_us = "0", updated_us = "0", optimal_ef_search = 20,
            optimal_probes = 1, target_recall = 0.95, slack = 0.1, expected_recall = 0.9, confidence = 0.5,
            radius = 0.5, mean_distances = 100, table_slack = tables.slack, table_ef = tables.ef,
            table_recall = tables.recall, entry_points = {}, centroid = centroid }
         setmetatable(patterns[id].entry_points, { __jsontype = "array" })
      end
      document.indexes[1].bank.patterns = patterns
      db:exec("SELECT ruvector_import_patterns('wide', $1::jsonb, 'replace')", json.encode(document))
      local live = clock.wait_until("what fits to be published", LIMIT, function()
         local s = stats("wide", "wide_l2")
         return s.patterns_left_out > 0 and s, s.last_error
      end)
      assert.equal(400, live.patterns)
      assert.is_true(live.patterns_left_out >= 200 and live.patterns_left_out < 400, live.patterns_left_out)
      assert.is_true(live.bank_bytes > 100000 and live.bank_bytes < 1048576, live.bank_bytes)
      local _, times = server:log():gsub("ruvector.bank_memory is used up", "")
      assert.equal(1, times)
   end)

   it("remembers fewer queries, and goes on learning", function()
      db:exec("CREATE TABLE crowd AS SELECT * FROM wide") -- beside the bank of the former test
      local operators = { l2 = "<->", cosine = "<=>", ip = "<#>", l1 = "<+>" }
      for name in pairs(operators) do
         db:exec(("CREATE INDEX crowd_%s ON crowd USING ruhnsw (embedding ruvector_%s_ops)")
            :format(name, name))
      end
      db:exec("SELECT ruvector_enable_learning('crowd', min_samples => 20)")
      db:exec("SET enable_seqscan = off")
      local rng = random.new(77)
      for _ = 1, 450 do
         local query = vector(rng)
         for _, operator in pairs(operators) do
            db:exec(("SELECT id FROM crowd ORDER BY embedding %s $1 LIMIT 10"):format(operator), query)
         end
      end
      -- who comes last may find no room at all: that index is searched statically
      clock.wait_until("most indexes to have learned within the memory there is", LIMIT, function()
         local sum, left, learned, seen = 0, 0, 0, {}
         for name in pairs(operators) do
            local s = stats("crowd", "crowd_" .. name)
            sum, left = sum + s.bank_bytes, left + s.queries_left_out
            if s.state == "learned" and s.patterns > 0 and s.bank_bytes > 0 then learned = learned + 1 end
            seen[#seen + 1] = ("%s %d %d"):format(s.state, s.bank_bytes, s.queries_left_out)
         end
         assert(sum + stats("wide", "wide_l2").bank_bytes <= 1048576, sum)
         return learned >= 3 and left > 0, table.concat(seen, "; ")
      end)
   end)
end)
