-- Alternatives in a running server: for one table, in the shadow, into service and back.

local cluster = require("ruvector.cluster")
local clock = require("ruvector.clock")
local learning = require("support.learning")

local SEARCHES = 120

-- A verdict policy that is the judge of nothing: every search gets the same answer.
local function verdict(name, success)
   return ([[return { name = %q, kind = "verdict", version = "1.0.0", contract = 1,
      describe = "the same for every search", defaults = {},
      judge = function(trajectory)
         return { success = %s, confidence = 0.5, scores = {}, recommendations = {} }
      end }]]):format(name, success)
end

describe("the choice of policies", function()
   local server, db, directory

   local function write(name, text)
      local file = assert(io.open(directory .. "/" .. name .. ".lua", "w"))
      file:write(text)
      file:close()
   end

   setup(function()
      server = cluster.new { preload = true, settings = learning.SETTINGS }
      directory = server.directory .. "/policies"
      assert(os.execute("mkdir -p '" .. directory .. "' && chmod 755 '" .. directory .. "'") == 0)
      write("verdict", verdict("verdict", "true"))
      write("strict", verdict("strict", "false"))
      write("odd", verdict("odd", "trajectory.distances % 2 == 1"))
      write("broken", verdict("broken", "trajectory.no.such"))
      server:configure { ["ruvector.policy_directory"] = directory }
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
      learning.create_table(db, "others")
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 50)")
      db:exec("SELECT ruvector_enable_learning('others', min_samples => 50)")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   local function serving()
      return db:value("SELECT policy FROM ruvector_policies() WHERE kind = 'verdict' AND serves")
   end

   -- The share of new searches of a table that its verdict calls a success.
   local function success_of(name)
      db:exec("SELECT ruvector_clear_learning($1)", name)
      learning.search(db, name, learning.queries(SEARCHES))
      return learning.wait_learned(db, name, SEARCHES / 2).success_rate
   end

   local function report(candidate)
      return db:row("SELECT * FROM ruvector_shadow_report() WHERE candidate = $1 AND index = "
         .. "'items_embedding'::regclass", candidate)
   end

   local function wait_for_shadow(candidate)
      return clock.wait_until("the candidate's calls", learning.LIMIT, function()
         learning.search(db, "items", learning.queries(SEARCHES)) -- of which some are judged
         local found = report(candidate)
         return found and found.calls >= SEARCHES / 4 and found
      end)
   end

   it("is the default policy where nothing was chosen", function()
      assert.equal("verdict", serving())
      assert.equal(1, success_of("items"))
   end)

   it("of a table is the table's alone, until it is given back", function()
      db:exec("SELECT ruvector_set_policy('items', 'verdict', 'strict')")
      assert.equal(0, success_of("items"))
      assert.equal(1, success_of("others"))
      assert.equal("verdict", serving())
      db:exec("SELECT ruvector_set_policy('items', 'verdict', NULL)")
      assert.equal(1, success_of("items"))
   end)

   it("of a table comes before that of the database", function()
      db:exec("SELECT ruvector_set_policy('items', 'verdict', 'verdict')")
      db:exec("SELECT ruvector_promote_policy('verdict', 'strict')")
      assert.equal("strict", serving())
      assert.equal(1, success_of("items"))
      assert.equal(0, success_of("others"))
      assert.equal("verdict", db:value("SELECT ruvector_rollback_policy('verdict')"))
      db:exec("SELECT ruvector_set_policy('items', 'verdict', NULL)")
   end)

   it("changes nothing when the transaction is rolled back", function()
      db:exec("BEGIN")
      db:exec("SELECT ruvector_promote_policy('verdict', 'strict')")
      db:exec("ROLLBACK")
      assert.equal("verdict", serving())
   end)

   it("survives a restart", function()
      db:exec("SELECT ruvector_set_policy('items', 'verdict', 'strict')")
      server:restart()
      db = server:connect()
      assert.equal(0, success_of("items"))
      db:exec("SELECT ruvector_set_policy('items', 'verdict', NULL)")
   end)

   it("of a file that is gone is the default policy's, and the log says so once", function()
      write("passing", verdict("passing", "false"))
      db:exec("SELECT ruvector_reload_policies()")
      db:exec("SELECT ruvector_set_policy('items', 'verdict', 'passing')")
      assert.equal(0, success_of("items"))
      os.remove(directory .. "/passing.lua")
      db:exec("SELECT ruvector_reload_policies()")
      assert.equal(1, success_of("items"))
      local _, times = server:log():gsub('policy "passing" is not in the policy directory', "")
      assert.equal(1, times)
      db:exec("SELECT ruvector_set_policy('items', 'verdict', NULL)")
   end)

   describe("in the shadow", function()
      it("is compared with the one that serves, and changes nothing", function()
         local asked = db:value("SELECT clock_timestamp()")
         db:exec("SELECT ruvector_shadow_policy('verdict', 'odd')")
         local found = wait_for_shadow("odd")
         assert.is_true(found.running)
         assert.is_true(db:value("SELECT $1::timestamptz >= $2::timestamptz", found.since, asked))
         assert.equal(0, found.failures)
         assert.equal(found.calls, found.same + found.different)
         assert.is_true(found.same > 0 and found.different > 0)
         assert.equal(found.same, found.candidate_successes) -- the serving one calls all a success
         assert.is_true(found.active_recall > 0 and found.active_recall <= 1)
         assert.is_true(found.active_distances > 0)
         assert.equal("verdict", serving())
         assert.equal(0, db:value("SELECT count(*) FROM ruvector_trajectories WHERE NOT success AND "
            .. "table_id = 'items'::regclass"))
      end)

      it("counts its own failures", function()
         db:exec("SELECT ruvector_shadow_policy('verdict', 'broken')")
         local found = wait_for_shadow("broken")
         assert.equal(found.calls, found.failures)
         assert.is_false(report("odd").running)
         assert.is_nil(server:log():find("the verdict policy failed", 1, true))
         assert.equal(0, db:value("SELECT failures FROM ruvector_policies() WHERE policy = 'verdict'"))
      end)

      it("is promoted, and what served before comes back step by step", function()
         db:exec("SELECT ruvector_shadow_policy('verdict', 'odd')")
         assert.equal("odd", db:value("SELECT ruvector_promote_policy('verdict')"))
         assert.equal("odd", serving())
         assert.is_false(report("odd").running)
         assert.equal("strict", db:value("SELECT ruvector_promote_policy('verdict', 'strict')"))
         assert.equal("odd", db:value("SELECT ruvector_rollback_policy('verdict')"))
         assert.equal("verdict", db:value("SELECT ruvector_rollback_policy('verdict')"))
         local err = db:fails("SELECT ruvector_rollback_policy('verdict')")
         assert.equal("55000", err.sqlstate)
         assert.match("there is nothing to go back from", err.message, 1, true)
         assert.equal(0, db:value("SELECT count(*) FROM ruvector_policy_choices WHERE role = 'serves' "
            .. "AND table_id IS NULL AND ended_at IS NULL"))
         assert.equal(3, db:value("SELECT count(*) FROM ruvector_policy_choices WHERE role = 'serves' "
            .. "AND table_id IS NULL AND rolled_back AND ended_by = current_user"))
      end)

      it("plans the searches that were traced, and the traces tell what either plan costs", function()
         local more = "{ slack = defaults.slack + 0.2, ef_search = defaults.ef_search, probes = 1 }"
         local less = "{ slack = 0, ef_search = 1, probes = 1 }"
         local fails = "patterns.no.such"
         for name, plan in pairs({ more = more, less = less, fails = fails }) do
            write(name, ([[return { name = %q, kind = "interpolation", version = "1", contract = 1,
               describe = "for a spec", defaults = {},
               interpolate = function(query, patterns, defaults) return %s end }]]):format(name, plan))
         end
         db:exec("SELECT ruvector_reload_policies()")
         learning.teach(db, "items")
         local reports = {}
         for i, name in ipairs({ "more", "less", "fails" }) do
            db:exec("SELECT ruvector_shadow_policy('interpolation', $1)", name)
            reports[name] = clock.wait_until("the plans of " .. name, learning.LIMIT, function()
               -- What is learned meanwhile may move the targets at which a policy is asked.
               learning.set_target_of(db, "items", { "slack", "memory" }, 1)
               learning.search(db, "items", learning.queries(SEARCHES, 100 + i))
               local found = report(name)
               return found and found.calls >= SEARCHES / 4 and found,
                  ("%s calls, %s"):format(found and found.calls, learning.stats(db, "items").state)
            end)
         end
         local found = reports.more
         assert.equal(0, found.failures)
         assert.is_true(found.candidate_recall >= found.active_recall)
         assert.is_true(found.candidate_distances > found.active_distances)
         assert.is_true(found.active_recall > 0.5 and found.candidate_recall <= 1)
         found = reports.less
         assert.is_true(found.candidate_recall < found.active_recall)
         assert.is_true(found.candidate_distances < found.active_distances)
         assert.is_true(found.candidate_successes < found.active_successes)
         assert.equal(found.calls, found.same + found.different)
         found = reports.fails
         assert.equal(found.calls, found.failures)
         assert.is_nil(found.candidate_recall)
         assert.is_nil(server:log():find("the interpolation policy failed", 1, true))
         db:exec("SELECT ruvector_shadow_policy('interpolation', 'more')")
         assert.equal("more", db:value("SELECT ruvector_promote_policy('interpolation')"))
         assert.equal("interpolation", db:value("SELECT ruvector_rollback_policy('interpolation')"))
         db:exec("RESET ruvector.target_recall")
      end)

      it("ends when it is given NULL", function()
         db:exec("SELECT ruvector_shadow_policy('verdict', 'odd')")
         db:exec("SELECT ruvector_shadow_policy('verdict', NULL)")
         local err = db:fails("SELECT ruvector_promote_policy('verdict')")
         assert.match("no verdict policy runs in the shadow for the whole database", err.message, 1, true)
      end)
   end)

   it("of a dropped table goes with it", function()
      db:exec("SELECT ruvector_set_policy('others', 'verdict', 'strict')")
      db:exec("DROP TABLE others")
      clock.wait_until("the worker to tidy up", learning.LIMIT, function()
         return db:value("SELECT count(*) FROM ruvector_policy_choices WHERE table_id IS NOT NULL "
            .. "AND policy = 'strict' AND ended_at IS NULL") == 0
      end)
   end)

   describe("refuses", function()
      local function refused(expression, sqlstate, text)
         local err = db:fails("SELECT " .. expression)
         assert.equal(sqlstate, err.sqlstate)
         assert.match(text, err.message, 1, true)
         return err
      end

      it("what there is not", function()
         local err = refused("ruvector_set_policy('items', 'verdict', 'nothing')", "42704",
            'there is no verdict policy "nothing"')
         assert.match("Loaded verdict policies: verdict, broken, odd, strict.", err.detail, 1, true)
         refused("ruvector_set_policy('items', 'verdicts', 'strict')", "22023",
            'there is no kind of policy "verdicts"')
         refused("ruvector_set_policy('items', 'retention', 'strict')", "42704",
            'there is no retention policy "strict"')
         refused("ruvector_set_policy(NULL, 'verdict', 'strict')", "22004", "table must not be null")
         refused("ruvector_promote_policy(NULL)", "22004", "kind must not be null")
      end)

      it("shadows of what the worker never sees, and says why", function()
         local err = refused("ruvector_shadow_policy('selection', NULL)", "0A000",
            "selection policies cannot run in the shadow")
         assert.match("only one of the two plans is carried out", err.detail, 1, true)
         assert.match("ruvector-policy replay", err.hint, 1, true)
         err = refused("ruvector_shadow_policy('tuning', NULL)", "0A000",
            "tuning policies cannot run in the shadow")
         assert.match("ruvector_auto_tune()", err.detail, 1, true)
      end)
   end)
end)

