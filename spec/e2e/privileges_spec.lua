-- Who may do what: every function, table and view of the extension against the table of expected
-- rights (support/surface.lua), as a superuser, an owner, a reader under row-level security, a monitor
-- and a stranger; and what learning must not carry from one role to another.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")
local surface = require("support.surface")

local ROLES = { "superuser", "owner", "reader", "monitor", "stranger" }

-- The members of the extension of one catalog, as text.
local function members(db, catalog, as)
   return db:column(([[SELECT d.objid::%s::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
      WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = '%s'::regclass AND d.deptype = 'e'
        AND e.extname = 'ruvector' ORDER BY 1]]):format(as, catalog))
end

local function listed_functions()
   local out = {}
   for what, signatures in pairs(surface.PUBLIC_FUNCTIONS) do
      for _, signature in ipairs(signatures) do out[signature] = what end
   end
   for signature in pairs(surface.GUARDED) do out[signature] = "guarded" end
   return out
end

-- Compares what is there with what is listed, both ways.
local function assert_listed(found, listed, where)
   local seen = {}
   for _, name in ipairs(found) do
      seen[name] = true
      assert(listed[name], ("%s is not in %s of spec/support/surface.lua: add it, with who may use it")
         :format(name, where))
   end
   for name in pairs(listed) do
      assert(seen[name], ("%s of spec/support/surface.lua lists %s, which is not there"):format(where, name))
   end
end

