-- pg.lua - a small binding to libpq: statements, parameters, COPY, asynchronous queries, errors.
--
-- Why not a packaged driver: none in Debian sends binary parameters or exposes asynchronous
-- queries, and specs need the SQLSTATE, detail and hint of every error. libpq's ABI is stable, so
-- its declarations are written out here.
--
-- Results. A statement returns an array of rows with the fields `columns` (names), `command` (the
-- command tag) and `affected` (rows touched). A row holds every value twice, by name and by
-- position; NULL is nil. boolean becomes a Lua boolean, int2/int4/int8/oid/float4/float8 a number
-- (integers from 2^53 on stay text, so that nothing is rounded silently), anything else its text.
--
-- Parameters are Lua values in order: nil is NULL, strings, numbers and booleans travel as text,
-- pg.vector(...) and pg.binary(...) in binary form.
--
-- Errors are Lua errors carrying a table {message, sqlstate, severity, detail, hint, context, sql}
-- that also reads well through tostring(). A lost connection has sqlstate 08006.
--
-- Notices: libpq reports them through a C callback, and LuaJIT must not be inside a compiled FFI
-- call when one arrives. All calls that can receive messages from the server therefore live in one
-- table of functions with the JIT compiler off.

local ffi = require("ffi")
local bit = require("bit")

ffi.cdef [[
typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;
typedef struct pg_cancel PGcancel;
typedef void (*PQnoticeReceiver)(void *arg, const PGresult *res);
PGconn *PQconnectdb(const char *conninfo);
void PQfinish(PGconn *conn);
int PQstatus(const PGconn *conn);
int PQtransactionStatus(const PGconn *conn);
char *PQerrorMessage(const PGconn *conn);
int PQbackendPID(const PGconn *conn);
int PQsocket(const PGconn *conn);
PQnoticeReceiver PQsetNoticeReceiver(PGconn *conn, PQnoticeReceiver proc, void *arg);
PGresult *PQexec(PGconn *conn, const char *query);
PGresult *PQexecParams(PGconn *conn, const char *command, int n, const unsigned int *types,
                       const char *const *values, const int *lengths, const int *formats,
                       int result_format);
PGresult *PQprepare(PGconn *conn, const char *name, const char *query, int n,
                    const unsigned int *types);
PGresult *PQexecPrepared(PGconn *conn, const char *name, int n, const char *const *values,
                         const int *lengths, const int *formats, int result_format);
int PQsendQueryParams(PGconn *conn, const char *command, int n, const unsigned int *types,
                      const char *const *values, const int *lengths, const int *formats,
                      int result_format);
int PQsendQueryPrepared(PGconn *conn, const char *name, int n, const char *const *values,
                        const int *lengths, const int *formats, int result_format);
PGresult *PQgetResult(PGconn *conn);
int PQconsumeInput(PGconn *conn);
int PQisBusy(PGconn *conn);
int PQputCopyData(PGconn *conn, const char *buffer, int nbytes);
int PQputCopyEnd(PGconn *conn, const char *errormsg);
int PQgetCopyData(PGconn *conn, char **buffer, int async);
void PQfreemem(void *ptr);
PGcancel *PQgetCancel(PGconn *conn);
void PQfreeCancel(PGcancel *cancel);
int PQcancel(PGcancel *cancel, char *errbuf, int errbufsize);
int PQresultStatus(const PGresult *res);
char *PQresultErrorField(const PGresult *res, int fieldcode);
char *PQresultErrorMessage(const PGresult *res);
int PQntuples(const PGresult *res);
int PQnfields(const PGresult *res);
char *PQfname(const PGresult *res, int field);
unsigned int PQftype(const PGresult *res, int field);
char *PQgetvalue(const PGresult *res, int row, int field);
int PQgetlength(const PGresult *res, int row, int field);
int PQgetisnull(const PGresult *res, int row, int field);
char *PQcmdStatus(PGresult *res);
char *PQcmdTuples(PGresult *res);
void PQclear(PGresult *res);
]]

local libpq = ffi.load("libpq.so.5")

local M = {}

-- ExecStatusType and ConnStatusType of libpq-fe.h.
local STATUS_OK = { [0] = true, [1] = true, [2] = true } -- empty query, command ok, tuples ok
local COPY_OUT, COPY_IN = 3, 4
local CONNECTION_OK = 0
local NO_RESULT = ffi.new("PGresult *")

