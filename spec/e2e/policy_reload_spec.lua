-- Policies in a running server: edited, reloaded, broken.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

local FILES = { "verdict", "distillation", "interpolation", "retention", "tuning", "selection",
   "healing" }

local function read(path)
   local file = assert(io.open(path, "r"))
   local text = file:read("*a")
   file:close()
   return text
end

describe("the policies of a running server", function()
   local server, db, directory, original
   local query = learning.queries(1, 3)[1]

   -- In one step, since the worker may read it at any time.
   local function put(path, text)
      local file = assert(io.open(path .. ".new", "w"))
      file:write(text)
      file:close()
      assert(os.rename(path .. ".new", path))
   end

   local function write(name, text) put(directory .. "/" .. name .. ".lua", text) end

   local function restore()
      for _, name in ipairs(FILES) do write(name, original[name]) end
      db:exec("SELECT ruvector_reload_policies()")
   end

   -- A policy file that fails when it is used, not when it is loaded.
   local function failing(name, call)
      return ("return { name = %q, version = '9', describe = 'fails', defaults = {}, %s }"):format(name, call)
   end

   setup(function()
      server = cluster.new { preload = true, settings = learning.SETTINGS }
      directory = server.directory .. "/policies"
      assert(os.execute("mkdir -p '" .. directory .. "' && chmod 755 '" .. directory .. "'") == 0)
      original = {}
      for _, name in ipairs(FILES) do
         original[name] = read("policies/" .. name .. ".lua")
         write(name, original[name])
      end
      server:configure { ["ruvector.policy_directory"] = directory }
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.teach(db, "items")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   after_each(restore)

   local function policy(kind)
      return db:row("SELECT * FROM ruvector_policies() WHERE kind = $1", kind)
   end

   it("are shown with their files, versions and calls", function()
      local verdict = policy("verdict")
      assert.is_true(verdict.serves)
      assert.match("^%x+$", verdict.checksum)
      assert.equal(directory .. "/verdict.lua", verdict.file)
      assert.is_true(verdict.calls > 0)
      assert.equal(0, verdict.failures)
      assert.is_true(verdict.worst_us >= verdict.mean_us)
   end)

   it("change verdicts without a restart", function()
      assert.is_true(learning.stats(db, "items").success_rate > 0)
      write("verdict", [[return { name = "strict", version = "2.0.0", describe = "nothing is good enough",
         defaults = {}, judge = function() return { success = false, confidence = 0.25,
         scores = {}, recommendations = { "try harder" } } end }]])
      local generation = db:value("SELECT ruvector_reload_policies()")
      assert.equal("strict", policy("verdict").name)
      assert.equal("2.0.0", db:value("SELECT version FROM ruvector_policy_state WHERE kind = 'verdict'"))
      assert.equal(generation, policy("verdict").generation)

      db:exec("SELECT ruvector_clear_learning('items')")
      learning.search(db, "items", learning.queries(100))
      local stats = learning.wait_learned(db, "items", 100)
      assert.equal(0, stats.success_rate)
      assert.equal("{\"try harder\"}", db:value("SELECT recommendations FROM ruvector_trajectories LIMIT 1"))
      assert.equal(0, policy("verdict").failures)
   end)

   it("name file and line of a syntax error, and the old ones stay", function()
      local generation = policy("verdict").generation
      write("verdict", "return {\n   name = \"broken\",\n   judge = function( end\n}\n")
      local err = db:fails("SELECT ruvector_reload_policies()")
      assert.equal("F0000", err.sqlstate)
      assert.is_truthy(err.message:find(directory .. "/verdict.lua, line 3", 1, true), err.message)
      assert.is_truthy(err.detail:find("former policies stay in use", 1, true))
      assert.equal("verdict", policy("verdict").name)
      assert.equal(generation, policy("verdict").generation)
      assert.equal("learned", learning.search(db, "items", { query })[1].reason)
   end)

   it("that fail never fail a query", function()
      local failures = policy("interpolation").failures
      write("interpolation", failing("interpolation", [[interpolate = function(query)
         return query.nothing.at_all end]]))
      local ok, err = pcall(db.exec, db, "SELECT ruvector_reload_policies()")
      assert(ok, tostring(err))
      for _, connection in ipairs { db, server:connect() } do
         -- one effort for all leaves nothing to interpolate
         learning.set_target_of(connection, "items", { "slack", "memory" }, 1)
         local result = learning.search(connection, "items", { query })[1]
         assert.equal(learning.K, #result.ids)
         assert.equal("adaptive", result.mode)
         assert.equal("learned, with the built-in interpolation", result.reason)
      end
      assert.equal(failures + 2, policy("interpolation").failures)
      local _, times = server:log():gsub("the interpolation policy failed", "")
      assert.equal(1, times, "one line in the log for one cause")
   end)

   it("are asked once while the question stays the same", function()
      write("interpolation", failing("interpolation",
         "interpolate = function() return { slack = 0.5, ef_search = 50, probes = 3 } end"))
      db:exec("SELECT ruvector_reload_policies()")
      learning.set_target_of(db, "items", { "slack", "memory" }, 1)
      learning.search(db, "items", { query })
      local regions = db:value([[SELECT active FROM ruvector_learning_levers('items')
         WHERE lever = 'regions']])
      local before = policy("interpolation").calls
      for _ = 1, 5 do learning.search(db, "items", { query }) end
      assert.near(0.5, db:value("SELECT slack FROM ruvector_last_search()"), 1e-6)
      -- with patterns the question is another for every query
      assert.equal(before + (regions and 5 or 0), policy("interpolation").calls)
   end)

   it("that never end are stopped and never fail a query", function()
      write("interpolation", failing("interpolation", "interpolate = function() while true do end end"))
      db:exec("SELECT ruvector_reload_policies()")
      learning.set_target_of(db, "items", { "slack", "memory" }, 1)
      local result = learning.search(db, "items", { query })[1]
      assert.equal(learning.K, #result.ids)
      assert.equal("learned, with the built-in interpolation", result.reason)
   end)

   it("that fail in the worker leave learning to the built-in ones", function()
      write("verdict", failing("verdict", "judge = function() error('no verdict today') end"))
      write("distillation", failing("distillation", "distill = function() return 7 end"))
      db:exec("SELECT ruvector_reload_policies()")
      db:exec("SELECT ruvector_clear_learning('items')")
      learning.search(db, "items", learning.queries(100))
      local stats = learning.wait_learned(db, "items", 100)
      assert.is_true(stats.patterns > 0)
      assert.is_nil(stats.last_error)
      assert.is_true(policy("verdict").failures > 0)
      assert.is_true(policy("distillation").failures > 0)
      assert.is_truthy(server:log():find("no verdict today", 1, true))
   end)

   it("are the built-in ones where there is no file", function()
      os.remove(directory .. "/interpolation.lua")
      db:exec("SELECT ruvector_reload_policies()")
      assert.equal("built-in", policy("interpolation").name)
      assert.is_nil(policy("interpolation").checksum)
      assert.equal("learned", learning.search(db, "items", { query })[1].reason)
   end)

   it("reach sessions that were there before", function()
      local other = server:connect()
      learning.search(other, "items", { query })
      write("interpolation", failing("interpolation",
         "interpolate = function() return { slack = 1.5, ef_search = 77, probes = 3 } end"))
      db:exec("SELECT ruvector_reload_policies()")
      learning.set_target_of(other, "items", { "slack", "memory" }, 1)
      learning.search(other, "items", { query })
      assert.near(1.5, other:value("SELECT slack FROM ruvector_last_search()"), 1e-6)
   end)

   local function wait_for_verdict(session, name)
      clock.wait_until("the verdict policy to be " .. name, learning.LIMIT, function()
         local found = session:value("SELECT name FROM ruvector_policies() WHERE kind = 'verdict'")
         return found == name, found
      end)
   end

   describe("of another directory", function()
      local elsewhere

      local function write_elsewhere(text) put(elsewhere .. "/verdict.lua", text) end

      local function move(to) server:apply({ ["ruvector.policy_directory"] = to }, db) end

      before_each(function()
         elsewhere = server.directory .. "/elsewhere"
         assert(os.execute("mkdir -p '" .. elsewhere .. "' && chmod 755 '" .. elsewhere .. "'") == 0)
      end)
      after_each(function()
         move(directory)
         wait_for_verdict(db, "verdict")
      end)

      it("serve once the setting was read, in sessions and in the worker", function()
         write_elsewhere([[return { name = "elsewhere", version = "1", describe = "no success", defaults = {},
            judge = function() return { success = false, confidence = 0.25, scores = {},
               recommendations = {} } end }]])
         local other = server:connect()
         wait_for_verdict(other, "verdict")
         move(elsewhere)
         wait_for_verdict(other, "elsewhere")
         db:exec("SELECT ruvector_clear_learning('items')")
         clock.wait_until("the worker to judge by it", learning.LIMIT, function()
            learning.search(db, "items", learning.queries(50))
            return db:value("SELECT count(*) FROM ruvector_trajectories WHERE confidence = 0.25") > 0
         end)
      end)

      it("leave the former ones where a file is broken, and the log says so once", function()
         write_elsewhere("return {\n   broken =\n")
         local before = server:connect()
         wait_for_verdict(before, "verdict")
         move(elsewhere)
         -- a session that begins now has no former ones
         wait_for_verdict(server:connect(), "built-in")
         assert.equal("verdict", before:value("SELECT name FROM ruvector_policies() WHERE kind = 'verdict'"))
         for _ = 1, 3 do server:connect():exec("SELECT ruvector_policies()") end
         local place = elsewhere:gsub("%p", "%%%0") .. "/verdict.lua, line 3"
         local _, times = server:log():gsub("File " .. place, "")
         assert.equal(1, times)
      end)
   end)

   it("do not keep a server from starting when a file is broken: the built-in ones serve", function()
      write("verdict", "return {\n   broken =\n")
      server:stop()
      local from = #server:log() + 1
      server:start()
      db = server:connect()
      for _ = 1, 3 do
         local session = server:connect()
         wait_for_verdict(session, "built-in")
         assert.equal(learning.K, #learning.search(session, "items", { query })[1].ids)
      end
      local log = server:log():sub(from)
      local _, times = log:gsub("File " .. directory:gsub("%p", "%%%0") .. "/verdict.lua, line 3", "")
      assert.equal(1, times)
   end)
end)
