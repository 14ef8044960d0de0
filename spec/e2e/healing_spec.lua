-- The healing policy in a running server: when rounds of links run, how large they are, what stays.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

local SEARCHES = 800

-- A healing policy that answers always the same; changes are fields of its answer, as Lua text.
local function always(name, changes)
   local fields = { run = "situation.waiting >= 100 and situation.held_out >= situation.min_samples",
      queries = "8192", rows_per_query = "48", links_per_node = "8", min_requests = "1", min_gain = "0" }
   for field, value in pairs(changes) do fields[field] = value end
   local parts = {}
   for field, value in pairs(fields) do parts[#parts + 1] = field .. " = " .. value end
   return ([[return { name = %q, kind = "healing", version = "1.0.0", contract = 1, describe = "for a spec",
      defaults = {}, heal = function(situation) return { %s } end }]]):format(name, table.concat(parts, ", "))
end

describe("learned links", function()
   local server, db, directory, former

   local function write(name, text)
      local file = assert(io.open(directory .. "/" .. name .. ".lua", "w"))
      file:write(text)
      file:close()
   end

   -- Lets it be this hour where the server is.
   local function set_hour(hour)
      local now = db:value("SELECT extract(epoch FROM now() AT TIME ZONE 'UTC')::float8") / 3600 % 24
      -- POSIX counts what is west of Greenwich; rounded down, it is past the hour by less than a minute.
      local west = math.floor(((now - hour + 12) % 24 - 12) * 60)
      local zone = ("<spec>%s%02d:%02d"):format(west < 0 and "-" or "+", math.floor(math.abs(west) / 60),
         math.abs(west) % 60)
      server:apply({ timezone = zone }, db)
      assert.equal(math.floor(hour), server:connect():value("SELECT extract(hour FROM localtime)::float8"))
   end

   -- Those of this example.
   local function rounds()
      return db:exec("SELECT * FROM ruvector_link_history WHERE round > $1 ORDER BY round", former)
   end

   local function teach()
      learning.search(db, "items", learning.queries(SEARCHES))
      return learning.wait_learned(db, "items", SEARCHES)
   end

   local function wait_for_round(what, condition)
      return clock.wait_until(what, learning.LIMIT, function()
         local found = rounds()
         return #found > 0 and condition(found[1]) and found[1], found[1] and found[1].state
      end)
   end

   local function ended(round) return round.ended_at ~= nil end

   setup(function()
      server = cluster.new { preload = true, settings = learning.SETTINGS }
      directory = server.directory .. "/policies"
      assert(os.execute(("mkdir -p '%s' && cp policies/*.lua examples/policies/night_healing.lua '%s' && "
         .. "chmod -R a+rX '%s'"):format(directory, directory, directory)) == 0)
      write("few", always("few", { queries = "100", links_per_node = "1", rows_per_query = "12" }))
      write("greedy", always("greedy", { min_gain = "1" }))
      write("never", always("never", { run = "false" }))
      write("broken", always("broken", { queries = "situation.nothing.at_all" }))
      server:configure { ["ruvector.policy_directory"] = directory }
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   before_each(function()
      former = db:value("SELECT coalesce(max(round), 0) FROM ruvector_link_history")
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 50)")
   end)

   after_each(function()
      db:exec("SELECT ruvector_set_policy('items', 'healing', NULL)")
      db:exec("SELECT ruvector_disable_learning('items')")
      db:exec("REINDEX INDEX items_embedding") -- without links, and rounds begin anew
   end)

   it("come by the shipped policy as soon as enough searches wait", function()
      teach()
      local first = wait_for_round("a round", ended)
      assert.equal(first.gain > 0 and "kept" or "rolled back", first.state)
      local policy = db:row("SELECT * FROM ruvector_policies() WHERE policy = 'healing'")
      assert.is_true(policy.calls > 0)
      assert.equal(0, policy.failures)
   end)

   it("wait for the night where night_healing says so, with what the day asked for", function()
      set_hour(12.5)
      db:exec("SELECT ruvector_set_policy('items', 'healing', 'night_healing')")
      teach()
      assert.equal(0, #rounds())
      assert.is_true(db:value("SELECT calls FROM ruvector_policies() WHERE policy = 'night_healing'") > 0)
      db:exec("SELECT ruvector_extract_patterns('items')") -- which does not make it night
      assert.equal(0, #rounds())
      set_hour(2.5)
      wait_for_round("a round at night", ended)
   end)

   it("are as many as the policy lets ask, and the other queries wait on", function()
      db:exec("SELECT ruvector_set_policy('items', 'healing', 'few')")
      teach()
      wait_for_round("a round", ended)
      clock.wait_until("another round", learning.LIMIT, function() return #rounds() > 1 end)
      for _, round in ipairs(rounds()) do
         assert.equal(100, round.queries)
         assert.is_true((round.links or 0) <= learning.ROWS) -- one for each node
      end
   end)

   it("go again when they gain less than the policy asks for", function()
      db:exec("SELECT ruvector_set_policy('items', 'healing', 'greedy')")
      teach()
      local first = wait_for_round("a round", ended)
      assert.equal("rolled back", first.state)
      assert.equal(0, learning.stats(db, "items").links)
      -- Without links in the graph every sample that was drawn calibrates, whatever was tried before.
      learning.search(db, "items", learning.queries(100, 78))
      db:exec("SELECT ruvector_extract_patterns('items')")
      for _, round in ipairs(rounds()) do assert.equal("rolled back", round.state) end
      assert.equal(db:value("SELECT count(*) FROM ruvector_trajectories WHERE drawn"),
         db:value("SELECT samples FROM ruvector_patterns WHERE scope = 'index'"))
   end)

   it("are decided by the built-in where the policy fails", function()
      db:exec("SELECT ruvector_set_policy('items', 'healing', 'broken')")
      teach()
      wait_for_round("a round", ended)
      local policy = db:row("SELECT * FROM ruvector_policies() WHERE policy = 'broken'")
      assert.is_true(policy.failures > 0)
      assert.equal(policy.calls, policy.failures)
      local _, times = server:log():gsub("the healing policy failed", "")
      assert.equal(1, times)
   end)

   it("can be compared in the shadow with what another policy would do", function()
      db:exec("SELECT ruvector_shadow_policy('healing', 'never')")
      teach()
      wait_for_round("a round", ended)
      learning.search(db, "items", learning.queries(SEARCHES, 5)) -- a round of learning saves the figures
      local report = clock.wait_until("the candidate's figures", learning.LIMIT, function()
         local found = db:row("SELECT * FROM ruvector_shadow_report() WHERE candidate = 'never'")
         return found and found.active_successes > 0 and found
      end)
      assert.equal(0, report.candidate_successes)
      assert.equal(report.different, report.active_successes)
      assert.equal(0, report.failures)
      assert.is_nil(report.active_recall)
      assert.equal("never", db:value("SELECT ruvector_promote_policy('healing')"))
      assert.equal("healing", db:value("SELECT ruvector_rollback_policy('healing')"))
   end)
end)
