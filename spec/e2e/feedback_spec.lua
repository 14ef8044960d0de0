-- Relevance feedback, end to end: what is said of a search reaches its verdict and the effort of later
-- searches, once, within its limits, and from nobody but those whose search it was.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

local K, LIMIT = learning.K, learning.LIMIT

describe("feedback", function()
   local server, db
   local queries = learning.queries(300, 31)

   local function connect(user)
      local session = server:connect({ user = user })
      session:exec("SET enable_seqscan = off")
      return session
   end

   --- Searches once: the ids in order, and the id of the search.
   local function search(session, query, k, name)
      local ids = session:column(("SELECT id FROM %s ORDER BY embedding <-> $1 LIMIT %d")
         :format(name or "items", k or K), query)
      return ids, session:value("SELECT ruvector_last_query_id()")
   end

   --- The ids of the nearest rows by an exact search.
   local function nearest(query, count, name)
      db:exec("SET enable_indexscan = off; SET enable_seqscan = on")
      local ids = db:column(("SELECT id FROM %s ORDER BY embedding <-> $1 LIMIT %d")
         :format(name or "items", count), query)
      db:exec("RESET enable_indexscan; SET enable_seqscan = off")
      return ids
   end

   local function array(ids) return "{" .. table.concat(ids, ",") .. "}" end

   local function record(session, query_id, relevant, irrelevant)
      return session:row("SELECT * FROM ruvector_record_feedback($1, $2, $3)", query_id,
         array(relevant), array(irrelevant or {}))
   end

   local function fails(session, query_id, relevant, irrelevant)
      return session:fails("SELECT * FROM ruvector_record_feedback($1, $2, $3)", query_id,
         relevant and array(relevant), irrelevant and array(irrelevant))
   end

   local function set_of(ids)
      local set = {}
      for _, id in ipairs(ids) do set[id] = true end
      return set
   end

   --- A search that missed true neighbours nearer than its last result: ids, query id, the missed ids.
   local function flawed_search(session, from)
      for i = from or 1, #queries do
         local found, query_id = search(session, queries[i])
         local returned, missed, last = set_of(found), {}, found[#found]
         for _, id in ipairs(nearest(queries[i], K)) do
            if id == last then break end
            if not returned[id] then missed[#missed + 1] = id end
         end
         if #missed > 0 then return found, query_id, missed, i end
      end
      error("every search was perfect: the data is too easy for this spec")
   end

   local function verdict(query_id)
      return clock.wait_until("a verdict that knows of the feedback", LIMIT, function()
         local row = db:row([[SELECT * FROM ruvector_trajectories t WHERE query_id = $1
            AND feedback_relevant IS NOT NULL AND NOT EXISTS (
            SELECT FROM ruvector_feedback f WHERE f.query_id = t.query_id AND f.pending)]], query_id)
         return row and row.query_id and row, "none"
      end)
   end

   local function advice(row)
      return db:column("SELECT unnest(recommendations) FROM ruvector_trajectories WHERE query_id = $1",
         row.query_id)
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = connect()
      db:exec [[CREATE EXTENSION ruvector; CREATE ROLE app LOGIN; CREATE ROLE friend LOGIN IN ROLE app;
         CREATE ROLE other LOGIN; CREATE ROLE owner LOGIN]]
      learning.create_table(db, "items")
      db:exec [[ALTER TABLE items OWNER TO owner; GRANT SELECT ON items TO app, other;
         SELECT ruvector_enable_learning('items', min_samples => 50);
         SET ruvector.adaptive_search = off;
         ALTER ROLE app SET ruvector.adaptive_search = off]]
   end)

   teardown(function()
      if server then server:remove() end
   end)

   describe("on one search", function()
      it("is placed at once: returned, missed near, missed far, unknown", function()
         local found, query_id, missed = flawed_search(db)
         local far = nearest(queries[1], 2000)[2000]
         local said = record(db, query_id, { found[1], missed[1], far, 999999 }, { found[2], 888888 })
         assert.equal("recorded", said.status)
         assert.equal(1, said.relevant)
         assert.equal(1, said.irrelevant)
         assert.equal(1, said.missed_near)
         assert.equal(1, said.missed_far)
         assert.equal("{888888,999999}", said.unknown_ids)
         assert.truthy(said.note:find("Index miss: 1", 1, true))
         assert.truthy(said.note:find("Embedding miss: 1", 1, true))
         assert.truthy(said.note:find("2 of the ids", 1, true))
      end)

      it("makes its verdict a failure where the index missed a row, and says why", function()
         local found, query_id, missed = flawed_search(db, 20)
         record(db, query_id, { found[1], missed[1] }, { found[2] })
         local row = verdict(query_id)
         assert.is_false(row.success)
         assert.equal(1, row.feedback_relevant)
         assert.equal(1, row.feedback_irrelevant)
         assert.equal(1, row.feedback_missed_near)
         assert.near(1 / 3, row.score_feedback, 1e-6)
         assert.truthy(advice(row)[1]:find("^index miss: "))
      end)

      it("does not blame the search for a row that the embedding puts far away", function()
         local query = queries[60]
         local found, query_id = search(db, query)
         record(db, query_id, { found[1], nearest(query, 2000)[2000] })
         local row = verdict(query_id)
         assert.equal(1, row.score_feedback)
         assert.equal(1, row.feedback_missed_far)
         assert.equal(0, row.feedback_missed_near)
         local said = table.concat(advice(row), "; ")
         assert.truthy(said:find("embedding miss: effort cannot help", 1, true), said)
         assert.is_nil(said:find("index miss", 1, true))
      end)

      it("counts once when it is repeated; what is said last holds; and it can be taken back", function()
         local found, query_id = search(db, queries[61])
         assert.equal("recorded", record(db, query_id, { found[1], found[2] }).status)
         verdict(query_id)
         assert.equal("unchanged", record(db, query_id, { found[2], found[1], found[2] }).status)
         assert.equal(2, verdict(query_id).feedback_relevant)
         assert.equal("replaced", record(db, query_id, { found[1] }, { found[2] }).status)
         clock.wait_until("the new verdict", LIMIT, function()
            local row = verdict(query_id)
            return row.feedback_relevant == 1 and row.feedback_irrelevant == 1
         end)
         assert.equal("withdrawn", record(db, query_id, {}).status)
         clock.wait_until("the verdict without it", LIMIT, function()
            local row = verdict(query_id)
            return row.feedback_relevant == 0 and row.feedback_irrelevant == 0
         end)
         assert.equal("unchanged", record(db, query_id, {}).status)
      end)

      it("is weighed by roles where these disagree", function()
         local app, friend = connect("app"), connect("friend")
         local found, query_id = search(app, queries[62])
         record(app, query_id, { found[1], found[2] })
         record(friend, query_id, { found[2] }, { found[1] })
         clock.wait_until("both to be counted", LIMIT, function()
            return math.abs(verdict(query_id).feedback_irrelevant - 0.5) < 1e-6
         end)
         assert.near(1.5, verdict(query_id).feedback_relevant, 1e-6)
      end)

      it("reaches a search that was not sampled, from any session", function()
         learning.wait_stats(db, "items", "enough samples", function(stats) return stats.pending == 0 end)
         for i = 100, 260 do search(db, queries[i]) end
         learning.wait_stats(db, "items", "them to be judged", function(stats) return stats.pending == 0 end)
         local ids = {}
         for i = 100, 140 do
            local found, query_id = search(db, queries[i])
            ids[#ids + 1] = { query_id, found[1] }
         end
         learning.wait_stats(db, "items", "them to be judged", function(stats) return stats.pending == 0 end)
         local left_out
         for _, pair in ipairs(ids) do
            local stored = db:value("SELECT count(*) FROM ruvector_trajectories WHERE query_id = $1", pair[1])
            if stored == 0 then left_out = pair end
         end
         assert(left_out, "all of 41 searches were drawn: about 0.3^41 likely")
         record(connect(), left_out[1], { left_out[2] })
         local row = verdict(left_out[1])
         assert.equal(1, row.feedback_relevant)
         assert.is_false(row.drawn)
         assert.is_true(row.recall >= 0)
      end)
   end)

   describe("is refused with a reason", function()
      it("for ids that are no search's, or another run's", function()
         local err = fails(db, "00000000-0000-4000-8000-000000000000", { 1 }, {})
         assert.equal("22023", err.sqlstate)
         assert.truthy(err.message:find("is not the id of a search", 1, true))
         err = fails(db, "12345678-1234-8234-8234-123456789abc", { 1 }, {})
         assert.equal("42704", err.sqlstate)
         assert.truthy(err.detail:find("another run of the server", 1, true))
      end)

      it("for a search that nobody made in this run", function()
         local _, query_id = search(db, queries[1])
         local err = fails(db, query_id:sub(1, -5) .. "ffff", { 1 }, {})
         assert.equal("42704", err.sqlstate)
         assert.truthy(err.detail:find("no longer among the recorded searches", 1, true))
      end)

      it("for the session's own search that was not recorded, with why", function()
         db:exec("SET ruvector.trajectory_sample_rate = 0")
         local found, query_id = search(db, queries[2])
         db:exec("RESET ruvector.trajectory_sample_rate")
         assert.truthy(fails(db, query_id, found, {}).message:find("was not recorded", 1, true))
         db:exec [[CREATE TABLE plain (id bigint PRIMARY KEY, embedding ruvector(2));
            INSERT INTO plain SELECT n, ARRAY[n, 1]::ruvector FROM generate_series(1, 50) n;
            CREATE INDEX plain_embedding ON plain USING ruhnsw (embedding ruvector_l2_ops)]]
         db:exec("SELECT id FROM plain ORDER BY embedding <-> '[1,2]' LIMIT 3")
         local err = fails(db, db:value("SELECT ruvector_last_query_id()"), { 1 }, {})
         assert.equal("Learning is not enabled for \"plain\".", err.detail)
      end)

      it("for ids that are both, none of which is there, or more than the limit", function()
         local found, query_id = search(db, queries[3])
         local err = fails(db, query_id, { found[1], found[2] }, { found[2] })
         assert.equal(("id %d is both relevant and irrelevant"):format(found[2]), err.message)
         err = fails(db, query_id, { -1, -2 }, { -3 })
         assert.equal("P0002", err.sqlstate)
         assert.truthy(err.message:find("none of the 3 ids", 1, true))
         err = db:fails([[SELECT ruvector_record_feedback($1, (SELECT array_agg(n) FROM
            generate_series(1, 1001) n))]], query_id)
         assert.equal("54000", err.sqlstate)
         assert.equal("relevant_ids has 1001 ids; 1000 are the limit", err.message)
         err = db:fails("SELECT ruvector_record_feedback($1, ARRAY[1, NULL])", query_id)
         assert.equal("22004", err.sqlstate)
         err = fails(db, query_id, {}, {})
         assert.truthy(err.message:find("no relevant and no irrelevant ids", 1, true))
      end)

      it("for a search of too many rows it is kept, and says that it teaches nothing", function()
         local found, query_id = search(db, queries[4], 150)
         local said = record(db, query_id, { found[1] })
         assert.equal("recorded", said.status)
         assert.truthy(said.note:find("The search took 150 rows", 1, true))
      end)

      it("for tables whose rows have no integer name", function()
         db:exec [[CREATE TABLE named (name text PRIMARY KEY, number int, embedding ruvector(2));
            INSERT INTO named SELECT 'n' || n, n, ARRAY[n, 1]::ruvector FROM generate_series(1, 50) n;
            CREATE INDEX named_embedding ON named USING ruhnsw (embedding ruvector_l2_ops);
            SELECT ruvector_enable_learning('named')]]
         db:exec("SELECT name FROM named ORDER BY embedding <-> '[1,2]' LIMIT 3")
         local query_id = db:value("SELECT ruvector_last_query_id()")
         local err = fails(db, query_id, { 1 }, {})
         assert.equal("42804", err.sqlstate)
         assert.truthy(err.hint:find("id_column", 1, true))
         db:exec("SELECT ruvector_enable_learning('named', id_column => 'number')")
         assert.equal(1, record(db, query_id, { 1 }).relevant)
         db:exec("ALTER TABLE named DROP COLUMN number")
         assert.equal("55000", fails(db, query_id, { 1 }, {}).sqlstate)
         db:exec("ALTER TABLE named DROP CONSTRAINT named_pkey; SELECT ruvector_enable_learning('named')")
         assert.truthy(fails(db, query_id, { 1 }, {}).message:find("no primary key of one column", 1, true))
         db:exec("DROP TABLE named")
      end)

      it("beyond the rate of a role, and not of others", function()
         server:apply({ ["ruvector.feedback_rate"] = "3" }, db)
         local app, owner = connect("app"), connect("owner")
         db:exec("DELETE FROM ruvector_feedback WHERE user_id = 'app'::regrole")
         local ids = {}
         for i = 1, 4 do
            local found, query_id = search(app, queries[i])
            ids[i] = { query_id, found[1] }
         end
         for i = 1, 3 do assert.equal("recorded", record(app, ids[i][1], { ids[i][2] }).status) end
         local err = fails(app, ids[4][1], { ids[4][2] }, {})
         assert.equal("53400", err.sqlstate)
         assert.truthy(err.message:find("3 searches within a minute", 1, true))
         assert.equal("unchanged", record(app, ids[1][1], { ids[1][2] }).status)
         assert.equal("recorded", record(owner, ids[4][1], { ids[4][2] }).status)
         server:apply({ ["ruvector.feedback_rate"] = "1000000" }, db)
      end)

      it("after a hundred changes of mind", function()
         local found, query_id = search(db, queries[5])
         local err
         for i = 1, 101 do
            local ok, problem = pcall(record, db, query_id, { found[1 + i % 2] })
            if not ok then
               err = problem
               assert.equal(101, i)
            end
         end
         assert.equal("53400", err.sqlstate)
      end)
   end)

   describe("keeps roles apart:", function()
      it("a search does not exist for whoever did not make it, whatever they may read", function()
         local app, other = connect("app"), connect("other")
         local found, query_id = search(app, queries[6])
         local foreign = fails(other, query_id, { found[1] }, {})
         local absent = fails(other, query_id:sub(1, -5) .. "ffff", { found[1] }, {})
         assert.equal("42704", foreign.sqlstate)
         assert.same({ absent.detail, absent.hint }, { foreign.detail, foreign.hint })
         assert.equal(foreign.message, "search " .. query_id .. " is not known")
         assert.equal("42704", other:fails("SELECT ruvector_refine_query($1)", query_id).sqlstate)
      end)

      it("members of the role, and the table's owner, may judge it", function()
         local app = connect("app")
         local found, query_id = search(app, queries[7])
         for _, role in ipairs { "friend", "owner" } do
            assert.equal("recorded", record(connect(role), query_id, { found[1] }).status)
         end
      end)

      it("it needs SELECT on the table still", function()
         db:exec("CREATE ROLE guest LOGIN; GRANT SELECT ON items TO guest")
         local guest = connect("guest")
         local found, query_id = search(guest, queries[8])
         db:exec("REVOKE SELECT ON items FROM guest")
         assert.equal("42501", fails(guest, query_id, { found[1] }, {}).sqlstate)
      end)

      it("rows that row-level security hides are as good as none", function()
         db:exec [[CREATE POLICY even_rows ON items TO app USING (id % 2 = 0);
            CREATE POLICY all_rows ON items TO PUBLIC USING (current_user NOT IN ('app', 'friend'));
            ALTER TABLE items ENABLE ROW LEVEL SECURITY]]
         local app = connect("app")
         local found, query_id = search(app, queries[9])
         for _, id in ipairs(found) do assert.equal(0, id % 2) end
         local said = record(app, query_id, { found[1], 1, 3 })
         assert.equal("{1,3}", said.unknown_ids)
         assert.equal("P0002", fails(app, query_id, { 1 }, {}).sqlstate)
         db:exec [[ALTER TABLE items DISABLE ROW LEVEL SECURITY; DROP POLICY even_rows ON items;
            DROP POLICY all_rows ON items]]
      end)

      it("nobody reads what was said", function()
         assert.equal("42501", connect("app"):fails("SELECT * FROM ruvector_feedback").sqlstate)
      end)
   end)

   describe("refines a query", function()
      it("towards the relevant rows and away from the others, and nothing else changes", function()
         local found, query_id = search(db, queries[10])
         record(db, query_id, { found[1], found[2] }, { found[9] })
         local refined = db:value("SELECT ruvector_refine_query($1)", query_id)
         local expected = db:value([[SELECT (($1::ruvector + array_fill(0.75, ARRAY[32])::ruvector
            * (SELECT avg(embedding) FROM items WHERE id IN ($2, $3)))
            - array_fill(0.15, ARRAY[32])::ruvector * (SELECT embedding FROM items WHERE id = $4))
            * array_fill(1 / 1.6, ARRAY[32])::ruvector]],
            queries[10], found[1], found[2], found[9])
         assert.is_true(db:value("SELECT l2_distance($1::ruvector, $2::ruvector)", refined, expected) < 1e-5)
         assert.is_true(db:value([[SELECT l2_distance(ruvector_refine_query($1, 0, 1, 0),
            (SELECT avg(embedding) FROM items WHERE id IN ($2, $3)))]], query_id, found[1], found[2]) < 1e-5)
         assert.same(found, (search(db, queries[10])))
      end)

      it("to unit length for cosine distance", function()
         db:exec [[CREATE TABLE angles (id int PRIMARY KEY, embedding ruvector(4));
            INSERT INTO angles SELECT n, ARRAY[n % 7, n % 11, n % 13, 1]::ruvector
               FROM generate_series(1, 300) n;
            CREATE INDEX angles_embedding ON angles USING ruhnsw (embedding ruvector_cosine_ops);
            SELECT ruvector_enable_learning('angles')]]
         local found = db:column("SELECT id FROM angles ORDER BY embedding <=> '[3,1,2,9]' LIMIT 5")
         local query_id = db:value("SELECT ruvector_last_query_id()")
         local said = record(db, query_id, { found[1], found[5] }, { found[3] })
         assert.equal(2, said.relevant)
         assert.equal(1, said.irrelevant)
         assert.near(1, db:value("SELECT ruvector_norm(ruvector_refine_query($1))", query_id), 1e-6)
         assert.equal("22003", db:fails("SELECT ruvector_refine_query($1, 0, 0, 0)", query_id).sqlstate)
      end)

      it("for those who have said something, with weights in range", function()
         local found, query_id = search(connect("app"), queries[11])
         local friend = connect("friend")
         assert.truthy(friend:fails("SELECT ruvector_refine_query($1)", query_id).message
            :find("you have given no feedback", 1, true))
         record(friend, query_id, { found[1] })
         assert.is_truthy(friend:value("SELECT ruvector_refine_query($1)", query_id))
         assert.equal("55000", connect("owner"):fails("SELECT ruvector_refine_query($1)", query_id).sqlstate)
         assert.truthy(friend:fails("SELECT ruvector_refine_query($1, -1)", query_id).message
            :find("alpha is -1", 1, true))
      end)
   end)

   describe("in a calibration", function()
      local app, searches

      --- Everything that was recorded and said is learned.
      local function extract() db:exec("SELECT ruvector_extract_patterns('hard')") end

      local function slack()
         extract()
         return learning.stats(db, "hard").slack
      end

      local function set_share(share)
         server:apply({ ["ruvector.feedback_share"] = tostring(share) }, db)
         extract()
      end

      --- Feedback on every search that missed near rows, or those of `only` (ids of searches); another
      -- turn says it a little differently, so that all of it is new.
      local function report_misses(turn, only)
         local reported = 0
         for _, one in ipairs(searches) do
            if #one.missed > 0 and (not only or only[one.query_id]) then
               local said = record(app, one.query_id, one.missed, { one.found[turn] })
               assert.equal(#one.missed, said.missed_near)
               reported = reported + 1
            end
         end
         assert.is_true(reported >= 10, "too few searches missed a row: " .. reported)
      end

      setup(function()
         db:exec("RESET ruvector.adaptive_search")
         learning.create_table(db, "hard")
         db:exec([[GRANT SELECT ON hard TO app;
            SELECT ruvector_enable_learning('hard', trajectory_window => 2000, min_samples => 50)]])
         app = connect("app")
         searches = {}
         for i, query in ipairs(learning.queries(400, 77)) do
            local found, query_id = search(app, query, K, "hard")
            local returned, missed = set_of(found), {}
            for _, id in ipairs(nearest(query, K, "hard")) do
               if id == found[K] then break end
               if not returned[id] then missed[#missed + 1] = id end
            end
            searches[i] = { query = query, found = found, query_id = query_id, missed = missed }
         end
         extract()
      end)

      it("an embedding miss weighs nothing, however often it is reported", function()
         local before = slack()
         for i = 1, 200 do
            local one = searches[i]
            local far = nearest(one.query, 1000, "hard")[1000]
            assert.equal(1, record(app, one.query_id, { one.found[1], far }).missed_far)
         end
         assert.near(before, slack(), 1e-6)
         assert.is_true(db:value([[SELECT count(*) FROM ruvector_trajectories
            WHERE table_id = 'hard'::regclass AND NOT drawn AND feedback_missed_far = 1]]) > 20)
      end)

      it("an index miss asks for more effort, within the share of its role", function()
         local before, at = slack(), {}
         -- The searches that need more than the calibration gives: it is for these to move it.
         local hard = set_of(db:column([[SELECT query_id FROM ruvector_trajectory_log
            WHERE table_id = 'hard'::regclass AND drawn AND effort_slack[10] > $1]], before))
         for turn, share in ipairs { 0, 0.1, 1 } do
            set_share(share)
            report_misses(turn, hard)
            at[share] = slack()
         end
         assert.near(before, at[0], 1e-6)
         assert.is_true(at[0.1] > before, ("%g after %g"):format(at[0.1], before))
         assert.is_true(at[1] > at[0.1], ("%g after %g"):format(at[1], at[0.1]))
         set_share(0.1)
      end)

      it("is taken over when the worker begins anew, and after the index was rebuilt", function()
         report_misses(4)
         local before = slack()
         assert.is_true(db:value([[SELECT count(*) FROM ruvector_trajectories
            WHERE table_id = 'hard'::regclass AND NOT drawn AND feedback_missed_near > 0]]) > 30)
         local former = learning.stats(db, "hard").worker_pid
         server:kill(former)
         clock.wait_until("another worker", LIMIT, function()
            local ok, stats = pcall(function()
               db, app = connect(), connect("app")
               return learning.stats(db, "hard")
            end)
            return ok and stats.worker_pid and stats.worker_pid ~= former
         end)
         assert.equal(0, db:value("SELECT count(*) FROM ruvector_feedback WHERE pending"))
         db:exec("REINDEX INDEX hard_embedding")
         learning.wait_stats(db, "hard", "the index to be learned", function(stats)
            return stats.state == "learned"
         end)
         assert.is_true(slack() > 0.5 * before)
         assert.is_true(db:value([[SELECT count(*) FROM ruvector_trajectories
            WHERE table_id = 'hard'::regclass AND feedback_missed_near > 0 AND NOT success]]) > 30)
      end)
   end)
end)

describe("feedback that comes late", function()
   local server, db

   setup(function()
      local settings = { ["ruvector.trajectory_buffer_size"] = 64 }
      for name, value in pairs(learning.SETTINGS) do settings[name] = value end
      server = cluster.new({ preload = true, settings = settings }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector; SET enable_seqscan = off")
      learning.create_table(db, "items", 500)
      db:exec("SET enable_seqscan = off; SELECT ruvector_enable_learning('items', min_samples => 20)")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   local function searched(queries)
      local out = {}
      for i, query in ipairs(queries) do
         local found = db:column("SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 10", query)
         out[i] = { found = found, query_id = db:value("SELECT ruvector_last_query_id()") }
         -- Reads the ring, which is small; what is in it does not count as pending yet.
         if i % 30 == 0 then db:exec("SELECT ruvector_extract_patterns('items')") end
      end
      db:exec("SELECT ruvector_extract_patterns('items')")
      return out
   end

   it("is taken for stored searches, and refused for those that are gone, also after a restart", function()
      local searches = searched(learning.queries(300, 5))
      local stored, gone
      for i = 1, 200 do
         local one = searches[i]
         if db:value("SELECT count(*) FROM ruvector_trajectories WHERE query_id = $1", one.query_id) > 0 then
            stored = stored or one
         else
            gone = gone or one
         end
      end
      local function check(session)
         local said = session:row([[SELECT * FROM ruvector_record_feedback($1, ARRAY[$2]::bigint[],
            ARRAY[$3]::bigint[])]], stored.query_id, stored.found[1], stored.found[2])
         assert.equal(1, said.relevant)
         assert.equal(1, said.irrelevant)
         local err = session:fails("SELECT ruvector_record_feedback($1, ARRAY[1])", gone.query_id)
         assert.equal("42704", err.sqlstate)
         return said.status
      end
      assert.equal("recorded", check(db))
      clock.wait_until("the verdict", LIMIT, function()
         return db:value("SELECT feedback_relevant FROM ruvector_trajectories WHERE query_id = $1",
            stored.query_id) == 1
      end)
      server:restart()
      db = server:connect()
      assert.equal("unchanged", check(db))
      assert.is_truthy(db:value("SELECT ruvector_refine_query($1)", stored.query_id))
   end)

   it("is refused when only a hash of the query was stored", function()
      server:configure { ["ruvector.trajectory_anonymize"] = "on" }
      server:restart()
      db = server:connect()
      db:exec("SET enable_seqscan = off")
      local searches = searched(learning.queries(200, 8))
      local early = searches[#searches]
      assert.equal("recorded", db:value(
         "SELECT status FROM ruvector_record_feedback($1, ARRAY[$2]::bigint[])",
         early.query_id, early.found[1]))
      local stored
      for i = 1, 100 do
         if db:value("SELECT count(*) FROM ruvector_trajectories WHERE query_id = $1",
            searches[i].query_id) > 0 then stored = searches[i] end
      end
      local err = db:fails("SELECT ruvector_record_feedback($1, ARRAY[1])", stored.query_id)
      assert.equal("55000", err.sqlstate)
      assert.truthy(err.message:find("only a hash is left", 1, true))
   end)
end)
