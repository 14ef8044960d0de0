-- Index files with bits flipped at random. Whatever the bytes say, searches, inserts, vacuum and the
-- verifier end in an answer or an error: no process dies, and none goes round for ever.
--
-- FUZZ_SEED repeats a run, FUZZ_ROUNDS makes it longer (make fuzz-pages). Every round starts from the
-- intact files, with a new handful of flips in the file of every method's index.

local cluster = require("ruvector.cluster")
local indexed = require("support.indexed")
local methods = require("support.methods")
local pages = require("support.pages")
local ruhnsw = require("support.ruhnsw")

local DIM, ROWS = 8, 400
local SEED = tonumber(os.getenv("FUZZ_SEED")) or 20260101
local ROUNDS = tonumber(os.getenv("FUZZ_ROUNDS")) or 12
local FLIPS = 24
local TIMEOUT = "20s"
local TIMED_OUT = "57014"

for _, method in pairs(methods) do
   describe(("%s files with flipped bits (FUZZ_SEED=%d)"):format(method.name, SEED), function()
      local server, intact, path
      local random = pages.generator(SEED)

      setup(function()
         server = cluster.new { settings = { autovacuum = "off", statement_timeout = TIMEOUT } }
         server:start()
         local db = server:connect()
         ruhnsw.prepare(db)
         indexed.create(db, method, "torn", ROWS, DIM)
         db:exec("DELETE FROM torn WHERE id % 5 = 0") -- free slots and dead nodes as well
         db:exec("VACUUM torn")
         path = db:value("SELECT pg_relation_filepath('torn_v')")
         server:stop()
         intact = pages.read(server, path)
      end)

      teardown(function()
         if server then server:remove() end
      end)

      -- Each statement in a session of its own would cost more than it shows: one that dies is seen.
      local function statements(round)
         return {
            ("SELECT id FROM torn ORDER BY v <-> vec(%d, %d) LIMIT 10"):format(-round, DIM),
            ("SELECT count(*) FROM (SELECT id FROM torn ORDER BY v <-> vec(0, %d) LIMIT 100000) x"):format(
               DIM),
            "SELECT count(*) FROM ruvector_index_verify('torn_v', true)",
            ("INSERT INTO torn SELECT i, vec(i, %d) FROM generate_series(%d, %d) i"):format(DIM,
               1000 * round + 1000, 1000 * round + 1005),
            "DELETE FROM torn WHERE id % 7 = 0",
            "VACUUM torn",
            ("SELECT id FROM torn ORDER BY v <-> vec(%d, %d) LIMIT 10"):format(-round, DIM),
            "VACUUM torn",
            "SELECT count(*) FROM ruvector_index_verify('torn_v', true)",
         }
      end

      local function endure(round, flips)
         local db = server:connect()
         db:exec("SET ruvector.max_scan_tuples = 1000000; SET enable_seqscan = off; SET enable_sort = off")
         for _, sql in ipairs(statements(round)) do
            local ok, err = pcall(db.exec, db, sql)
            local story = ("round %d, %s\nafter %s\n%s"):format(round, sql, flips, tostring(err))
            assert(ok or err.sqlstate ~= TIMED_OUT, "endless: " .. story)
            assert(db:alive(), "died: " .. story .. "\n" .. server:log_tail(20))
         end
      end

      it("give an answer or an error", function()
         for round = 1, ROUNDS do
            local flips = pages.flip(server, path, FLIPS, random)
            server:start()
            endure(round, flips)
            assert.is_nil(server:log():find("terminated by signal", 1, true))
            server:stop("fast")
            local now = #pages.read(server, path)
            pages.write(server, path, intact .. ("\0"):rep(math.max(0, now - #intact)))
         end
      end)

      -- The flips above must be able to do harm: the header's version and the upper bits of a line pointer.
      it("are noticed by the verifier", function()
         local noticed = 0
         for _ = 1, 3 do
            pages.flip(server, path, 200, random)
            server:start()
            local db = server:connect()
            local ok, count = pcall(db.value, db,
               "SELECT count(*) FROM ruvector_index_verify('torn_v', true)")
            if not ok or count > 0 then noticed = noticed + 1 end
            server:stop("fast")
            pages.write(server, path, intact)
         end
         assert.equal(3, noticed)
      end)
   end)
end