-- ---- values ------------------------------------------------------------------------------------

local Binary = {}
Binary.__index = Binary

--- A parameter or COPY field that is sent in binary form: the bytes of the type's receive function.
function M.binary(bytes) return setmetatable({ bytes = bytes }, Binary) end

local swap = ffi.new("union { float f; double d; uint32_t u; uint32_t w[2]; }")

local function int16(n) return string.char(bit.band(bit.rshift(n, 8), 255), bit.band(n, 255)) end

local function int32(n)
   return string.char(bit.band(bit.rshift(n, 24), 255), bit.band(bit.rshift(n, 16), 255),
      bit.band(bit.rshift(n, 8), 255), bit.band(n, 255))
end

-- Two's complement, exact for integers up to 2^53.
local function int64(n)
   local high = math.floor(n / 4294967296)
   return int32(bit.tobit(high)) .. int32(bit.tobit(n - high * 4294967296))
end

--- The binary form of a ruvector: int16 dimensions, int16 zero, then big-endian float4 values.
-- source: an array of numbers, or a pointer to at least `dim` floats (then dim is needed).
function M.vector(source, dim)
   local is_table = type(source) == "table"
   dim = dim or (is_table and #source) or error("pg.vector: a pointer needs its dimension", 2)
   local words = ffi.new("uint32_t[?]", dim + 1)
   words[0] = bit.bswap(bit.lshift(dim, 16))
   for i = 1, dim do
      swap.f = is_table and source[i] or source[i - 1]
      words[i] = bit.bswap(swap.u)
   end
   return M.binary(ffi.string(words, 4 * (dim + 1)))
end

--- The text form of a vector, "[1,2.5,3]", of an array of numbers.
function M.vector_text(values)
   local out = {}
   for i, value in ipairs(values) do out[i] = ("%.9g"):format(value) end
   return "[" .. table.concat(out, ",") .. "]"
end

--- The text form of an SQL array of an array of numbers: "{1,2,3}".
function M.array(values)
   local out = {}
   for i, value in ipairs(values) do out[i] = ("%.17g"):format(value) end
   return "{" .. table.concat(out, ",") .. "}"
end

--- The text of a number or string as a parameter: integers without an exponent or fraction.
local function text_of(value)
   if type(value) == "number" then
      if value == math.floor(value) and math.abs(value) < 2 ^ 53 then
         return ("%d"):format(value)
      end
      return ("%.17g"):format(value)
   end
   return tostring(value)
end

local function parse_integer(text)
   local value = tonumber(text)
   return math.abs(value) < 2 ^ 53 and value or text
end

local special_floats = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }
local function parse_float(text) return special_floats[text] or tonumber(text) end

-- By type OID (pg_type.dat); those of the built-in types never change.
local parsers = {
   [16] = function(text) return text == "t" end,
   [20] = parse_integer, [21] = parse_integer, [23] = parse_integer, [26] = parse_integer,
   [700] = parse_float, [701] = parse_float,
}

-- ---- errors and notices ------------------------------------------------------------------------

local Error = {}
Error.__index = Error

