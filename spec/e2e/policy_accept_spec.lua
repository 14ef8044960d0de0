-- What a reload accepted serves everywhere until the next one, whatever becomes of the files.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

local BROKEN = "return {\n   broken =\n"

-- Verdicts of this policy can be told by their confidence.
local function verdict(name, confidence, more)
   return ([[return { name = %q, version = "1", describe = "one answer", defaults = {}, %s
      judge = function() return { success = true, confidence = %.3f, scores = {},
         recommendations = {} } end }]]):format(name, more or "", confidence)
end

local function write(directory, text)
   local file = assert(io.open(directory .. "/verdict.lua", "w"))
   file:write(text)
   file:close()
end

local function make_directory(server, name)
   local directory = server.directory .. "/" .. name
   assert(os.execute("mkdir -p '" .. directory .. "' && chmod 755 '" .. directory .. "'") == 0)
   return directory
end

local function serving(db)
   return db:row("SELECT * FROM ruvector_policies() WHERE kind = 'verdict' AND serves")
end

-- What serves in a session that begins now.
local function serving_anew(server)
   local session = server:connect()
   local now = serving(session)
   session:close()
   return now
end

local function reload(db) return db:value("SELECT ruvector_reload_policies()") end

describe("accepted policies", function()
   local server, db, directory

   local function put(text) write(directory, text) end

   setup(function()
      server = cluster.new { preload = true, settings = learning.SETTINGS }
      directory = make_directory(server, "policies")
      put(verdict("first", 0.125))
      server:configure { ["ruvector.policy_directory"] = directory }
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 50)")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   before_each(function()
      put(verdict("first", 0.125))
      reload(db)
   end)

   -- Every search from now on is judged with this confidence.
   local function worker_judges(confidence)
      db:exec("SELECT ruvector_clear_learning('items')")
      learning.search(db, "items", learning.queries(60))
      learning.wait_learned(db, "items", 60)
      local judged = db:row("SELECT min(confidence), max(confidence) FROM ruvector_trajectories")
      assert.equal(confidence, judged.min)
      assert.equal(confidence, judged.max)
   end

   local function renew_worker()
      local worker = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'ruvector learning worker'"
      local former = clock.wait_until("a worker", learning.LIMIT, function() return db:value(worker) end)
      db:exec(("SELECT pg_terminate_backend(%d)"):format(former))
      clock.wait_until("another worker", learning.LIMIT, function()
         local pid = db:value(worker)
         return pid and pid ~= former, pid
      end)
   end

   for what, text in pairs { ["a valid one"] = verdict("second", 0.75), ["a broken one"] = BROKEN } do
      it("stay in all processes, old and new, when a file becomes " .. what, function()
         local before = serving(db)
         put(text)
         for _, session in ipairs { db, server:connect() } do
            local now = serving(session)
            assert.equal("first", now.name)
            assert.equal(before.checksum, now.checksum)
            assert.equal(before.generation, now.generation)
            -- a host that is made anew does not look at the file either
            session:exec("SET ruvector.policy_fuel = 900000")
            assert.equal(before.checksum, serving(session).checksum)
            session:exec("RESET ruvector.policy_fuel")
         end
         worker_judges(0.125)
         renew_worker()
         worker_judges(0.125)
         if text == BROKEN then
            db:fails("SELECT ruvector_reload_policies()")
            assert.equal(before.generation, serving_anew(server).generation)
            assert.equal(before.checksum, serving_anew(server).checksum)
            worker_judges(0.125)
            return
         end
         reload(db)
         assert.equal("second", serving(db).name)
         assert.equal("second", serving_anew(server).name)
         worker_judges(0.75)
      end)
   end

   it("are those of the first process after a start, without a reload", function()
      server:restart()
      db = server:connect()
      local first = serving(db)
      assert.equal("first", first.name)
      put(verdict("second", 0.75))
      for _ = 1, 2 do
         local now = serving_anew(server)
         assert.same({ first.checksum, first.generation }, { now.checksum, now.generation })
      end
      worker_judges(0.125)
   end)

   it("are the built-in ones after a start with a broken file, until a reload", function()
      put(BROKEN)
      local from = #server:log() + 1
      server:restart()
      db = server:connect()
      assert.equal("built-in", serving(db).name)
      put(verdict("mended", 0.5))
      for _ = 1, 3 do assert.equal("built-in", serving_anew(server).name) end
      local _, times = server:log():sub(from):gsub("the policies were not loaded", "")
      assert.equal(1, times)
      local early = server:connect()
      assert.equal("built-in", serving(early).name)
      reload(db)
      for _, session in ipairs { db, early, server:connect() } do
         assert.equal("mended", serving(session).name)
      end
   end)

   it("do not concern a session with a directory of its own, nor that session them", function()
      local own = make_directory(server, "own")
      write(own, verdict("own", 0.25))
      local session, other = server:connect(), server:connect()
      local accepted = serving(other).checksum
      session:exec(("SET ruvector.policy_directory = '%s'"):format(own))
      assert.equal("own", serving(session).name)
      put(verdict("second", 0.75))
      write(own, verdict("owner", 0.25))
      reload(session)
      assert.equal("owner", serving(session).name)
      assert.equal(accepted, serving(other).checksum)
      assert.equal(accepted, serving_anew(server).checksum)
      -- by its own setting, but the directory of all
      session:exec(("SET ruvector.policy_directory = '%s'"):format(directory))
      assert.equal(accepted, serving(session).checksum)
      reload(session)
      assert.equal("second", serving(session).name)
      assert.equal("second", serving(other).name)
      accepted = serving_anew(server).checksum
      put(verdict("third", 0.5))
      session:exec("RESET ruvector.policy_directory")
      assert.equal(accepted, serving(session).checksum)
      reload(other)
      for _, one in ipairs { session, other, server:connect() } do
         assert.equal("third", serving(one).name)
      end
   end)

   it("of another directory are taken once for all when the configuration names it", function()
      local elsewhere = make_directory(server, "elsewhere")
      write(elsewhere, verdict("elsewhere", 0.375))
      local session = server:connect()
      assert.equal("first", serving(session).name)
      local before = db:value("SHOW ruvector.policy_directory")
      server:apply({ ["ruvector.policy_directory"] = elsewhere }, db)
      local function wait(name)
         clock.wait_until(name .. " to serve", learning.LIMIT, function()
            local found = serving_anew(server).name
            return found == name, found
         end)
      end
      wait("elsewhere")
      write(elsewhere, verdict("edited", 0.5))
      assert.equal("elsewhere", serving_anew(server).name)
      clock.wait_until("the older session to follow", learning.LIMIT, function()
         local found = serving(session).name
         assert.not_equal("edited", found)
         return found == "elsewhere", found
      end)
      server:apply({ ["ruvector.policy_directory"] = before }, db)
      wait("first")
      clock.wait_until("this session to follow", learning.LIMIT, function()
         return serving(db).name == "first"
      end)
   end)

   it("take no more memory in a process that follows many reloads", function()
      local session, early = server:connect(), nil
      local function memory()
         return session:row("SELECT sum(total_bytes)::bigint AS bytes, count(*) FILTER (WHERE name = "
            .. "'ruvector policies') AS hosts FROM pg_backend_memory_contexts")
      end
      for i = 1, 200 do
         put(verdict("v" .. i, 0.5))
         local generation = reload(db)
         local now = serving(session)
         assert.equal("v" .. i, now.name)
         assert.equal(generation, now.generation)
         if i == 20 then early = memory() end
      end
      local late = memory()
      assert.equal(1, late.hosts)
      assert.is_true(late.bytes <= 1.1 * early.bytes, early.bytes .. " bytes grew to " .. late.bytes)
   end)

   it("are the same everywhere after reloads at the same time", function()
      local clients = {}
      for i = 1, 4 do
         clients[i] = server:connect()
         clients[i]:exec("SET ruvector.policy_fuel = 1000000000")
      end
      local slow = "self_test = function() for _ = 1, 3e7 do end return true end,"
      for round = 1, 3 do
         for i, client in ipairs(clients) do
            -- in one step, so that every reload finds a whole file
            local path = directory .. "/verdict.lua"
            write(server.directory, verdict(("v%d_%d"):format(round, i), 0.5, i < 4 and slow))
            assert(os.rename(server.directory .. "/verdict.lua", path))
            client:send("SELECT ruvector_reload_policies()")
            clock.pause(0.05) -- so that most reloads have read their file before it becomes another
         end
         local highest = 0
         for _, client in ipairs(clients) do highest = math.max(highest, client:receive()[1][1]) end
         -- The last file was there before the last reload began. Reloads of older ones take longer, and
         -- do not come after it.
         for _, client in ipairs(clients) do
            local now = serving(client)
            assert.equal(("v%d_4"):format(round), now.name)
            assert.equal(highest, now.generation)
         end
         assert.equal(highest, serving_anew(server).generation)
      end
   end)
end)

describe("policies without preloading", function()
   it("are what the session finds in the directory", function()
      cluster.with({}, function(server)
         local directory = make_directory(server, "policies")
         write(directory, verdict("first", 0.125))
         server:configure { ["ruvector.policy_directory"] = directory }
         server:restart()
         local db = server:connect()
         db:exec("CREATE EXTENSION ruvector")
         assert.equal("first", serving(db).name)
         write(directory, verdict("second", 0.75))
         assert.equal("first", serving(db).name)
         assert.equal("second", serving_anew(server).name)
         reload(db)
         assert.equal("second", serving(db).name)
      end)
   end)
end)
