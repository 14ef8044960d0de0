-- Code of an ordinary user that lies in wait for somebody with more rights: look-alikes of functions,
-- operators, types and tables in schemas that come first in the search_path, functions inside indexes,
-- and settings of the database. Every trap writes to the server's log as whom it ran.

local cluster = require("ruvector.cluster")
local clock = require("ruvector.clock")
local learning = require("support.learning")
local surface = require("support.surface")

describe("a hostile owner of the database", function()
   local server, super, mallory

   -- what: "a trap", a look-alike, or "a function of an index".
   local function sprung(what, user)
      local count = 0
      for _ in server:log():gmatch(what .. " ran as " .. user .. "\n") do count = count + 1 end
      return count
   end

   local function traps_sprung(user) return sprung("a trap", user) end
   local function index_functions_run(user) return sprung("a function of an index", user) end

   -- Look-alikes in `schema` of what the extension's statements and its script name.
   local function set_traps(schema)
      local out = {}
      local function add(sql) out[#out + 1] = sql:gsub("@", schema) .. ";" end
      add("CREATE SCHEMA IF NOT EXISTS @")
      add([[CREATE FUNCTION @.trap() RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN RAISE LOG 'a trap ran as %', current_user; RETURN true; END$$]])
      local operands = { { "oid", "regclass" }, { "regclass", "oid" }, { "regclass", "regclass" },
         { "oid", "oid" }, { "name", "name" }, { "text", "text" }, { "bigint", "bigint" },
         { "name", "text" }, { "boolean", "boolean" } }
      for i, pair in ipairs(operands) do
         add(([[CREATE FUNCTION @.equal%d(%s, %s) RETURNS boolean LANGUAGE sql VOLATILE
            AS 'SELECT @.trap()']]):format(i, pair[1], pair[2]))
         for _, name in ipairs { "=", "<>" } do
            add(("CREATE OPERATOR @.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = @.equal%d)")
               :format(name, pair[1], pair[2], i))
         end
      end
      add([[CREATE FUNCTION @.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
         'SELECT pg_catalog.now() FROM (SELECT @.trap()) t']])
      add([[CREATE FUNCTION @.pg_has_role(oid, text) RETURNS boolean LANGUAGE sql VOLATILE AS
         'SELECT @.trap()']])
      add([[CREATE FUNCTION @.pg_extension_config_dump(regclass, text) RETURNS void LANGUAGE sql VOLATILE AS
         'SELECT @.trap(); SELECT NULL::void']])
      add([[CREATE FUNCTION @.taken(integer, integer) RETURNS integer LANGUAGE sql VOLATILE AS
         'SELECT 1 FROM (SELECT @.trap()) t']])
      for _, name in ipairs { "count", "avg", "max", "sum" } do
         add(("CREATE AGGREGATE @.%s (integer) (SFUNC = @.taken, STYPE = integer, INITCOND = '0')")
            :format(name))
      end
      for _, name in ipairs { "pg_class", "pg_index", "pg_am", "pg_namespace" } do
         add(("CREATE VIEW @.%s AS SELECT * FROM pg_catalog.%s WHERE @.trap()"):format(name, name))
      end
      for _, name in ipairs { "regclass", "regrole", "oid" } do
         add(("CREATE DOMAIN @.%s AS pg_catalog.text CHECK (@.trap())"):format(name))
      end
      return table.concat(out)
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      local admin = server:connect()
      admin:exec("CREATE ROLE mallory LOGIN")
      admin:exec("CREATE DATABASE shop OWNER mallory")
      mallory = server:connect({ dbname = "shop", user = "mallory" })
      mallory:exec(set_traps("public"))
      mallory:exec(set_traps("evil"))
      mallory:exec [[
         CREATE TABLE evil.ruvector_learning AS SELECT 1 AS table_id;
         CREATE TABLE evil.ruvector_trajectory_log AS SELECT 1 AS query_id;
         ALTER DATABASE shop SET search_path = evil, public, pg_catalog;
         ALTER DATABASE shop SET default_transaction_read_only = on;
         ALTER DATABASE shop SET statement_timeout = '1ms';
         ALTER DATABASE shop SET lock_timeout = '1ms';
         ALTER DATABASE shop SET default_transaction_isolation = 'serializable';
      ]]
      local options = "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off"
      super = server:connect({ dbname = "shop", options = options })
      mallory = server:connect({ dbname = "shop", user = "mallory", options = options })
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("has traps that work, for the test to mean anything", function()
      mallory:exec("SELECT now(); SELECT count(1) FROM pg_class WHERE oid = 1::pg_catalog.regclass")
      assert.is_true(traps_sprung("mallory") >= 2)
   end)

   it("gets nothing run by the superuser who creates the extension in a schema full of traps", function()
      super:exec("CREATE EXTENSION ruvector SCHEMA public")
      assert.equal(0, traps_sprung("postgres"))
   end)

   it("gets nothing run by the learning worker, and cannot keep it from learning", function()
      mallory:exec("SET search_path = public")
      learning.create_table(mallory, "items", 600)
      mallory:exec [[
         CREATE FUNCTION fold(pg_catalog.int8) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
            BEGIN RAISE LOG 'a function of an index ran as %', current_user; RETURN true; END$$;
         CREATE FUNCTION bend(ruvector) RETURNS ruvector LANGUAGE plpgsql IMMUTABLE AS $$
            BEGIN RAISE LOG 'a function of an index ran as %', current_user; RETURN $1; END$$;
         CREATE INDEX items_bent ON items USING ruhnsw ((bend(embedding)::ruvector(32)) ruvector_l2_ops)
            WHERE fold(4711) AND fold(id);
      ]]
      mallory:exec("SELECT ruvector_enable_learning('items', min_samples => 20)")
      mallory:exec("SET enable_seqscan = off")
      for _, query in ipairs(learning.queries(60, 3)) do
         mallory:exec([[SELECT id FROM items WHERE fold(id) AND fold(4711)
            ORDER BY bend(embedding)::ruvector(32) <-> bend($1::ruvector)::ruvector(32) LIMIT 10]], query)
      end
      clock.wait_until("the worker to learn", learning.LIMIT, function()
         local stats = mallory:row([[SELECT * FROM ruvector_learning_stats('items')
            WHERE index::pg_catalog.text OPERATOR(pg_catalog.=) 'items_bent']])
         return stats.patterns > 0, stats.state .. ", " .. tostring(stats.last_error)
      end)
      assert.equal(0, traps_sprung("postgres") + index_functions_run("postgres"))
      assert.is_true(index_functions_run("mallory") > 0)
   end)

   it("gets nothing run by a superuser who verifies an index", function()
      super:exec("SELECT public.ruvector_index_verify('public.items_bent', true)")
      assert.equal(0, traps_sprung("postgres") + index_functions_run("postgres"))
   end)

   -- Benchmarks query the table as their caller: PostgreSQL plans such a query with the functions of its
   -- indexes, as for any statement of a superuser on somebody's table. So look-alikes are counted here.
   it("gets no look-alike run by a superuser who calls the extension's functions", function()
      for signature, expected in surface.each_guarded() do
         local call = expected.call:gsub("%[1,2,3%]", learning.queries(1)[1])
         super:exec("BEGIN")
         local ok, err = pcall(super.exec, super, "SELECT public." .. call)
         super:exec("ROLLBACK")
         -- Errors of its own are a function's affair, as long as it was called and did not break.
         assert(ok or err.sqlstate ~= "42883" and err.sqlstate ~= "XX000", signature .. ": " .. tostring(err))
      end
      super:exec("SELECT * FROM public.ruvector_trajectories")
      super:exec("SELECT * FROM public.ruvector_policies()")
      assert.equal(0, traps_sprung("postgres"))
   end)

   it("cannot reach what a superuser may by what the view or the functions give back", function()
      assert.equal("42501", mallory:fails("SELECT * FROM public.ruvector_trajectory_log").sqlstate)
      assert.equal("42501", mallory:fails("CREATE TRIGGER t BEFORE INSERT ON public.ruvector_trajectory_log "
         .. "FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()").sqlstate)
      assert.equal("42501", mallory:fails("CREATE RULE r AS ON INSERT TO public.ruvector_trajectory_log "
         .. "DO ALSO SELECT 1").sqlstate)
      assert.equal("42501", mallory:fails("ALTER FUNCTION public.ruvector_learning_stats(regclass) "
         .. "SECURITY DEFINER").sqlstate)
   end)
end)