function Error:__tostring()
   local lines = { ("%s: %s (SQLSTATE %s)"):format(self.severity, self.message, self.sqlstate) }
   for _, field in ipairs { "detail", "hint", "context", "sql" } do
      if self[field] then lines[#lines + 1] = "  " .. field .. ": " .. self[field] end
   end
   return table.concat(lines, "\n")
end

--- Whether a caught value is an error of the database (or of the connection to it).
function M.is_error(value) return getmetatable(value) == Error end

local diagnostic_fields = {
   severity = "V", sqlstate = "C", message = "M", detail = "D", hint = "H", context = "W",
   position = "P",
}

local function diagnostics(res)
   local out = {}
   for name, code in pairs(diagnostic_fields) do
      local text = libpq.PQresultErrorField(res, code:byte())
      if text ~= nil then out[name] = ffi.string(text) end
   end
   return out
end

local function trimmed(text) return (text:gsub("%s+$", "")) end

-- An error of the connection rather than of a statement.
local function connection_error(conn, sql)
   local message = trimmed(ffi.string(libpq.PQerrorMessage(conn)))
   return setmetatable(
      { severity = "FATAL", sqlstate = "08006", message = message, sql = sql }, Error)
end

local function result_error(conn, res, sql)
   local err = diagnostics(res)
   if not err.message or not err.sqlstate then return connection_error(conn, sql) end
   err.sql = sql
   return setmetatable(err, Error)
end

-- One C callback serves every connection; it only collects. Keyed by the number given as `arg`.
local inboxes = setmetatable({}, { __mode = "v" })
local next_inbox = 0
local receive_notice = ffi.cast("PQnoticeReceiver", function(arg, res)
   local inbox = inboxes[tonumber(ffi.cast("intptr_t", arg))]
   if inbox then inbox[#inbox + 1] = diagnostics(res) end
end)

-- Calls during which a notice may arrive; see the file header.
local calls = {}
function calls.exec(...) return libpq.PQexec(...) end
function calls.exec_params(...) return libpq.PQexecParams(...) end
function calls.prepare(...) return libpq.PQprepare(...) end
function calls.exec_prepared(...) return libpq.PQexecPrepared(...) end
function calls.send_params(...) return libpq.PQsendQueryParams(...) end
function calls.send_prepared(...) return libpq.PQsendQueryPrepared(...) end
function calls.get_result(conn) return libpq.PQgetResult(conn) end
function calls.consume_input(conn) return libpq.PQconsumeInput(conn) end
function calls.is_busy(conn) return libpq.PQisBusy(conn) end
function calls.put_copy_data(...) return libpq.PQputCopyData(...) end
function calls.put_copy_end(...) return libpq.PQputCopyEnd(...) end
function calls.get_copy_data(...) return libpq.PQgetCopyData(...) end
function calls.finish(conn) return libpq.PQfinish(conn) end
for _, call in pairs(calls) do jit.off(call) end

-- ---- results -----------------------------------------------------------------------------------

local function read_rows(res)
   local out = { columns = {}, command = ffi.string(libpq.PQcmdStatus(res)) }
   out.affected = tonumber(ffi.string(libpq.PQcmdTuples(res))) or 0
   local columns, parse = libpq.PQnfields(res), {}
   for column = 0, columns - 1 do
      out.columns[column + 1] = ffi.string(libpq.PQfname(res, column))
      parse[column + 1] = parsers[tonumber(libpq.PQftype(res, column))]
   end
   for row = 0, libpq.PQntuples(res) - 1 do
      local values = {}
      for column = 0, columns - 1 do
         if libpq.PQgetisnull(res, row, column) == 0 then
            local text = ffi.string(libpq.PQgetvalue(res, row, column),
               libpq.PQgetlength(res, row, column))
            local parser = parse[column + 1]
            local value = text
            if parser then value = parser(text) end
            values[column + 1], values[out.columns[column + 1]] = value, value
         end
      end
      out[row + 1] = values
   end
   return out
end

-- ---- connections -------------------------------------------------------------------------------

local Connection = {}
Connection.__index = Connection

local function conninfo_of(options)
   local parts = {}
   for key, value in pairs(options) do
      if key ~= "on_notice" then
         local quoted = tostring(value):gsub("([\\'])", "\\%1")
         parts[#parts + 1] = ("%s='%s'"):format(key, quoted)
      end
   end
   return table.concat(parts, " ")
end

--- Opens a connection. options: a libpq connection string, or a table of libpq's keywords (host,
-- port, dbname, user, ...) with, optionally, on_notice = function(notice), called after the
-- statement that caused it with {severity, sqlstate, message, detail, hint, context}. Notices are
-- also kept in the connection's field `notices`.
function M.connect(options)
   local settings = type(options) == "table" and options or {}
   local conninfo = type(options) == "table" and conninfo_of(options) or options or ""
   local conn = libpq.PQconnectdb(conninfo)
   if conn == nil then error("libpq could not allocate a connection", 2) end
   if libpq.PQstatus(conn) ~= CONNECTION_OK then
      local err = connection_error(conn)
      libpq.PQfinish(conn)
      error(err, 0)
   end
   next_inbox = next_inbox + 1
   local self = setmetatable({
      conn = ffi.gc(conn, calls.finish), notices = {}, on_notice = settings.on_notice,
      inbox = {}, statements = 0,
   }, Connection)
   inboxes[next_inbox] = self.inbox
   libpq.PQsetNoticeReceiver(conn, receive_notice, ffi.cast("void *", next_inbox))
   return self
end

function Connection:open()
   return self.conn or error("this connection was closed", 3)
end

function Connection:deliver_notices()
   if #self.inbox == 0 then return end
   local arrived = {}
   for i, notice in ipairs(self.inbox) do
      arrived[i] = notice
      self.notices[#self.notices + 1] = notice
      self.inbox[i] = nil
   end
   if self.on_notice then
      for _, notice in ipairs(arrived) do self.on_notice(notice) end
   end
end

--- Packs parameter values once, for statements that run many times; see Statement:run. The arrays point
-- into Lua strings, which the object holds.
function M.parameters(...)
   local n = select("#", ...)
   local out = { n = n, held = {} }
   if n == 0 then return out end
   out.values, out.lengths = ffi.new("const char *[?]", n), ffi.new("int[?]", n)
   out.formats = ffi.new("int[?]", n)
   for i = 1, n do
      local value = (select(i, ...))
      if value ~= nil then
         local binary = getmetatable(value) == Binary
         local text = binary and value.bytes or text_of(value)
         out.held[i] = text
         out.values[i - 1], out.lengths[i - 1], out.formats[i - 1] = text, #text, binary and 1 or 0
      end
   end
   return out
end

-- The parameter arrays of libpq, kept alive by the connection until its next statement.
function Connection:pack(...)
   local packed = M.parameters(...)
   self.held = packed
   return packed.n, packed.values, packed.lengths, packed.formats
end

-- Turns a PGresult into rows or an error, and frees it.
function Connection:take(res, sql)
   self:deliver_notices()
   if res == NO_RESULT then error(connection_error(self.conn, sql), 0) end
   local status = libpq.PQresultStatus(res)
   if STATUS_OK[status] then
      local rows = read_rows(res)
      libpq.PQclear(res)
      return rows
   end
   local err
   if status == COPY_IN or status == COPY_OUT then
      self:abandon_copy(status)
      err = "COPY needs copy_in, copy_binary or copy_out, not exec: " .. sql
   else
      err = result_error(self.conn, res, sql)
   end
   libpq.PQclear(res)
   error(err, 0)
end

-- Reads until the server is idle again; the first error found, or nil. `keep` collects results.
function Connection:drain(sql, keep)
   local failure
   while true do
      local res = calls.get_result(self.conn)
      if res == NO_RESULT then break end
      local ok, value = pcall(self.take, self, res, sql)
      if not ok then
         failure = failure or value
         if libpq.PQstatus(self.conn) ~= CONNECTION_OK then break end
      elseif keep then
         keep[#keep + 1] = value
      end
   end
   return failure
end

function Connection:abandon_copy(status)
   if status == COPY_IN then
      calls.put_copy_end(self.conn, "no data was offered")
   else
      local buffer = ffi.new("char *[1]")
      while calls.get_copy_data(self.conn, buffer, 0) > 0 do libpq.PQfreemem(buffer[0]) end
   end
   self:drain("")
end

--- Runs a statement and returns its rows. Without parameters several statements separated by
-- semicolons may be given; the rows of the last are returned.
function Connection:exec(sql, ...)
   local conn = self:open()
   if select("#", ...) == 0 then return self:take(calls.exec(conn, sql), sql) end
   local n, values, lengths, formats = self:pack(...)
   return self:take(calls.exec_params(conn, sql, n, nil, values, lengths, formats, 0), sql)
end

--- The first row of a statement's result, or nil.
function Connection:row(sql, ...) return self:exec(sql, ...)[1] end

--- The first column of the first row, or nil.
function Connection:value(sql, ...)
   local row = self:row(sql, ...)
   return row and row[1]
end

--- The first column of every row, as an array (a NULL ends it early for ipairs, as in any table).
function Connection:column(sql, ...)
   local out = {}
   for i, row in ipairs(self:exec(sql, ...)) do out[i] = row[1] end
   return out
end

--- Runs a statement that must fail and returns its error; raises when it succeeds.
function Connection:fails(sql, ...)
   local ok, err = pcall(self.exec, self, sql, ...)
   if ok then error("this statement should have failed: " .. sql, 2) end
   if not M.is_error(err) then error(err, 0) end
   return err
end

--- Runs body(connection) in a transaction: committed when it returns, rolled back when it raises.
function Connection:transaction(body)
   self:exec("BEGIN")
   local ok, result = pcall(body, self)
   if ok then
      self:exec("COMMIT")
      return result
   end
   if self.conn and libpq.PQstatus(self.conn) == CONNECTION_OK then self:exec("ROLLBACK") end
   error(result, 0)
end

-- ---- prepared statements -----------------------------------------------------------------------

local Statement = {}
Statement.__index = Statement

--- Prepares a statement on the server; its exec(...) and send(...) take the parameters.
function Connection:prepare(sql)
   self.statements = self.statements + 1
   local name = "lua_" .. self.statements
   self:take(calls.prepare(self:open(), name, sql, 0, nil), sql)
   return setmetatable({ connection = self, name = name, sql = sql }, Statement)
end

--- Runs the prepared statement and returns its rows.
function Statement:exec(...)
   local connection = self.connection
   local conn = connection:open()
   local n, values, lengths, formats = connection:pack(...)
   local res = calls.exec_prepared(conn, self.name, n, values, lengths, formats, 0)
   return connection:take(res, self.sql)
end

--- Runs the prepared statement with parameters from pg.parameters and returns only how many rows came
-- back, in binary form and not converted: the least that a client can do, for measurements.
function Statement:run(packed)
   local connection = self.connection
   local res = calls.exec_prepared(connection:open(), self.name, packed.n, packed.values, packed.lengths,
      packed.formats, 1)
   if res == NO_RESULT or not STATUS_OK[libpq.PQresultStatus(res)] then
      connection:take(res, self.sql) -- raises
   end
   local count = libpq.PQntuples(res)
   libpq.PQclear(res)
   return count
end

--- Starts the prepared statement without waiting; see Connection:send.
function Statement:send(...)
   local connection = self.connection
   local conn = connection:open()
   local n, values, lengths, formats = connection:pack(...)
   if calls.send_prepared(conn, self.name, n, values, lengths, formats, 0) ~= 1 then
      error(connection_error(conn, self.sql), 0)
   end
   connection.pending = self.sql
end

--- Forgets the prepared statement.
function Statement:close() self.connection:exec("DEALLOCATE " .. self.name) end

-- ---- asynchronous queries ----------------------------------------------------------------------

--- Starts one statement and returns at once. Follow with ready() or pg.wait_any(), then receive().
function Connection:send(sql, ...)
   local conn = self:open()
   local n, values, lengths, formats = self:pack(...)
   if calls.send_params(conn, sql, n, nil, values, lengths, formats, 0) ~= 1 then
      error(connection_error(conn, sql), 0)
   end
   self.pending = sql
end

--- Whether receive() would return without waiting.
function Connection:ready()
   local conn = self:open()
   if calls.consume_input(conn) ~= 1 then return true end -- broken: receive() will say how
   return calls.is_busy(conn) == 0
end

--- Waits for the statement that was sent and returns its rows, or raises its error.
function Connection:receive()
   local sql = self.pending or error("receive() without send()", 2)
   self.pending = nil
   local results = {}
   self:open()
   local failure = self:drain(sql, results)
   if failure then error(failure, 0) end
   return results[#results] or error(connection_error(self.conn, sql), 0)
end

--- Waits until one of the connections is ready() and returns it, or nil after limit seconds
-- (nil waits without limit).
function M.wait_any(connections, limit)
   local poll = require("posix.poll").poll -- Debian: lua-posix
   local by_socket, fds = {}, {}
   for _, connection in ipairs(connections) do
      if connection:ready() then return connection end
      local socket = libpq.PQsocket(connection:open())
      by_socket[socket], fds[socket] = connection, { events = { IN = true } }
   end
   local timeout = limit and math.ceil(limit * 1000) or -1
   while true do
      local count = poll(fds, timeout)
      if count == 0 then return nil end
      for socket, connection in pairs(by_socket) do
         local seen = fds[socket].revents
         if seen and (seen.IN or seen.HUP or seen.ERR) and connection:ready() then
            return connection
         end
      end
   end
end

--- Asks the server to cancel what this connection is running.
function Connection:cancel()
   local cancel = libpq.PQgetCancel(self:open())
   local message = ffi.new("char[256]")
   local sent = libpq.PQcancel(cancel, message, 256)
   libpq.PQfreeCancel(cancel)
   if sent ~= 1 then error("cannot cancel: " .. ffi.string(message), 2) end
end

-- ---- COPY --------------------------------------------------------------------------------------

local function integer_encoder(encode) return function(value) return encode(tonumber(value)) end end

-- Binary forms by type name, for copy_binary.
local encoders = {
   int2 = integer_encoder(int16),
   int4 = integer_encoder(int32),
   int8 = integer_encoder(int64),
   bool = function(value) return value and "\1" or "\0" end,
   text = tostring,
   bytea = tostring,
   float4 = function(value)
      swap.f = value
      return int32(swap.u)
   end,
   float8 = function(value)
      swap.d = value
      return int32(swap.w[1]) .. int32(swap.w[0])
   end,
   ruvector = function(value)
      return getmetatable(value) == Binary and value.bytes or M.vector(value).bytes
   end,
}

-- Starts the COPY and hands produce a function put(bytes); ends it, or cancels it on an error.
function Connection:copy_stream(sql, produce)
   local conn = self:open()
   local res = calls.exec(conn, sql)
   if libpq.PQresultStatus(res) ~= COPY_IN then
      self:take(res, sql)
      error("this is not a COPY ... FROM STDIN statement: " .. sql, 3)
   end
   libpq.PQclear(res)
   local ok, failure = pcall(produce, function(bytes)
      if calls.put_copy_data(conn, bytes, #bytes) ~= 1 then
         error(connection_error(conn, sql), 0)
      end
   end)
   calls.put_copy_end(conn, (not ok) and "the client's row source failed" or nil)
   local results = {}
   local refused = self:drain(sql, results)
   if not ok then error(failure, 0) end
   if refused then error(refused, 0) end
   return results[#results].affected
end

--- COPY in binary form. target: "table (column, ...)"; types: the columns' type names (int2, int4,
-- int8, float4, float8, bool, text, bytea, ruvector); rows: an iterator function that returns an
-- array of values in that order, nil at the end. Returns how many rows were copied.
function Connection:copy_binary(target, types, rows)
   local sql = ("COPY %s FROM STDIN (FORMAT binary)"):format(target)
   local encode, width = {}, int16(#types)
   for i, name in ipairs(types) do
      encode[i] = encoders[name] or error("copy_binary: no binary form for type " .. name, 2)
   end
   return self:copy_stream(sql, function(put)
      put("PGCOPY\n\255\r\n\0" .. int32(0) .. int32(0))
      for row in rows do
         local parts = { width }
         for i = 1, #types do
            local value = row[i]
            if value == nil then
               parts[#parts + 1] = int32(-1)
            else
               local bytes = encode[i](value)
               parts[#parts + 1] = int32(#bytes)
               parts[#parts + 1] = bytes
            end
         end
         put(table.concat(parts))
      end
      put(int16(-1))
   end)
end

local copy_escapes = { ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

--- COPY in text form: as copy_binary, without types. The column count is `width`, needed because
-- trailing NULLs leave no trace in a Lua array.
function Connection:copy_text(target, width, rows)
   return self:copy_stream(("COPY %s FROM STDIN"):format(target), function(put)
      for row in rows do
         local fields = {}
         for i = 1, width do
            local value = row[i]
            fields[i] = value == nil and "\\N" or text_of(value):gsub("[\\\n\r\t]", copy_escapes)
         end
         put(table.concat(fields, "\t") .. "\n")
      end
   end)
end

--- COPY ... TO STDOUT: all its bytes as one string.
function Connection:copy_out(sql)
   local conn = self:open()
   local res = calls.exec(conn, sql)
   if libpq.PQresultStatus(res) ~= COPY_OUT then
      self:take(res, sql)
      error("this is not a COPY ... TO STDOUT statement: " .. sql, 2)
   end
   libpq.PQclear(res)
   local parts, buffer = {}, ffi.new("char *[1]")
   while true do
      local length = calls.get_copy_data(conn, buffer, 0)
      if length <= 0 then break end
      parts[#parts + 1] = ffi.string(buffer[0], length)
      libpq.PQfreemem(buffer[0])
   end
   local failure = self:drain(sql)
   if failure then error(failure, 0) end
   return table.concat(parts)
end

-- ---- state -------------------------------------------------------------------------------------

--- The process id of the server's backend.
function Connection:backend_pid() return libpq.PQbackendPID(self:open()) end

--- Whether the connection is open and not known to be broken.
function Connection:alive()
   return self.conn ~= nil and libpq.PQstatus(self.conn) == CONNECTION_OK
end

--- Closes the connection; more than once is harmless.
function Connection:close()
   if not self.conn then return end
   calls.finish(ffi.gc(self.conn, nil))
   self.conn = nil
end

return M
