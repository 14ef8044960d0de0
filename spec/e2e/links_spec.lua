-- Learned links, end to end: what they gain on questions that nothing learned from, that they go away
-- when they are switched off and when a round is cut short. healing_spec has those that do not pay.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")
local packages = require("support.packages")
local pause = require("support.pause")

local RECALL = 0.98
local TAUGHT = 3000
local TESTS = 600

local function teach(db, first, last)
   packages.search(db, first, last)
   return learning.wait_learned(db, "packages", last - first + 1)
end

local function rounds(db, state)
   return db:value([[SELECT count(*) FROM ruvector_link_history WHERE index = 'packages_embedding'::regclass
      AND state LIKE $1]], state or "%")
end

local function findings(db)
   local out = {}
   local query = "SELECT severity, message FROM ruvector_index_verify('packages_embedding')"
   for _, row in ipairs(db:exec(query)) do
      out[#out + 1] = row.severity .. ": " .. row.message
   end
   return table.concat(out, "\n")
end

-- Takes all learned links away; returns how many there were.
local function take_away(db)
   return -db:value("SELECT links FROM ruvector_heal_index('packages_embedding', reset => true)")
end

local function setting(server, db, name, value) server:apply({ ["ruvector." .. name] = value }, db) end

describe("learned links", function()
   local server, db

   local function start(rows, with)
      server = cluster.new { preload = true, settings = {
         shared_buffers = "128MB", maintenance_work_mem = "256MB", ["ruvector.learning_interval"] = "20ms",
         ["ruvector.learning_budget"] = 1, wal_consistency_checking = "all",
      } }
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      packages.create(db, rows, with)
   end

   after_each(function()
      if server then server:remove() end
      server = nil
   end)

   it("make searches cheaper that nothing was learned from, and can be taken away", function()
      start()
      setting(server, db, "learned_links", "off")
      db:exec("SELECT ruvector_enable_learning('packages', trajectory_window => 5000)")
      local without = teach(db, 0, TAUGHT - 1)
      assert.equal(0, without.links)
      assert.equal(0, rounds(db))
      assert.equal(0, take_away(db))
      local cost_without = packages.cost_at(db, RECALL, TESTS)

      db:exec("SELECT ruvector_clear_learning('packages')")
      setting(server, db, "learned_links", "on")
      local stats = teach(db, 0, TAUGHT - 1)
      local cost_with = packages.cost_at(db, RECALL, TESTS)
      assert.is_true(stats.links > 1000, stats.links .. " links")
      assert.is_true(stats.links_gain > 0.05, "gain " .. stats.links_gain)
      assert.is_true(rounds(db, "kept") >= 1)
      assert.equal(0, rounds(db, "applying"))
      assert.is_true(cost_with < 0.93 * cost_without,
         ("%.0f distances with links, %.0f without"):format(cost_with, cost_without))
      assert.equal("", findings(db))

      local slack_with = stats.slack
      assert.equal(stats.links, take_away(db))
      assert.equal("", findings(db))
      clock.wait_until("the worker to calibrate for the bare graph", 60, function()
         return rounds(db, "reset") >= 1 and rounds(db, "kept") == 0
      end)
      local after = db:row("SELECT * FROM ruvector_learning_stats('packages')")
      assert.equal(0, after.links)
      assert.is_true(after.slack > slack_with, ("slack %g, %g with links"):format(after.slack, slack_with))
   end)

   it("are taken away when the worker was killed before they were judged", function()
      start(8000)
      db:exec("SELECT ruvector_enable_learning('packages', trajectory_window => 5000, min_samples => 50)")
      local hold = pause.hold(server, "ruvector-links-written")
      setting(server, db, "debug_pause_points", "ruvector-links-written")
      packages.search(db, 0, 1199)
      local worker = clock.wait_until("the worker to have written links", 60, function()
         local pid = learning.stats(db, "packages").worker_pid
         return pid and hold:holds(pid) and pid
      end)
      assert.equal(1, rounds(db, "applying"))
      server:kill(worker)
      clock.wait_until("the server to be back", 60, function()
         local ok, session = pcall(server.connect, server)
         if not ok then return false end
         -- Until it notices the kill, the server shows the worker as if it lived, and ends such sessions.
         local asked, rows = pcall(session.exec, session, "SELECT 1 FROM pg_stat_activity WHERE pid = $1",
            worker)
         if not asked or #rows > 0 then return false end
         setting(server, session, "debug_pause_points", "")
         return true
      end)
      db = server:connect()
      clock.wait_until("the round to be taken back", 60, function() return rounds(db, "interrupted") == 1 end)
      assert.equal(0, rounds(db, "applying"))
      assert.equal(0, rounds(db, "kept"))
      assert.equal(0, take_away(db))
      assert.equal("", findings(db))
   end)
end)
