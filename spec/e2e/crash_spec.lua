-- Crashes at chosen points of build, insert, vacuum and heal (held there at the pause points of
-- ext/src/pause.h), and at random times of a mixed load (CRASH_SEED): SIGKILL to a backend, SIGKILL to
-- the postmaster, and an immediate stop. After recovery the verifier finds nothing, and the index finds
-- exactly the rows of the table, before and after a vacuum.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local indexed = require("support.indexed")
local methods = require("support.methods")
local pages = require("support.pages")
local pause = require("support.pause")
local ruhnsw = require("support.ruhnsw")

local DIM = 8
local SEED = tonumber(os.getenv("CRASH_SEED")) or 20260103

local CRASHES = {
   {
      name = "SIGKILL to the backend",
      run = function(server, session)
         local _, before = server:log():gsub("was terminated by signal 9", "")
         server:kill(session:backend_pid())
         clock.wait_until("the loss to be noticed", 60, function()
            local _, now = server:log():gsub("was terminated by signal 9", "")
            return now > before
         end)
         server:wait_until_ready()
         server:disconnect()
      end,
   },
   {
      name = "SIGKILL to the postmaster",
      run = function(server)
         server:crash()
         server:start()
      end,
   },
   {
      name = "an immediate stop",
      run = function(server)
         -- Not server:stop(), which hangs up first: that would release the hold.
         assert.equal(0, os.execute(server:pg_ctl("stop", "-m", "immediate", "-w", "-s")))
         server:disconnect()
         server:start()
      end,
   },
}

local function insert(first, last)
   return ("INSERT INTO hit SELECT i, vec(i, %d) FROM generate_series(%d, %d) i"):format(DIM, first, last)
end

-- What the session does that is met at a point; prepare comes before.
local HEAL = "SELECT * FROM ruvector_heal_index('hit_v')"
-- So many rows are missed by a search with the least effort that heal has something to do.
local LEAST = "SET ruvector.ef_search = 1"
local MISSED = "ALTER INDEX hit_v SET (m = 2, ef_construction = 4); REINDEX INDEX hit_v"
local HEALED = table.concat({ MISSED, LEAST, HEAL, "RESET ruvector.ef_search" }, "; ")

local SCENES = {
   ruhnsw = {
      { point = "ruhnsw-insert-searched", sql = insert(1001, 1010) },
      { point = "ruhnsw-insert-placed", sql = insert(1001, 1010) },
      { point = "ruhnsw-insert-linked", sql = insert(1001, 1010) },
      { point = "ruhnsw-insert-promote", sql = insert(1, 10), prepare = "TRUNCATE hit" },
      { point = "ruhnsw-build-write", sql = "REINDEX INDEX hit_v" },
      { point = "ruhnsw-vacuum-removed", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id % 3 > 0" },
      { point = "ruhnsw-vacuum-barrier", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id % 3 > 0" },
      { point = "ruhnsw-vacuum-entry", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id <= 290" },
      { point = "ruhnsw-connecting", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id % 9 > 0" },
      { point = "ruhnsw-vacuum-connected", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id <= 200" },
      { point = "ruhnsw-vacuum-repairing", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id % 3 > 0" },
      { point = "ruhnsw-heal-missed", sql = HEAL, prepare = MISSED, settings = LEAST },
      { point = "ruhnsw-heal-linked", sql = HEAL, prepare = MISSED, settings = LEAST },
      { point = "ruhnsw-heal-forgotten", sql = "SELECT * FROM ruvector_heal_index('hit_v', reset => true)",
        prepare = HEALED },
      { point = "ruhnsw-vacuum-repaired", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id % 3 > 0" },
   },
   ruivfflat = {
      { point = "ruivfflat-insert-hint", sql = insert(1001, 4000) },
      { point = "ruivfflat-build-centres", sql = "REINDEX INDEX hit_v" },
      { point = "ruivfflat-vacuum-page", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id % 3 > 0" },
      { point = "ruivfflat-vacuum-hints", sql = "VACUUM hit", prepare = "DELETE FROM hit WHERE id % 3 > 0" },
   },
}

for _, method in pairs(methods) do
   describe(("an index by %s after a crash (CRASH_SEED=%d)"):format(method.name, SEED), function()
      local server, db

      setup(function()
         server = cluster.new { settings = { autovacuum = "off", wal_consistency_checking = "all" } }
         server:start()
         db = server:connect()
         ruhnsw.prepare(db)
      end)

      teardown(function()
         if server then server:remove() end
      end)

      before_each(function()
         if not db:alive() then db = server:connect() end
         db:exec("DROP TABLE IF EXISTS hit")
         indexed.create(db, method, "hit", 300, DIM)
      end)

      local function assert_sound()
         db = server:connect()
         assert.equal("", ruhnsw.findings(db, "hit_v"))
         assert.equal("", indexed.differences(db, method, "hit", DIM))
         db:exec("VACUUM hit")
         assert.equal("", indexed.problems(db, method, "hit", DIM))
         db:exec(insert(5001, 5050))
         assert.equal("", indexed.problems(db, method, "hit", DIM))
         assert.is_nil(server:log():find("inconsistent page", 1, true))
      end

      for _, scene in ipairs(SCENES[method.name]) do
         for _, crash in ipairs(CRASHES) do
            it(("by %s at %s is sound"):format(crash.name, scene.point), function()
               if scene.prepare then db:exec(scene.prepare) end
               local rows = db:value("SELECT count(*) FROM hit")
               local hold = pause.hold(server, scene.point)
               finally(function() server:disconnect() end) -- the holder, too
               local session = pause.session(server, scene.point)
               if scene.settings then session:exec(scene.settings) end
               session:send(scene.sql)
               hold:wait_for(session)
               -- Something that commits flushes what the session has logged so far.
               db:exec("CREATE TABLE flushed (); DROP TABLE flushed")
               crash.run(server, session)
               assert_sound()
               assert.equal(rows + 50, db:value("SELECT count(*) FROM hit"))
            end)
         end
      end

      it("at random times of inserts, deletes and vacuums is sound", function()
         local random = pages.generator(SEED)
         for round = 1, 9 do
            local writer, sweeper = server:connect(), server:connect()
            local deadline = clock.now() + random(200) / 1000
            local first = 10000 * round
            repeat
               if writer:ready() then
                  if writer.pending then writer:receive() end
                  first = first + 20
                  writer:send(insert(first, first + 19))
               end
               if sweeper:ready() then
                  if sweeper.pending then sweeper:receive() end
                  db:exec(("DELETE FROM hit WHERE id %% 20 = %d"):format(random(20)))
                  sweeper:send("VACUUM hit")
               end
               clock.pause(0.001)
            until clock.now() >= deadline
            CRASHES[1 + round % #CRASHES].run(server, random(2) == 0 and writer or sweeper)
            assert_sound()
            db:exec("DELETE FROM hit WHERE id BETWEEN 5001 AND 5050")
         end
      end)
   end)
end
