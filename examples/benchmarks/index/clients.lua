-- clients.lua - client processes that send prepared statements at the same time, and time each one.
--
-- Each client is a process of its own with one connection: two clients in one process would take turns.
-- The parent sends a command (one line of JSON) through a pipe and reads one line of JSON back; a client ends
-- when its pipe does. Clients are forked before the server starts, since they must not hold the pipe
-- whose end tells the server's guardian to clean up.
--
-- What is timed is the least that any client does: vectors are packed in binary form beforehand, results
-- come in binary form and are not read. All clients of a window start and stop at one reading of the
-- monotonic clock.

local unistd = require("posix.unistd") -- Debian: lua-posix
local wait = require("posix.sys.wait").wait
local cjson = require("cjson") -- Debian: lua-cjson
local clock = require("ruvector.clock")
local pg = require("ruvector.pg")
local data = require("benchmarks.index.data")

local M = {}

-- ---- the pipe ----------------------------------------------------------------------------------

local Channel = {}
Channel.__index = Channel

local function write_all(fd, text)
   local at = 1
   while at <= #text do
      local written, err = unistd.write(fd, text:sub(at, at + 65535))
      if not written then error("cannot write to a pipe: " .. tostring(err), 0) end
      at = at + written
   end
end

function Channel:put(message) write_all(self.output, cjson.encode(message) .. "\n") end

-- The next message, or nil at the end of the pipe.
function Channel:get()
   local parts = { self.rest }
   while true do
      local piece = parts[#parts]
      local at = piece:find("\n", 1, true)
      if at then
         parts[#parts] = piece:sub(1, at - 1)
         self.rest = piece:sub(at + 1)
         return cjson.decode(table.concat(parts))
      end
      local more = unistd.read(self.input, 65536)
      if not more or more == "" then return nil end
      parts[#parts + 1] = more
   end
end

-- ---- in the client -----------------------------------------------------------------------------

local commands = {}

function commands.connect(state, message)
   if state.db then state.db:close() end
   state.db, state.statements = pg.connect(message.conninfo), {}
   for _, sql in ipairs(message.setup) do state.db:exec(sql) end
   return {}
end

local function vector_of(vectors, i)
   return pg.vector(vectors.data + i * vectors.dim, vectors.dim)
end

-- Packs the test queries.
function commands.queries(state, message)
   local vectors = data.vectors(message.path)
   state.packed = {}
   for query = message.first, message.last do
      state.packed[#state.packed + 1] = pg.parameters(vector_of(vectors, query))
   end
   return {}
end

local function statement(state, sql)
   state.statements[sql] = state.statements[sql] or state.db:prepare(sql)
   return state.statements[sql]
end

-- Searches from message.start to message.stop; each statement must return message.rows rows.
function commands.window(state, message)
   for _, sql in ipairs(message.setup) do state.db:exec(sql) end
   local search, packed, latencies, n = statement(state, message.sql), state.packed, {}, 0
   -- Clients start far apart in the queries: one behind the other would find its nodes in the cache.
   local query = (message.offset + math.floor(message.share * #packed)) % #packed
   search:run(packed[query + 1])
   clock.pause(math.max(0, message.start - clock.now()))
   local before = clock.now()
   while before < message.stop do
      local rows = search:run(packed[query + 1])
      local now = clock.now()
      if rows ~= message.rows then
         error(("%d rows where %d were asked for: %s"):format(rows, message.rows, message.sql), 0)
      end
      n = n + 1
      latencies[n], before, query = (now - before) * 1e6, now, (query + 1) % #packed
   end
   return { latencies = latencies }
end

-- Runs statements one after the other.
function commands.exec(state, message)
   for _, sql in ipairs(message.statements) do state.db:exec(sql) end
   return {}
end

-- Inserts message.ids of the rows, one statement and transaction each.
function commands.insert(state, message)
   local vectors = data.vectors(message.path)
   local insert, packed, latencies = statement(state, message.sql), {}, {}
   for i, id in ipairs(message.ids) do
      packed[i] = pg.parameters(id, vector_of(vectors, id))
   end
   clock.pause(math.max(0, message.start - clock.now()))
   local started = clock.now()
   local before = started
   for i = 1, #packed do
      insert:run(packed[i])
      local now = clock.now()
      latencies[i], before = (now - before) * 1e6, now
   end
   return { latencies = latencies, started = started, ended = before }
end

local function serve(channel)
   local state = {}
   for message in function() return channel:get() end do
      local ok, answer = pcall(function() return commands[message.op](state, message) end)
      channel:put(ok and answer or { failure = tostring(answer) })
   end
   if state.db then state.db:close() end
end

-- ---- in the parent -----------------------------------------------------------------------------

local Pool = {}
Pool.__index = Pool

--- Forks `count` clients. Call it before the server is started.
function M.pool(count)
   local self = setmetatable({}, Pool)
   for i = 1, count do
      local command_read, command_write = unistd.pipe()
      local answer_read, answer_write = unistd.pipe()
      local pid = assert(unistd.fork())
      if pid == 0 then
         unistd.close(command_write)
         unistd.close(answer_read)
         local ok, err = pcall(serve, setmetatable(
            { input = command_read, output = answer_write, rest = "" }, Channel))
         if not ok then io.stderr:write("a client failed: ", tostring(err), "\n") end
         unistd._exit(ok and 0 or 1)
      end
      unistd.close(command_read)
      unistd.close(answer_write)
      self[i] = setmetatable({ input = answer_read, output = command_write, rest = "", pid = pid }, Channel)
   end
   return self
end

--- Sends message(i) to the first n clients and returns their answers; raises the first failure.
function Pool:all(n, message)
   local answers, failure = {}, nil
   for i = 1, n do self[i]:put(message(i)) end
   for i = 1, n do
      answers[i] = self[i]:get() or { failure = "client " .. i .. " ended" }
      failure = failure or answers[i].failure
   end
   if failure then error(failure, 0) end
   return answers
end

--- One window of `seconds` with n clients. Returns {qps, latencies (microseconds)}. qps: of a closed loop,
-- clients over mean latency, so that a statement that the window's end cuts does not round it.
function Pool:window(n, seconds, message)
   local start = clock.now() + 0.1
   local answers = self:all(n, function(i)
      return { op = "window", sql = message.sql, setup = message.setup, rows = message.rows, start = start,
         stop = start + seconds, offset = message.offset, share = (i - 1) / n }
   end)
   local out = { qps = 0, latencies = {} }
   for _, answer in ipairs(answers) do
      local sum = 0
      for _, latency in ipairs(answer.latencies) do
         sum = sum + latency
         out.latencies[#out.latencies + 1] = latency
      end
      out.qps = out.qps + #answer.latencies / sum * 1e6
   end
   return out
end

--- Ends the clients.
function Pool:close()
   for _, client in ipairs(self) do
      unistd.close(client.output)
      unistd.close(client.input)
   end
   for _, client in ipairs(self) do wait(client.pid) end
end

return M
