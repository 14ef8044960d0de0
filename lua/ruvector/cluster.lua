-- cluster.lua - a private PostgreSQL server for the demo, the benchmarks and the end-to-end specs.
--
-- One directory holds everything: data/ (the cluster), log (the server's log) and, when the path is
-- short enough for a unix socket, socket/. Nothing listens on the network, and nothing that is
-- already installed or running is touched.
--
-- Who runs it: PostgreSQL refuses to run as root, so root runs it as the `postgres` user (runuser);
-- anyone else as themselves. When that user cannot reach the directory asked for (a checkout below
-- /root, for example), a temporary directory takes its place and `note` says so.
--
-- What cleans up: a guardian. Beside the server lives a small shell that waits for the end of a
-- pipe held by this process. However this process ends (done, error, Ctrl-C, kill -9), the pipe
-- closes, and the guardian stops the server and removes the directory. remove() closes the same
-- pipe: there is one way to clean up, and it is used every time.

local fcntl = require("posix.fcntl") -- Debian: lua-posix
local signal = require("posix.signal")
local stdio = require("posix.stdio")
local stdlib = require("posix.stdlib")
local unistd = require("posix.unistd")
local lfs = require("lfs") -- Debian: lua-filesystem
local clock = require("ruvector.clock")
local pg = require("ruvector.pg")

local M = {}

local DEFAULT_PG_CONFIG = "/usr/lib/postgresql/15/bin/pg_config"
local SOCKET_PATH_LIMIT = 107 -- bytes of sun_path without its terminator
local PORT = 5432             -- names the socket file only
local RELOAD_LIMIT = 60       -- seconds for a session to read new settings
local CATCH_UP_LIMIT = 60     -- seconds for a standby to replay what was written
local SUPERUSER = "postgres"

-- Settings of every private cluster; options.settings adds to them and overrides them. fsync is
-- off because these clusters need to survive crashed processes, not a crashed machine. The time limits
-- are far beyond any statement of demo, benchmarks and specs: one that waits for ever fails, by name.
local DEFAULT_SETTINGS = {
   listen_addresses = "",
   fsync = "off",
   max_connections = 40,
   shared_buffers = "64MB",
   log_line_prefix = "%m [%p] %b ",
   log_checkpoints = "off",
   statement_timeout = "15min",
   idle_in_transaction_session_timeout = "15min",
}

local function shell_quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

local function shell_words(words)
   local out = {}
   for i, word in ipairs(words) do out[i] = shell_quote(word) end
   return table.concat(out, " ")
end

-- Runs a command line; its status and everything it printed.
local function run(command)
   local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1; echo \"$?\""))
   local text = pipe:read("*a")
   pipe:close()
   local output, status = text:match("^(.-)(%d+)\n$")
   return tonumber(status), output
end

local function check_run(command, what)
   local status, output = run(command)
   if status ~= 0 then error(("%s failed (status %d):\n%s"):format(what, status, output), 0) end
   return output
end

local function absolute(path)
   return path:sub(1, 1) == "/" and path or lfs.currentdir() .. "/" .. path
end

