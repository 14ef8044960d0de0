-- Every guarded function of the extension (support/surface.lua) where it cannot do all of its work: on a
-- standby, without shared_preload_libraries, and while learning is switched off for the server.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")
local surface = require("support.surface")

local ITEMS = [[
   CREATE TABLE items (id bigint PRIMARY KEY, embedding ruvector(3));
   INSERT INTO items SELECT n, ARRAY[n % 17, n % 19, n % 23]::ruvector FROM generate_series(1, 500) n;
   CREATE INDEX items_embedding ON items USING ruhnsw (embedding ruvector_l2_ops);
]]
local SEARCH = "SELECT id FROM items ORDER BY embedding <-> '[%d,%d,%d]' LIMIT 5"

local function search(db, count)
   db:exec("SET enable_seqscan = off")
   for n = 1, count do db:exec(SEARCH:format(n % 11, n % 13, n % 7)) end
end

-- Calls every function and compares: "works" is no error, or one of the function's own about its
-- arguments; "refuses" is the state given.
local function assert_behaves(db, field, refusal, works)
   for signature, expected in surface.each_guarded() do
      db:exec("BEGIN")
      local ok, err = pcall(db.exec, db, "SELECT " .. expected.call)
      db:exec("ROLLBACK")
      local state = ok and "works" or err.sqlstate
      if expected[field] == "refuses" then
         assert(state == refusal, ("%s: %s"):format(signature, ok and "did it" or tostring(err)))
      else
         assert(ok or works(err), ("%s: %s"):format(signature, tostring(err)))
      end
   end
end

describe("on a standby", function()
   local server, standby, db, replica

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      db:exec(ITEMS)
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 10)")
      search(db, 40)
      learning.wait_learned(db, "items", 40)
      standby = server:start_standby({ preload = true, settings = learning.SETTINGS })
      replica = standby:connect()
   end)

   teardown(function()
      if standby then standby:remove() end
      if server then server:remove() end
   end)

   it("functions that only read work, the others say that it is read-only", function()
      assert_behaves(replica, "standby", "25006", function(err)
         return err.sqlstate ~= "25006" and err.sqlstate ~= "XX000" and err.sqlstate ~= "55000"
      end)
   end)

   it("searches use what the primary learned, and nothing is written", function()
      search(replica, 1)
      clock.wait_until("a search to be adaptive", learning.LIMIT, function()
         search(replica, 1)
         local last = replica:row("SELECT mode, reason FROM ruvector_last_search()")
         return last.mode == "adaptive", last.reason
      end)
      local stats = learning.stats(replica, "items")
      assert.equal("standby", stats.worker_state)
      assert.equal(learning.stats(db, "items").samples, stats.samples)
      assert.equal(replica:value("SELECT count(*) FROM ruvector_trajectories"), stats.samples)
   end)
end)

describe("without shared_preload_libraries", function()
   local server, db

   setup(function()
      server = cluster.new({}):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      db:exec(ITEMS)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("functions work that need no shared memory, the others say what to add", function()
      assert_behaves(db, "without_preload", "55000", function(err)
         return not (err.hint or ""):find("shared_preload_libraries", 1, true) and err.sqlstate ~= "XX000"
      end)
   end)
end)

describe("while ruvector.learning_enabled is off", function()
   local server, db

   local function switch(setting)
      server:apply({ ["ruvector.learning_enabled"] = setting }, db)
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      db:exec(ITEMS)
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 10)")
      search(db, 40)
      learning.wait_learned(db, "items", 40)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("nothing is recorded and every search is static; switched on, all goes on", function()
      switch("off")
      local before = learning.stats(db, "items")
      search(db, 30)
      assert.equal("ruvector.learning_enabled is off", db:value("SELECT reason FROM ruvector_last_search()"))
      local after = learning.stats(db, "items")
      assert.equal(before.trajectories, after.trajectories)
      assert.equal(before.ring_written, after.ring_written)
      assert.equal(before.samples, after.samples)
      switch("on")
      search(db, 30)
      assert.equal("learned", db:value("SELECT reason FROM ruvector_last_search()"))
      learning.wait_stats(db, "items", "the searches to be recorded", function(stats)
         return stats.trajectories >= before.trajectories + 30
      end)
   end)
end)
