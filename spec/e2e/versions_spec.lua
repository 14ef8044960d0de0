-- Versions of the extension: a fresh install and the chain of upgrades give the same catalog, every
-- object says what it is, and a database that runs an older script works with the newer library.

local cluster = require("ruvector.cluster")
local learning = require("support.learning")
local surface = require("support.surface")

-- Everything about the extension's objects that a script decides, one text a line; none depends on
-- oids or on the order of creation.
local CATALOG = [[
   WITH members AS (
      SELECT d.classid, d.objid, (i).type || ' ' || (i).identity AS name
      FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'ruvector',
         LATERAL pg_identify_object(d.classid, d.objid, 0) i
      WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
   relations AS (SELECT m.name, c.* FROM members m JOIN pg_class c ON c.oid = m.objid
      WHERE m.classid = 'pg_class'::regclass),
   facts(name, fact) AS (
      SELECT name, 'comment ' || coalesce(obj_description(objid, classid::regclass::name), 'none')
         FROM members
      UNION ALL SELECT m.name, pg_get_functiondef(p.oid) || coalesce(p.proacl::text, ' no grants')
         FROM members m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
         WHERE p.prokind = 'f'
      UNION ALL SELECT m.name, (to_jsonb(a) - 'aggfnoid')::text FROM members m
         JOIN pg_aggregate a ON a.aggfnoid = m.objid AND m.classid = 'pg_proc'::regclass
      UNION ALL SELECT m.name, format('%s %s %s %s %s %s %s %s %s', o.oprcode, o.oprcom::regoperator,
            o.oprnegate::regoperator, o.oprrest, o.oprjoin, o.oprcanmerge, o.oprcanhash,
            o.oprresult::regtype, o.oprkind)
         FROM members m JOIN pg_operator o ON o.oid = m.objid AND m.classid = 'pg_operator'::regclass
      UNION ALL SELECT m.name, format('%s %s %s', c.castfunc::regprocedure, c.castcontext, c.castmethod)
         FROM members m JOIN pg_cast c ON c.oid = m.objid AND m.classid = 'pg_cast'::regclass
      UNION ALL SELECT m.name, format('%s %s', c.opcdefault, c.opckeytype::regtype)
         FROM members m JOIN pg_opclass c ON c.oid = m.objid AND m.classid = 'pg_opclass'::regclass
      UNION ALL SELECT m.name, format('operator %s %s %s', a.amopstrategy, a.amopopr::regoperator,
            a.amoppurpose)
         FROM members m JOIN pg_amop a ON a.amopfamily = m.objid AND m.classid = 'pg_opfamily'::regclass
      UNION ALL SELECT m.name, format('function %s %s', a.amprocnum, a.amproc)
         FROM members m JOIN pg_amproc a ON a.amprocfamily = m.objid AND m.classid = 'pg_opfamily'::regclass
      UNION ALL SELECT m.name, (to_jsonb(t) - '{oid,typarray,typrelid,typnamespace,typowner}'::text[])::text
         FROM members m JOIN pg_type t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass
         WHERE t.typtype = 'b'
      UNION ALL SELECT r.name, format('%s %s %s %s', r.relkind, r.relpersistence, r.reloptions, r.relacl)
         FROM relations r
      UNION ALL SELECT r.name, pg_get_viewdef(r.oid) FROM relations r WHERE r.relkind = 'v'
      UNION ALL SELECT r.name, format('column %s %s %s not null %s storage %s default %s comment %s',
            a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage,
            pg_get_expr(d.adbin, d.adrelid), coalesce(col_description(r.oid, a.attnum), 'none'))
         FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0
         LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
      UNION ALL SELECT r.name, 'constraint ' || c.conname || ' ' || pg_get_constraintdef(c.oid)
         FROM relations r JOIN pg_constraint c ON c.conrelid = r.oid
      UNION ALL SELECT r.name, 'index ' || pg_get_indexdef(i.indexrelid)
         FROM relations r JOIN pg_index i ON i.indrelid = r.oid
      UNION ALL SELECT r.name, 'trigger ' || pg_get_triggerdef(t.oid)
         FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
      UNION ALL SELECT c.config::regclass::text, 'is dumped where ' || quote_literal(c.condition)
         FROM pg_extension e, unnest(e.extconfig, e.extcondition) c(config, condition)
         WHERE e.extname = 'ruvector')
   SELECT line FROM (SELECT name || ': ' || fact AS line FROM facts) f ORDER BY line COLLATE "C"]]

local function difference(a, b)
   local counts, out = {}, {}
   for _, line in ipairs(a) do counts[line] = (counts[line] or 0) + 1 end
   for _, line in ipairs(b) do counts[line] = (counts[line] or 0) - 1 end
   for line, count in pairs(counts) do
      if count ~= 0 then out[#out + 1] = (count > 0 and "- " or "+ ") .. line end
   end
   table.sort(out)
   return table.concat(out, "\n")
end

describe("versions", function()
   local server, admin, versions

   -- A connection to a new database in which the extension has this version (nil: the present one).
   local function database(name, version)
      admin:exec("CREATE DATABASE " .. name)
      local db = server:connect({ dbname = name })
      db:exec("CREATE EXTENSION ruvector" .. (version and (" VERSION '%s'"):format(version) or ""))
      return db
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      admin = server:connect()
      versions = admin:column([[SELECT version FROM pg_available_extension_versions
         WHERE name = 'ruvector' ORDER BY string_to_array(version, '.')::int[] ]])
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("begin with 0.1.0 and end with the one that is installed by default", function()
      assert.equal("0.1.0", versions[1])
      assert.equal(admin:value("SELECT default_version FROM pg_available_extensions WHERE name = 'ruvector'"),
         versions[#versions])
   end)

   it("give one catalog, whether upgraded step by step or installed at once", function()
      local chain = database("chain", versions[1])
      for i = 2, #versions do
         chain:exec(("ALTER EXTENSION ruvector UPDATE TO '%s'"):format(versions[i]))
      end
      local fresh = database("fresh")
      local one, other = fresh:column(CATALOG), chain:column(CATALOG)
      assert.is_true(#one > 300)
      assert.equal("", difference(one, other))
   end)

   it("say of every object what it is", function()
      local bare = {}
      for _, line in ipairs(server:connect({ dbname = "fresh" }):column(CATALOG)) do
         local name = line:match("^(.*): comment none$")
         bare[#bare + 1] = name
      end
      assert.equal("", table.concat(bare, "\n"), "objects without COMMENT ON in ext/sql")
   end)

   it("say of every column of the view what it is", function()
      for _, line in ipairs(server:connect({ dbname = "fresh" }):column(CATALOG)) do
         assert.is_nil(line:match("^view .*: column .* comment none$"), line)
      end
   end)

   for _, version in ipairs { "0.1.0", "0.2.0", "0.3.0" } do
      describe(version .. " under the present library", function()
         local db

         setup(function() db = database("old_" .. version:gsub("%.", "_"), version) end)

         it("searches", function()
            learning.create_table(db, "items", 300)
            learning.create_table(db, "lists", 300, "ruivfflat (embedding ruvector_l2_ops) WITH (lists = 4)")
            db:exec("SET enable_seqscan = off")
            for _, name in ipairs { "items", "lists" } do
               local query = learning.queries(1)[1]
               assert.equal(10, #db:exec(
                  ("SELECT id FROM %s ORDER BY embedding <-> $1 LIMIT 10"):format(name), query))
               assert.equal(0, #db:exec(("SELECT * FROM ruvector_index_verify('%s_embedding', true)")
                  :format(name)))
            end
         end)

         it("says of what it cannot do that the extension has to be updated", function()
            local newest = server:connect({ dbname = "fresh" })
            local absent, refused = 0, 0
            for signature, expected in surface.each_guarded() do
               local call = expected.call:gsub("'%[1,2,3%]'", "'" .. learning.queries(1)[1] .. "'")
               assert.is_truthy(newest:value("SELECT to_regprocedure($1)", signature))
               local ok, err = pcall(db.exec, db, "SELECT " .. call)
               if not db:value("SELECT to_regprocedure($1)", signature) then
                  absent = absent + 1
                  assert.equal("42883", err.sqlstate)
               elseif not ok then
                  refused = refused + 1
                  assert.equal("55000", err.sqlstate, signature .. ": " .. tostring(err))
                  assert.is_truthy(err.hint:find("ALTER EXTENSION ruvector UPDATE", 1, true), signature)
               end
            end
            assert.is_true(absent > 0)
            assert.is_true(version == "0.1.0" or refused >= 2)
         end)

         it("learns once it is updated", function()
            db:exec("ALTER EXTENSION ruvector UPDATE")
            assert.is_true(learning.teach(db, "items", { queries = 60, min_samples = 20 }).patterns > 0)
            db:exec("SELECT ruvector_disable_learning('items')")
         end)
      end)
   end
end)