local function temporary_directory()
   return assert(stdlib.mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/ruvector-XXXXXX"))
end

--- The directory of PostgreSQL's programs, by PG_CONFIG or Debian's default place.
function M.bindir(pg_config)
   pg_config = pg_config or os.getenv("PG_CONFIG") or DEFAULT_PG_CONFIG
   local status, output = run(shell_quote(pg_config) .. " --bindir")
   if status ~= 0 then
      error(("cannot run %s: %s\nSet PG_CONFIG to the pg_config of PostgreSQL 15.")
         :format(pg_config, output), 0)
   end
   return (output:gsub("%s+$", ""))
end

local Cluster = {}
Cluster.__index = Cluster

-- The command line that runs words as the server's user, from a directory that it can enter.
function Cluster:as_server_user(words)
   local prefix = self.user and { "runuser", "-u", self.user, "--" } or {}
   return "cd / && " .. shell_words(prefix) .. " " .. shell_words(words)
end

function Cluster:pg_ctl(...)
   return self:as_server_user { self.bin .. "/pg_ctl", "-D", self.data, ... }
end

-- The user that the server has to run as: nil for this process's own.
local function choose_user()
   if unistd.geteuid() ~= 0 then return nil end
   if run("id -u " .. SUPERUSER) ~= 0 then
      error("PostgreSQL does not run as root and there is no user named " .. SUPERUSER ..
         ": install Debian's postgresql package or run this as another user", 0)
   end
   return SUPERUSER
end

-- Makes `path` an empty directory of the server's user; false when that user cannot use it.
function Cluster:claim(path)
   check_run("mkdir -p " .. shell_quote(path), "mkdir")
   if self.user then
      check_run("chown " .. shell_words { self.user, path }, "chown")
   end
   check_run("chmod 700 " .. shell_quote(path), "chmod")
   return run(self:as_server_user { "test", "-w", path }) == 0
end

-- What an earlier run left behind, if anything: a server may still be running there.
function Cluster:discard_leftovers(path)
   self.data = path .. "/data"
   if lfs.attributes(self.data .. "/postmaster.pid") then
      run(self:pg_ctl("stop", "-m", "immediate", "-w"))
   end
   check_run("rm -rf " .. shell_quote(path), "rm")
end

function Cluster:choose_directories(wanted)
   self.directory = wanted and absolute(wanted) or temporary_directory()
   if wanted then self:discard_leftovers(self.directory) end
   if not self:claim(self.directory) then
      check_run("rm -rf " .. shell_quote(self.directory), "rm")
      local reason = ("user %s cannot reach %s"):format(self.user, self.directory)
      self.directory = temporary_directory()
      if not self:claim(self.directory) then
         error(("%s, nor %s: set TMPDIR to a directory that it can"):format(reason,
            self.directory), 0)
      end
      self.note = ("%s, so the private cluster is in %s"):format(reason, self.directory)
   end
   self.data, self.log_file = self.directory .. "/data", self.directory .. "/log"
   self.socket_directory = self.directory .. "/socket"
   if #self.socket_directory + #("/.s.PGSQL." .. PORT) > SOCKET_PATH_LIMIT then
      self.socket_directory = temporary_directory()
   end
   self:claim(self.socket_directory)
end

-- Starts the guardian; see the file header. It ignores the terminal's signals, and leaves the
-- session, so that Ctrl-C reaches only those who can react to it.
function Cluster:start_guardian()
   local stop = self:pg_ctl("stop", "-m", "immediate", "-w", "-t", "60")
   local script = ([[
trap '' INT HUP TERM
cat >/dev/null
if [ -e %s ]; then (%s) >/dev/null 2>&1; fi
cd / && rm -rf %s
]]):format(shell_quote(self.data .. "/postmaster.pid"), stop,
      shell_words { self.directory, self.socket_directory })
   self.guardian = assert(io.popen("exec setsid sh -c " .. shell_quote(script), "w"))
   -- The server must not inherit the pipe, or it would never close.
   local fd = stdio.fileno(self.guardian)
   assert(fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC))
end

