-- The libpq binding, against a private server.

local cluster = require("ruvector.cluster")
local pg = require("ruvector.pg")
local clock = require("ruvector.clock")
local ffi = require("ffi")

describe("the libpq binding", function()
   local server, db

   setup(function()
      server = cluster.new():start()
   end)

   teardown(function()
      if server then server:remove() end
   end)

   before_each(function() db = server:connect() end)
   after_each(function() db:close() end)

   describe("reads rows", function()
      it("by name and by position, with NULL as nil", function()
         local rows = db:exec("SELECT 1 AS a, NULL::text AS b, 'x' AS c UNION ALL SELECT 2, 'y', 'z'")
         assert.equal(2, #rows)
         assert.same({ "a", "b", "c" }, rows.columns)
         assert.equal(1, rows[1].a)
         assert.equal(1, rows[1][1])
         assert.is_nil(rows[1].b)
         assert.equal("x", rows[1][3])
         assert.equal("y", rows[2].b)
      end)

      it("with Lua types for booleans, integers and floats, and text for the rest", function()
         local row = db:row([[SELECT true, false, -7::int2, 2147483647, 9007199254740991::int8,
            9007199254740992::int8, 0.5::float4, 'NaN'::float8, '-Infinity'::float8, 1.50::numeric]])
         assert.is_true(row[1])
         assert.is_false(row[2])
         assert.equal(-7, row[3])
         assert.equal(2147483647, row[4])
         assert.equal(9007199254740991, row[5])
         assert.equal("9007199254740992", row[6])
         assert.equal(0.5, row[7])
         assert.is_true(row[8] ~= row[8])
         assert.equal(-math.huge, row[9])
         assert.equal("1.50", row[10])
      end)

      it("of the last of several statements, with the command and the rows it touched", function()
         local result = db:exec("CREATE TEMP TABLE t (x int); INSERT INTO t SELECT generate_series(1, 5)")
         assert.equal("INSERT 0 5", result.command)
         assert.equal(5, result.affected)
         assert.same({ 1, 2, 3, 4, 5 }, db:column("SELECT x FROM t ORDER BY x"))
         assert.equal(5, db:value("SELECT count(*) FROM t"))
         assert.is_nil(db:row("SELECT 1 WHERE false"))
      end)
   end)

   describe("sends parameters", function()
      it("as text, with nil as NULL anywhere", function()
         local row = db:row("SELECT $1::int, $2::text, $3::bool, $4::float8, $5::text, $6::text",
            1e15 % 7, "it's \\ \n tab\t", true, 0.1, nil, nil)
         assert.equal(1e15 % 7, row[1])
         assert.equal("it's \\ \n tab\t", row[2])
         assert.is_true(row[3])
         assert.equal(0.1, row[4])
         assert.is_nil(row[5])
         assert.is_nil(row[6])
      end)

      it("in binary form, and arrays as text", function()
         assert.equal(258, db:value("SELECT $1::int", pg.binary("\0\0\1\2")))
         assert.same({ 3, 1, 2 }, db:column("SELECT unnest($1::bigint[])", pg.array { 3, 1, 2 }))
      end)

      it("as vectors of int16 dimension, int16 zero and big-endian floats", function()
         local expected = "\0\2\0\0" .. "\63\128\0\0" .. "\192\32\0\0" -- 1.0, -2.5
         assert.equal(expected, pg.vector({ 1, -2.5 }).bytes)
         assert.equal(expected, pg.vector(ffi.new("float[3]", 1, -2.5, 9), 2).bytes)
         assert.equal("\3\232\0\0", pg.vector(ffi.new("float[1000]"), 1000).bytes:sub(1, 4))
         assert.equal("[1,-2.5,0.100000001]", pg.vector_text { 1, -2.5, 0.100000001 })
      end)

      it("to prepared statements, again and again", function()
         local add = db:prepare("SELECT $1::int + $2::int AS sum")
         for i = 1, 50 do assert.equal(i + 1000, add:exec(i, 1000)[1].sum) end
         add:close()
         assert.has_error(function() add:exec(1, 2) end)
      end)
   end)

   describe("reports errors", function()
      it("as tables with message, SQLSTATE, detail, hint, context and the statement", function()
         db:exec("CREATE TEMP TABLE u (x int PRIMARY KEY); INSERT INTO u VALUES (1)")
         local err = db:fails("INSERT INTO u VALUES ($1)", 1)
         assert.is_true(pg.is_error(err))
         assert.equal("23505", err.sqlstate)
         assert.equal("ERROR", err.severity)
         assert.matches("duplicate key", err.message)
         assert.equal("Key (x)=(1) already exists.", err.detail)
         assert.equal("INSERT INTO u VALUES ($1)", err.sql)
         err = db:fails([[DO $$ BEGIN RAISE 'm' USING DETAIL = 'd', HINT = 'h', ERRCODE = 'RV001';
            END $$]])
         assert.same({ "m", "d", "h", "RV001" }, { err.message, err.detail, err.hint, err.sqlstate })
         assert.matches("inline_code_block", err.context)
         assert.matches("hint: h", tostring(err), 1, true)
      end)

      it("and leaves the connection usable", function()
         db:fails("SELECT 1/0")
         assert.equal(1, db:value("SELECT 1"))
      end)

      it("when a statement that should fail succeeds", function()
         assert.has_error(function() db:fails("SELECT 1") end)
      end)

      it("of connecting, and of a connection lost on the way, as 08006", function()
         local ok, err = pcall(pg.connect, { host = "/nonexistent", dbname = "x" })
         assert.is_false(ok)
         assert.equal("08006", err.sqlstate)
         local victim = server:connect()
         db:exec("SELECT pg_terminate_backend($1, 10000)", victim:backend_pid())
         local state = victim:fails("SELECT 1").sqlstate -- by how far the farewell got
         assert.is_true(state == "57P01" or state == "08006", state)
         assert.is_false(victim:alive())
         assert.equal("08006", victim:fails("SELECT 1").sqlstate)
      end)

      it("of using a closed connection", function()
         db:close()
         assert.has_error(function() db:exec("SELECT 1") end, "this connection was closed")
      end)

      it("by rolling a transaction back", function()
         db:exec("CREATE TEMP TABLE w (x int)")
         assert.has_error(function()
            db:transaction(function()
               db:exec("INSERT INTO w VALUES (1)")
               db:exec("SELECT 1/0")
            end)
         end)
         db:transaction(function() db:exec("INSERT INTO w VALUES (2)") end)
         assert.same({ 2 }, db:column("SELECT x FROM w"))
      end)
   end)

   it("collects notices and hands them to a callback", function()
      local heard = {}
      local listener = server:connect { on_notice = function(n) heard[#heard + 1] = n.message end }
      for i = 1, 100 do -- often enough for the JIT compiler to have had its chance
         listener:exec(("DO $$ BEGIN RAISE WARNING 'number %d'; END $$"):format(i))
      end
      assert.equal(100, #heard)
      assert.equal("number 100", heard[100])
      assert.equal("WARNING", listener.notices[1].severity)
      assert.equal(0, #db.notices)
   end)

   describe("copies", function()
      local rows = {
         { 1, "tab\there", 0.5, true },
         { -9007199254740991, "back\\slash\nline", -1e300, false },
         { 3, nil, nil, nil },
      }

      local function each()
         local i = 0
         return function()
            i = i + 1
            return rows[i]
         end
      end

      before_each(function() db:exec("CREATE TEMP TABLE c (a int8, b text, c float8, d bool)") end)

      local function stored_rows()
         local out = db:exec("SELECT * FROM c ORDER BY a DESC")
         return { { unpack(out[2], 1, 4) }, { unpack(out[3], 1, 4) }, { unpack(out[1], 1, 4) } }
      end

      it("rows in text form", function()
         assert.equal(3, db:copy_text("c (a, b, c, d)", 4, each()))
         assert.same(rows, stored_rows())
      end)

      it("rows in binary form", function()
         assert.equal(3, db:copy_binary("c (a, b, c, d)", { "int8", "text", "float8", "bool" }, each()))
         assert.same(rows, stored_rows())
      end)

      it("every fixed-width type in binary form", function()
         db:exec("CREATE TEMP TABLE f (a int2, b int4, c float4, d bytea)")
         local done = false
         db:copy_binary("f", { "int2", "int4", "float4", "bytea" }, function()
            if done then return nil end
            done = true
            return { -2, -300000, 0.25, "\0\1\255" }
         end)
         local row = db:row("SELECT a, b, c, encode(d, 'hex') FROM f")
         assert.same({ -2, -300000, 0.25, "0001ff" }, { unpack(row, 1, 4) })
      end)

      it("out to a string", function()
         db:copy_text("c (a, b, c, d)", 4, each())
         assert.equal("-9007199254740991\n1\n3\n", db:copy_out("COPY (SELECT a FROM c ORDER BY a) TO STDOUT"))
      end)

      it("nothing when the row source fails, and passes that failure on", function()
         local ok, err = pcall(db.copy_text, db, "c (a)", 1, function() error("source broke", 0) end)
         assert.is_false(ok)
         assert.equal("source broke", err)
         assert.equal(0, db:value("SELECT count(*) FROM c"))
      end)

      it("nothing when the server refuses a row, and says why", function()
         local sent = 0
         local ok, err = pcall(db.copy_text, db, "c (a)", 1, function()
            sent = sent + 1
            return sent < 3 and { sent == 2 and "not a number" or 1 } or nil
         end)
         assert.is_false(ok)
         assert.equal("22P02", err.sqlstate)
         assert.equal(0, db:value("SELECT count(*) FROM c"))
      end)

      it("only through the copy functions", function()
         assert.has_error(function() db:exec("COPY c FROM STDIN") end)
         assert.equal(1, db:value("SELECT 1"))
         assert.has_error(function() db:exec("COPY c TO STDOUT") end)
         assert.equal(1, db:value("SELECT 1"))
      end)
   end)

   describe("runs asynchronously", function()
      it("statements on several connections, taking whichever is ready first", function()
         local other = server:connect()
         db:exec("SELECT pg_advisory_lock(1)")
         other:send("SELECT 'unlocked' AS state FROM pg_advisory_lock($1)", 1)
         clock.wait_until("the other connection to wait for the lock", 30, function()
            return db:value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1
         end)
         assert.is_false(other:ready())
         assert.is_nil(pg.wait_any({ other }, 0.01))
         db:exec("SELECT pg_advisory_unlock(1)")
         assert.equal(other, pg.wait_any({ other }, 30))
         assert.equal("unlocked", other:receive()[1].state)
         other:close()
      end)

      it("prepared statements, and their errors on receive", function()
         local divide = db:prepare("SELECT 1 / $1::int AS q")
         divide:send(1)
         assert.equal(1, db:receive()[1].q)
         divide:send(0)
         local ok, err = pcall(db.receive, db)
         assert.is_false(ok)
         assert.equal("22012", err.sqlstate)
      end)

      it("until cancelled", function()
         local other = server:connect()
         db:send("SELECT pg_sleep(600)")
         -- A request that comes before the statement has begun cancels nothing.
         clock.wait_until("the statement to begin", 60, function()
            return other:value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1
         end)
         db:cancel()
         local ok, err = pcall(db.receive, db)
         assert.is_false(ok)
         assert.equal("57014", err.sqlstate)
         assert.equal(1, db:value("SELECT 1"))
      end)
   end)
end)