describe("privileges", function()
   local server, db
   local sessions = {}

   -- Three dimensions, so that calls in the table of rights can write a vector.
   local function create_items()
      db:exec [[
         CREATE TABLE items (id bigint PRIMARY KEY, tenant name, embedding ruvector(3));
         INSERT INTO items SELECT n, CASE n % 2 WHEN 0 THEN 'reader' ELSE 'owner' END,
            ARRAY[n % 17, n % 19, n % 23]::ruvector FROM generate_series(1, 500) n;
         CREATE INDEX items_embedding ON items USING ruhnsw (embedding ruvector_l2_ops);
         ANALYZE items;
         ALTER TABLE items OWNER TO owner;
         GRANT SELECT ON items TO reader;
         ALTER TABLE items ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own_rows ON items TO reader USING (tenant = current_user);
         CREATE TABLE theirs (id bigint PRIMARY KEY, embedding ruvector(3));
         CREATE INDEX theirs_embedding ON theirs USING ruhnsw (embedding ruvector_l2_ops);
         ALTER TABLE theirs OWNER TO stranger;
      ]]
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec [[CREATE EXTENSION ruvector; CREATE ROLE owner LOGIN; CREATE ROLE reader LOGIN;
         CREATE ROLE monitor LOGIN IN ROLE pg_monitor; CREATE ROLE stranger LOGIN]]
      create_items()
      sessions.superuser = db
      for i = 2, #ROLES do sessions[ROLES[i]] = server:connect({ user = ROLES[i] }) end
      sessions.owner:exec("SELECT ruvector_enable_learning('items', min_samples => 10)")
      sessions.owner:exec("SET enable_seqscan = off")
      for n = 1, 30 do
         sessions.owner:exec(("SELECT id FROM items ORDER BY embedding <-> '[%d,%d,%d]' LIMIT 5")
            :format(n % 11, n % 13, n % 7))
      end
      learning.wait_learned(db, "items", 30)
   end)

   teardown(function()
      if server then server:remove() end
   end)

   describe("of functions", function()
      it("are listed, each of them", function()
         assert_listed(members(db, "pg_proc", "regprocedure"), listed_functions(), "the functions")
      end)

      it("are those of their caller: none runs as its owner", function()
         assert.same({}, db:column([[SELECT p.oid::regprocedure::text FROM pg_proc p
            JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
            JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
            WHERE e.extname = 'ruvector' AND p.prosecdef]]))
      end)

      for what, signatures in pairs(surface.PUBLIC_FUNCTIONS) do
         it("are everybody's for " .. what, function()
            for _, signature in ipairs(signatures) do
               local right = db:value(
                  "SELECT has_function_privilege('stranger', $1::regprocedure, 'EXECUTE')",
                  signature)
               assert.is_true(right, signature)
            end
         end)
      end

      for signature, expected in surface.each_guarded() do
         it(("let %s call %s"):format(expected.who:gsub("_", " "), signature), function()
            local admitted = surface.ADMITTED[expected.who]
            for _, role in ipairs(ROLES) do
               local session = sessions[role]
               session:exec("BEGIN")
               local ok, err = pcall(session.exec, session, "SELECT " .. expected.call)
               session:exec("ROLLBACK")
               local denied = not ok and err.sqlstate == "42501"
               assert(denied == not admitted[role], ("%s as %s: %s"):format(signature, role,
                  denied and "denied" or "let in"))
               -- The function itself has to refuse, not one of the tables behind it.
               assert(not denied or not err.message:find("table ruvector_", 1, true), err.message)
            end
         end)
      end
   end)

   describe("of relations", function()
      it("are listed, each of them", function()
         local found = {}
         for _, name in ipairs(members(db, "pg_class", "regclass")) do found[#found + 1] = name end
         assert_listed(found, surface.RELATIONS, "RELATIONS")
      end)

      local RIGHTS = { "SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER" }

      for name, kind in pairs(surface.RELATIONS) do
         it(("make %s %s"):format(name, kind), function()
            for _, right in ipairs(RIGHTS) do
               for i = 2, #ROLES do
                  local has = db:value("SELECT has_table_privilege($1, $2::regclass, $3)", ROLES[i], name,
                     right)
                  assert(has == (kind == "readable" and right == "SELECT"),
                     ("%s %s %s on %s"):format(ROLES[i], has and "has" or "lacks", right, name))
               end
            end
         end)
      end

      it("are those of the view's reader, whatever conditions it brings", function()
         assert.equal("true", db:value([[SELECT option_value FROM pg_class c,
            pg_options_to_table(c.reloptions) WHERE c.oid = 'ruvector_trajectories'::regclass
            AND option_name = 'security_barrier']]))
      end)
   end)

   describe("and what must not pass between roles:", function()
      it("recorded searches are shown to the table's owner and to superusers", function()
         local count = "SELECT count(*) FROM ruvector_trajectories"
         assert.is_true(sessions.owner:value(count) > 0)
         assert.is_true(db:value(count) > 0)
         for _, role in ipairs { "reader", "monitor", "stranger" } do
            assert.equal(0, sessions[role]:value(count), role)
         end
      end)

      it("a reader's condition on the view sees no row that it is not shown", function()
         local seen = {}
         local session = server:connect({ user = "stranger", on_notice = function(notice)
            seen[#seen + 1] = notice.message
         end })
         session:exec [[CREATE FUNCTION pg_temp.peep(v text) RETURNS boolean LANGUAGE plpgsql
            COST 0.0000001 AS $$BEGIN RAISE NOTICE 'seen %', v; RETURN true; END$$]]
         assert.equal(0, session:value(
            "SELECT count(*) FROM ruvector_trajectories WHERE pg_temp.peep(query::text)"))
         assert.same({}, seen)
      end)

      it("a search is the affair of the role that made it, also within a session", function()
         local session = server:connect()
         session:exec("SET enable_seqscan = off; SET ROLE owner")
         session:exec("SELECT id FROM items ORDER BY embedding <-> '[1,2,3]' LIMIT 3")
         local id = session:value("SELECT ruvector_last_query_id()")
         assert.is_truthy(id)
         session:exec("SET ROLE reader")
         assert.is_nil(session:value("SELECT ruvector_last_query_id()"))
         assert.is_nil(session:row("SELECT * FROM ruvector_last_search()").query_id)
         session:exec("SET ROLE owner")
         assert.equal(id, session:value("SELECT ruvector_last_query_id()"))
         session:exec("RESET ROLE")
         assert.equal(id, session:value("SELECT query_id FROM ruvector_last_search()"))
      end)

      it("row-level security holds in an adaptive search, and what was learned shows no row", function()
         local session = sessions.reader
         session:exec("SET enable_seqscan = off")
         local rows = session:exec("SELECT tenant FROM items ORDER BY embedding <-> '[1,2,3]' LIMIT 200")
         assert.equal("adaptive", session:value("SELECT mode FROM ruvector_last_search()"))
         assert.is_true(#rows > 0)
         for _, row in ipairs(rows) do assert.equal("reader", row.tenant) end
      end)

      it("the text of an error is for the owner and monitors, since it may quote a row", function()
         db:exec [[
            CREATE FUNCTION guard(bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
               BEGIN
                  IF pg_catalog.current_setting('statement_timeout') = '0' THEN -- the worker
                     RAISE EXCEPTION 'the secret is 4711';
                  END IF;
                  RETURN true;
               END$$;
            SET statement_timeout = '1h';
            CREATE TABLE fragile (id bigint, embedding ruvector(3));
            INSERT INTO fragile SELECT n, ARRAY[n, 1, 2]::ruvector FROM generate_series(1, 50) n;
            CREATE INDEX fragile_embedding ON fragile USING ruhnsw (embedding ruvector_l2_ops)
               WHERE guard(id);
            ALTER TABLE fragile OWNER TO owner;
            GRANT SELECT ON fragile TO reader;
         ]]
         sessions.owner:exec("SELECT ruvector_enable_learning('fragile'); SET statement_timeout = '1h'")
         for _ = 1, 3 do
            sessions.owner:exec(
               "SELECT id FROM fragile WHERE guard(id) ORDER BY embedding <-> '[1,2,3]' LIMIT 3")
         end
         local stats = "SELECT * FROM ruvector_learning_stats('fragile')"
         clock.wait_until("the worker to fail", learning.LIMIT, function()
            local row = db:row(stats)
            return row.failures > 0 and row.last_error, row.state
         end)
         assert.is_truthy(sessions.owner:row(stats).last_error:find("4711", 1, true))
         assert.is_truthy(sessions.monitor:row(stats).last_error:find("4711", 1, true))
         assert.is_nil(sessions.reader:row(stats).last_error)
         assert.equal("failing", sessions.reader:row(stats).state)
         db:exec("DROP TABLE fragile")
      end)

      it("where policies lie on the server is shown to those who see all settings", function()
         local file = "SELECT file FROM ruvector_policies() WHERE kind = 'verdict'"
         assert.is_truthy(db:value(file):find("^/.*/verdict%.lua$"))
         assert.is_truthy(sessions.monitor:value(file):find("^/.*/verdict%.lua$"))
         assert.equal("verdict.lua", sessions.stranger:value(file))
         assert.equal("42501", sessions.stranger:fails("SHOW ruvector.policy_directory").sqlstate)
      end)

      it("settings that weaken the server are a superuser's", function()
         for _, setting in ipairs { "policy_directory = '/tmp'", "policy_fuel = 2000",
            "policy_memory = '2MB'" } do
            assert.equal("42501", sessions.owner:fails("SET ruvector." .. setting).sqlstate)
         end
         for _, setting in ipairs { "learning_enabled = off", "trajectory_anonymize = on",
            "learning_budget = 1", "learning_interval = '10ms'", "pattern_consolidation_interval = 10" } do
            assert.equal("55P02", sessions.owner:fails("SET ruvector." .. setting).sqlstate)
         end
      end)
   end)
end)