local function setting_lines(settings)
   local names, lines = {}, {}
   for name in pairs(settings) do names[#names + 1] = name end
   table.sort(names)
   for i, name in ipairs(names) do
      local value = settings[name]
      if type(value) == "boolean" then value = value and "on" or "off" end
      lines[i] = ("%s = '%s'\n"):format(name, (tostring(value):gsub("'", "''")))
   end
   return table.concat(lines)
end

--- Writes the configuration file anew: the defaults, the cluster's own settings, and `settings`
-- (name -> value), which the cluster remembers. Takes effect at the next start, or by apply().
function Cluster:configure(settings)
   for name, value in pairs(settings or {}) do self.settings[name] = value end
   local file = assert(io.open(self.data .. "/ruvector.conf", "w"))
   file:write(setting_lines(self.settings))
   file:close()
end

--- Creates a cluster; start() runs it. options (all optional):
--   directory  where; emptied first; default: a temporary directory
--   preload    true: shared_preload_libraries = 'ruvector'
--   settings   name -> value, for postgresql.conf
--   record     a file to write the directory's path to, for a wrapper that waits for its removal
--   pg_config  the pg_config whose PostgreSQL to use; default: PG_CONFIG, then Debian's version 15
-- Fields for readers: directory, data, socket_directory, log_file, note, user, port.
function M.new(options)
   options = options or {}
   local self = setmetatable({ port = PORT, connections = {}, settings = {} }, Cluster)
   self.bin = M.bindir(options.pg_config)
   self.user = choose_user()
   self:choose_directories(options.directory)
   self:start_guardian()
   if options.record then
      local file = assert(io.open(options.record, "w"))
      file:write(self.directory, "\n")
      file:close()
   end
   for name, value in pairs(DEFAULT_SETTINGS) do self.settings[name] = value end
   self.settings.unix_socket_directories = self.socket_directory
   self.settings.port = PORT
   if options.preload then self.settings.shared_preload_libraries = "ruvector" end
   local ok, err = pcall(function()
      check_run(self:as_server_user { self.bin .. "/initdb", "-D", self.data, "--no-sync",
         "--no-instructions", "--locale=C", "--encoding=UTF8", "--auth=trust",
         "--username=" .. SUPERUSER }, "initdb")
      check_run(self:as_server_user { "sh", "-c", "echo \"include 'ruvector.conf'\" >>" ..
         shell_quote(self.data .. "/postgresql.conf") .. "; : >" ..
         shell_quote(self.data .. "/ruvector.conf") }, "writing postgresql.conf")
      self:configure(options.settings)
   end)
   if not ok then
      self:remove()
      error(err, 0)
   end
   return self
end

--- A running standby of this running server, with options as those of new(). It is a cluster of its own:
-- its owner removes it, before this one.
function Cluster:start_standby(options)
   local standby = M.new(options)
   local ok, err = pcall(function()
      check_run("rm -rf " .. shell_quote(standby.data), "rm")
      check_run(standby:as_server_user { self.bin .. "/pg_basebackup", "-D", standby.data, "-R", "-c", "fast",
         "-h", self.socket_directory, "-p", tostring(self.port), "-U", SUPERUSER }, "pg_basebackup")
      standby:configure()
      standby:start()
   end)
   if not ok then
      standby:remove()
      error(err, 0)
   end
   return standby
end

--- Waits until `replica`, a session of a standby, sees what `session` of the primary has committed.
function M.catch_up(session, replica)
   local lsn = session:value("SELECT pg_current_wal_lsn()::text")
   clock.wait_until("the standby to replay the primary's WAL", CATCH_UP_LIMIT, function()
      return replica:value("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn)
   end)
end

--- The last n lines (default 30) of the server's log.
function Cluster:log_tail(n)
   local _, output = run("tail -n " .. (n or 30) .. " " .. shell_quote(self.log_file))
   return output
end

--- The whole log so far.
function Cluster:log()
   local file = io.open(self.log_file, "r")
   if not file then return "" end
   local text = file:read("*a")
   file:close()
   return text
end

--- Starts the server and waits until it answers; an error shows the end of the log.
function Cluster:start()
   local status, output = run(self:pg_ctl("start", "-w", "-t", "120", "-s", "-l", self.log_file))
   if status ~= 0 then
      error(("the private server did not start: %s\n%s"):format(output, self:log_tail()), 0)
   end
   self.pid = self:postmaster_pid()
   return self
end

--- The postmaster's process id by its pid file, or nil when there is none.
function Cluster:postmaster_pid()
   local file = io.open(self.data .. "/postmaster.pid", "r")
   if not file then return nil end
   local pid = file:read("*n")
   file:close()
   return pid
end

--- Stops the server: mode "fast" (the default), "smart" or "immediate" (as in a crash).
function Cluster:stop(mode)
   self:disconnect()
   check_run(self:pg_ctl("stop", "-m", mode or "fast", "-w", "-t", "120", "-s"),
      "stopping the private server")
   self.pid = nil
end

--- Stops (mode as in stop) and starts again.
function Cluster:restart(mode)
   self:stop(mode)
   return self:start()
end

--- Changes settings (as in configure) of the running server, and returns when `session` and the others
-- given have read them: so have then sessions that begin later, and the server has told its workers.
-- Settings that need a restart are not waited for.
function Cluster:apply(settings, session, ...)
   local sessions, before = { session, ... }, {}
   assert(session, "apply needs a session to see the settings arrive in")
   -- A time of its own for each session: when it last read the configuration.
   local function loaded(one) return one:value("SELECT extract(epoch FROM pg_conf_load_time())::float8") end
   for i, one in ipairs(sessions) do before[i] = loaded(one) end
   self:configure(settings)
   check_run(self:pg_ctl("reload", "-s"), "pg_ctl reload")
   for i, one in ipairs(sessions) do
      clock.wait_until("a session to read its configuration anew", RELOAD_LIMIT, function()
         return loaded(one) ~= before[i]
      end)
   end
end

--- Sends a signal by number (default SIGKILL) to a process of this server.
function Cluster:kill(pid, number)
   assert(pid ~= self.pid or number, "use crash() or stop() for the postmaster")
   local ok, err = signal.kill(pid, number or signal.SIGKILL)
   if not ok then error(("cannot signal process %s: %s"):format(pid, err), 2) end
end

-- State letter and parent of a process by /proc, or nil when it is gone.
local function process_state(pid)
   local file = io.open("/proc/" .. pid .. "/stat", "r")
   if not file then return nil end
   local text = file:read("*a") or ""
   file:close()
   local state, parent = text:match("%) (%a) (%d+)") -- the name before may hold anything
   return state, tonumber(parent)
end

-- A zombie counts as gone: where nothing reaps orphans it stays listed for ever.
local function exists(pid)
   local state = process_state(pid)
   return state ~= nil and state ~= "Z" and state ~= "X"
end

local function children_of(parent)
   local out = {}
   for entry in lfs.dir("/proc") do
      local pid = tonumber(entry)
      if pid and select(2, process_state(pid)) == parent then out[#out + 1] = pid end
   end
   return out
end

--- Kills the postmaster as the out-of-memory killer would, and waits until no process of the
-- server is left; start() then recovers from the write-ahead log.
function Cluster:crash()
   local pids = children_of(self.pid)
   pids[#pids + 1] = self.pid
   self:kill(self.pid, signal.SIGKILL)
   clock.wait_until("the processes of the killed server to end", 60, function()
      for _, pid in ipairs(pids) do
         if exists(pid) then return false, "process " .. pid end
      end
      return true
   end)
   self:disconnect()
   -- PostgreSQL takes a zombie for a running server and would refuse to start.
   os.remove(self.data .. "/postmaster.pid")
   os.remove(("%s/.s.PGSQL.%d.lock"):format(self.socket_directory, self.port))
   self.pid = nil
end

--- Waits until the server accepts connections (after one of its processes was killed it restarts
-- itself).
function Cluster:wait_until_ready(limit)
   clock.wait_until("the server to accept connections", limit or 60, function()
      local ok, connection = pcall(pg.connect, self:conninfo())
      if ok then
         connection:close()
         return true
      end
      return false, tostring(connection)
   end)
end

--- The keywords to connect with, for pg.connect; database: default "postgres".
function Cluster:conninfo(database)
   return { host = self.socket_directory, port = self.port, user = SUPERUSER,
      dbname = database or "postgres" }
end

--- A connection, closed by stop(), crash() and remove(). options: as pg.connect's table, added to
-- the cluster's own (for example dbname, user, on_notice).
function Cluster:connect(options)
   local conninfo = self:conninfo()
   for key, value in pairs(options or {}) do conninfo[key] = value end
   local connection = pg.connect(conninfo)
   self.connections[#self.connections + 1] = connection
   return connection
end

--- Closes every connection made by connect().
function Cluster:disconnect()
   for _, connection in ipairs(self.connections) do connection:close() end
   self.connections = {}
end

--- Stops the server and removes its directory; more than once is harmless.
function Cluster:remove()
   if not self.guardian then return end
   self:disconnect()
   self.guardian:close()
   self.guardian, self.pid = nil, nil
end

--- Creates and starts a cluster, runs body(cluster), and removes the cluster whatever happens.
function M.with(options, body)
   local cluster = M.new(options)
   local ok, result = pcall(function() return body(cluster:start()) end)
   cluster:remove()
   if not ok then error(result, 0) end
   return result
end

return M
