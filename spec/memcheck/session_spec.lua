-- A session under valgrind's memcheck: both access methods are built, filled, searched, vacuumed and
-- verified, and a learned graph is healed. `make valgrind` runs it; it takes minutes.
--
-- A server in single-user mode is the one process that memcheck watches. PostgreSQL hands out memory
-- from large blocks, so memcheck sees what is read before it was written and what lies outside of a
-- block, not every step past an allocation's end (make sanitize has that, for the engine). Findings
-- count when the extension is on their stack: PostgreSQL itself, built without its valgrind support,
-- has some of its own.

local cluster = require("ruvector.cluster")
local ruhnsw = require("support.ruhnsw")

local ROWS, DIM = 300, 24

-- One statement a line: that is how single-user mode reads.
local function script()
   local lines = { "SET enable_seqscan = off", "SET jit = off" }
   local function add(text, ...) lines[#lines + 1] = text:format(...) end
   local function rows(table, first, last)
      add("INSERT INTO %s SELECT i, vec(i, %d) FROM generate_series(%d, %d) i", table, DIM, first, last)
   end
   local function search(table, operator)
      add("SELECT count(*) AS found FROM (SELECT id FROM %s ORDER BY v %s vec(-1, %d) LIMIT 20) x", table,
         operator, DIM)
   end
   for _, method in ipairs { "ruhnsw", "ruivfflat" } do
      for _, metric in ipairs { "l2", "cosine", "ip", "l1" } do
         local table = method .. "_" .. metric
         add("CREATE TABLE %s (id bigint PRIMARY KEY, v ruvector(%d))", table, DIM)
         rows(table, 1, ROWS)
         add("CREATE INDEX %s_v ON %s USING %s (v ruvector_%s_ops)", table, table, method, metric)
         rows(table, ROWS + 1, ROWS + 30)
         search(table, ruhnsw.OPERATORS[metric])
         add("DELETE FROM %s WHERE id %% 3 = 0", table)
         add("VACUUM %s", table)
         rows(table, ROWS + 31, ROWS + 60)
         search(table, ruhnsw.OPERATORS[metric])
         add("SELECT count(*) AS findings FROM ruvector_index_verify('%s_v', true)", table)
      end
   end
   for _, storage in ipairs { "float32", "fixed24", "float16", "int8" } do
      add("ALTER INDEX ruhnsw_l2_v SET (storage = %s)", storage)
      add("REINDEX INDEX ruhnsw_l2_v")
      search("ruhnsw_l2", "<->")
   end
   add("SET ruvector.ef_search = 1")
   add("SELECT * FROM ruvector_heal_index('ruhnsw_l2_v')")
   add("SELECT * FROM ruvector_heal_index('ruhnsw_l2_v', reset => true)")
   return table.concat(lines, "\n") .. "\n"
end

-- What tells a frame of the extension: its source files (--fullpath-after), or the library's name.
local OURS = { "ext/src/", "engine/src/", "lua/host/", "ruvector.so" }

local function is_ours(block)
   for _, name in ipairs(OURS) do
      if block:find(name, 1, true) then return true end
   end
   return false
end

-- Memcheck's findings with the extension on their stack. Each is a run of lines between empty ones.
local function findings(log)
   local out = {}
   for block in (log:gsub("==%d+== ?", "") .. "\n\n"):gmatch("(.-)\n%s*\n") do
      if block:find("   at 0x", 1, true) and is_ours(block) then out[#out + 1] = block end
   end
   return out
end

local function read(path)
   local file = assert(io.open(path))
   local text = file:read("*a")
   file:close()
   return text
end

describe("a session under memcheck", function()
   local server

   setup(function()
      server = cluster.new { settings = { autovacuum = "off" } }
      server:start()
      ruhnsw.prepare(server:connect())
      server:stop()
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("reads nothing that was not written and nothing out of bounds", function()
      if os.execute("command -v valgrind >/dev/null") ~= 0 then
         return pending("valgrind is not installed")
      end
      local directory = server.directory
      local file = assert(io.open(directory .. "/script", "w"))
      file:write(script())
      file:close()
      os.execute(("chmod a+r '%s/script'"):format(directory))
      local command = server:as_server_user { "sh", "-c", ([[
         exec valgrind --fullpath-after= --num-callers=30 --log-file='%s/memcheck' \
            '%s/postgres' --single -D '%s' postgres <'%s/script' >'%s/output' 2>&1]]):format(directory,
         server.bin, server.data, directory, directory) }
      assert.equal(0, os.execute(command))
      local output, log = read(directory .. "/output"), read(directory .. "/memcheck")
      assert.is_nil(output:match("[^\n]*ERROR:[^\n]*"))
      local _, searches = output:gsub('found = "20"', "")
      assert.equal(19, searches)
      local _, clean = output:gsub('findings = "0"', "")
      assert.equal(8, clean)
      assert.is_truthy(log:find("ERROR SUMMARY", 1, true), "memcheck did not run to its end")
      assert.equal("", table.concat(findings(log), "\n\n"))
   end)
end)
