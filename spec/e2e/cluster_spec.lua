-- The private cluster: what it promises to the demo and to the other end-to-end specs.

local cluster = require("ruvector.cluster")
local clock = require("ruvector.clock")
local lfs = require("lfs")
local stdlib = require("posix.stdlib")

local function exists(path) return lfs.attributes(path) ~= nil end

local function remove_tree(path) os.execute("rm -rf '" .. path .. "'") end

describe("a private cluster", function()
   local server

   setup(function()
      server = cluster.new { settings = { work_mem = "5MB" } }
      server:start()
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("answers on a unix socket and nowhere else", function()
      local db = server:connect()
      assert.equal("", db:value("SHOW listen_addresses"))
      assert.equal(server.socket_directory, db:value("SHOW unix_socket_directories"))
      assert.is_nil(db:value("SELECT inet_server_addr()"))
   end)

   it("uses UTF8 and the C locale", function()
      local db = server:connect()
      assert.equal("UTF8", db:value("SHOW server_encoding"))
      assert.equal("C", db:value("SHOW lc_collate"))
   end)

   it("takes settings at creation and later, kept over a restart", function()
      assert.equal("5MB", server:connect():value("SHOW work_mem"))
      server:configure { work_mem = "7MB", log_line_prefix = "it's %p " }
      server:restart()
      local db = server:connect()
      assert.equal("7MB", db:value("SHOW work_mem"))
      assert.equal("it's %p ", db:value("SHOW log_line_prefix"))
   end)

   it("takes settings without a restart, in sessions old and new", function()
      local db = server:connect()
      server:apply({ work_mem = "9MB" }, db)
      assert.equal("9MB", db:value("SHOW work_mem"))
      assert.equal("9MB", server:connect():value("SHOW work_mem"))
      db:close()
   end)

   it("keeps committed rows over a crash of the postmaster, and restarts", function()
      server:connect():exec("CREATE TABLE crashed (x int); INSERT INTO crashed VALUES (42)")
      local before = server.pid
      server:crash()
      assert.is_nil(server.pid)
      server:start()
      assert.are_not.equal(before, server.pid)
      assert.equal(42, server:connect():value("SELECT x FROM crashed"))
      assert.matches("database system was interrupted", server:log(), 1, true)
   end)

   it("recovers by itself when a backend is killed", function()
      local db = server:connect()
      local pid = db:backend_pid()
      server:kill(pid)
      clock.wait_until("the loss to be noticed", 30, function()
         return server:log():find("was terminated by signal 9", 1, true) ~= nil
      end)
      server:wait_until_ready()
      assert.equal(1, server:connect():value("SELECT 1"))
      server:disconnect()
   end)

   it("refuses to kill its postmaster as if it were a backend", function()
      assert.has_error(function() server:kill(server.pid) end)
   end)

   it("says what the log says when it cannot start", function()
      local broken = cluster.new { settings = { no_such_setting = "1" } }
      local ok, err = pcall(broken.start, broken)
      local directory = broken.directory
      broken:remove()
      assert.is_false(ok)
      assert.matches('unrecognized configuration parameter "no_such_setting"', err, 1, true)
      assert.is_false(exists(directory))
   end)

   it("says what to set when there is no PostgreSQL", function()
      local ok, err = pcall(cluster.new, { pg_config = "/nonexistent/pg_config" })
      assert.is_false(ok)
      assert.matches("Set PG_CONFIG", err, 1, true)
   end)

   it("leaves nothing behind after an error in its user's code", function()
      local seen
      local ok, err = pcall(cluster.with, nil, function(own)
         seen = own
         error({ reason = "mine" })
      end)
      assert.is_false(ok)
      assert.equal("mine", err.reason)
      assert.is_false(exists(seen.directory))
      assert.is_false(exists(seen.socket_directory))
   end)

   it("puts the socket elsewhere when the path is too long for one", function()
      local root = stdlib.mkdtemp("/tmp/ruvector-spec-XXXXXX")
      os.execute("chmod 755 " .. root)
      local long = root .. "/" .. ("x"):rep(100)
      local socket = cluster.with({ directory = long }, function(own)
         assert.equal(long .. "/data", own:connect():value("SHOW data_directory"))
         assert.is_true(#own.socket_directory < 100)
         return own.socket_directory
      end)
      assert.is_false(exists(long))
      assert.is_false(exists(socket))
      remove_tree(root)
   end)

   it("clears what an earlier run left in its directory", function()
      local root = stdlib.mkdtemp("/tmp/ruvector-spec-XXXXXX")
      os.execute("chmod 755 " .. root .. " && mkdir -p " .. root .. "/c/data && touch " .. root .. "/c/old")
      cluster.with({ directory = root .. "/c" }, function(own)
         assert.is_false(exists(own.directory .. "/old"))
      end)
      remove_tree(root)
   end)

   it("is stopped and removed when its owner is killed", function()
      local root = stdlib.mkdtemp("/tmp/ruvector-spec-XXXXXX")
      os.execute("chmod 755 " .. root)
      -- The owner reports, then kills itself as hard as can be.
      local owner = ([[
         local own = require("ruvector.cluster").new { directory = %q }
         own:start()
         io.stdout:write(own.pid, "\n")
         io.stdout:flush()
         require("posix.signal").kill(require("posix.unistd").getpid(), 9)
      ]]):format(root .. "/c")
      local script = root .. "/owner.lua"
      local file = assert(io.open(script, "w"))
      file:write(owner)
      file:close()
      local pipe = io.popen("LUA_PATH='" .. package.path .. "' luajit " .. script .. " 2>/dev/null")
      local pid = pipe:read("*n")
      pipe:close()
      assert.is_number(pid)
      clock.wait_until("the guardian to clean up", 60, function() return not exists(root .. "/c") end)
      remove_tree(root)
   end)
end)