describe("reloads under load", function()
   -- Memory of the session that reloads, and how many hosts it has.
   local function memory(db)
      return db:row("SELECT sum(total_bytes)::bigint AS bytes, count(*) FILTER (WHERE name = "
         .. "'ruvector policies') AS hosts FROM pg_backend_memory_contexts")
   end

   it("lose no query, no trajectory and no memory", function()
      cluster.with({ preload = true, settings = learning.SETTINGS }, function(server)
         local db = server:connect()
         db:exec("CREATE EXTENSION ruvector")
         learning.create_table(db, "items")
         db:exec("SELECT ruvector_enable_learning('items', min_samples => 50)")
         local queries = learning.queries(10)
         local clients, sent, answered = {}, 0, 0
         for i = 1, 8 do clients[i] = server:connect() end
         local function search(client)
            sent = sent + 1
            client:send("SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 10", queries[sent % 10 + 1])
         end
         for _, client in ipairs(clients) do search(client) end
         local first = db:value("SELECT ruvector_reload_policies()")
         local generation, early = first, nil
         while generation < first + 1000 do
            generation = db:value("SELECT ruvector_reload_policies()")
            if generation == first + 50 then early = memory(db) end
            for _, client in ipairs(clients) do
               if client:ready() then
                  assert.equal(10, #client:receive())
                  answered = answered + 1
                  search(client)
               end
            end
         end
         local late = memory(db)
         assert.equal(1, late.hosts)
         assert.is_true(late.bytes <= 1.1 * early.bytes, early.bytes .. " bytes grew to " .. late.bytes)
         for _, client in ipairs(clients) do
            assert.equal(10, #client:receive())
            answered = answered + 1
         end
         assert.equal(sent, answered)
         local stats = clock.wait_until("the last trajectories", learning.LIMIT, function()
            local now = db:row("SELECT * FROM ruvector_learning_stats('items')")
            return now.trajectories == sent and now, now.trajectories
         end)
         assert.equal(0, stats.ring_dropped)
         assert.equal(0, stats.ring_lost)
         assert.equal(0, stats.failures)
         assert.equal(0, db:value("SELECT max(failures) FROM ruvector_policies()"))
      end)
   end)
end)
