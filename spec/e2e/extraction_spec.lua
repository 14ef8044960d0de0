-- ruvector_extract_patterns(): when it returns, everything that was recorded is learned; when that
-- cannot be, it says so.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")

describe("an extraction", function()
   local server, db, other
   local queries = learning.queries(400, 55)
   local at = 0

   local function search(session, count)
      for _ = 1, count do
         at = at % #queries + 1
         session:exec("SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 10", queries[at])
      end
   end

   local function extract(session) return session:value("SELECT ruvector_extract_patterns('items')") end

   --- Searches that are drawn but not learned from; nothing else is due.
   local function everything_learned()
      local stats = learning.stats(db, "items")
      assert.equal(0, stats.pending)
      assert.equal("learned", stats.state)
   end

   setup(function()
      local settings = {}
      for name, value in pairs(learning.SETTINGS) do settings[name] = value end
      -- The worker does nothing unless it is asked to: what is learned is learned by the extraction.
      settings["ruvector.learning_interval"] = "1h"
      server = cluster.new({ preload = true, settings = settings }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
      db:exec("SET enable_seqscan = off")
      other = server:connect()
      other:exec("SET enable_seqscan = off")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("learns what was recorded until then, of a table that learns since a moment ago", function()
      db:exec("SELECT ruvector_enable_learning('items', min_samples => 50)")
      search(db, 400)
      assert.is_true(extract(db) > 0)
      everything_learned()
      assert.equal(400, learning.stats(db, "items").trajectories)
   end)

   it("leaves nothing for the next one: not a link, not a sample", function()
      local before = learning.stats(db, "items")
      local rounds = db:value("SELECT count(*) FROM ruvector_link_history")
      extract(db)
      extract(db)
      local after = learning.stats(db, "items")
      assert.equal(rounds, db:value("SELECT count(*) FROM ruvector_link_history"))
      assert.equal(before.slack, after.slack)
      assert.equal(before.judged, after.judged)
      assert.equal(before.links, after.links)
   end)

   it("waits for somebody who has locked the patterns for a moment", function()
      search(db, 50)
      other:exec("BEGIN; SELECT ruvector_consolidate_patterns('items_embedding')")
      db:send("SELECT ruvector_extract_patterns('items')")
      local watcher = server:connect() -- a transaction sees one state of the activity only
      clock.wait_until("the call to wait for the worker", learning.LIMIT, function()
         return watcher:value([[SELECT count(*) FROM pg_stat_activity
            WHERE pid = $1 AND wait_event_type = 'Extension' AND state = 'active']], db:backend_pid()) == 1
      end)
      other:exec("COMMIT")
      db:receive()
      everything_learned()
   end)

   it("says so when the patterns stay locked, and learns it the next time", function()
      search(db, 50)
      other:exec("BEGIN; SELECT ruvector_consolidate_patterns('items_embedding')")
      local err = db:fails("SELECT ruvector_extract_patterns('items')")
      assert.equal("55P03", err.sqlstate)
      assert.truthy(err.message:find('"items_embedding" could be learned', 1, true))
      other:exec("COMMIT")
      extract(db)
      everything_learned()
   end)

   it("says so when the lock is the caller's own", function()
      search(db, 50)
      db:exec("BEGIN; LOCK TABLE items")
      assert.equal("55P03", db:fails("SELECT ruvector_extract_patterns('items')").sqlstate)
      db:exec("ROLLBACK")
      extract(db)
      everything_learned()
   end)

   it("says so when the worker itself waits for a lock that the caller has", function()
      search(db, 50)
      db:exec("BEGIN; LOCK TABLE ruvector_index_state")
      local err = db:fails("SELECT ruvector_extract_patterns('items')")
      db:exec("ROLLBACK")
      assert.equal("55P03", err.sqlstate)
      assert.equal("the learning worker waits for a lock", err.message)
      extract(db)
      everything_learned()
   end)

   it("ends while others go on searching", function()
      local answered, deadline = false, clock.now() + learning.LIMIT
      db:send("SELECT ruvector_extract_patterns('items')")
      while not answered do
         search(other, 20)
         answered = db:ready()
         assert.is_true(answered or clock.now() < deadline, "the extraction does not end")
      end
      db:receive()
   end)

   it("says which error kept it from learning", function()
      db:exec [[CREATE TABLE switch (broken boolean); INSERT INTO switch VALUES (false);
         CREATE FUNCTION shaky(v ruvector) RETURNS ruvector LANGUAGE plpgsql IMMUTABLE AS $$
         BEGIN
            IF (SELECT broken FROM public.switch) THEN RAISE EXCEPTION 'out of order'; END IF;
            RETURN v;
         END $$;
         CREATE TABLE shaken AS SELECT id, embedding FROM items LIMIT 500;
         ALTER TABLE shaken ADD PRIMARY KEY (id);
         CREATE INDEX shaken_embedding ON shaken
            USING ruhnsw ((shaky(embedding)::ruvector(32)) ruvector_l2_ops);
         SELECT ruvector_enable_learning('shaken', min_samples => 20)]]
      db:exec("SET jit = off")
      local function search_shaken()
         for i = 1, 60 do
            db:exec("SELECT id FROM shaken ORDER BY shaky(embedding)::ruvector(32) <-> $1 LIMIT 10",
               queries[i])
         end
      end
      -- The worker gets at the index when it is broken and the call waits, not before: a round that failed by
      -- itself would have nothing left for the call.
      other:exec("BEGIN; SELECT ruvector_consolidate_patterns('shaken_embedding')")
      search_shaken()
      db:exec("UPDATE switch SET broken = true")
      db:send("SELECT ruvector_extract_patterns('shaken')")
      local watcher = server:connect()
      clock.wait_until("the call to wait for the worker", learning.LIMIT, function()
         return watcher:value([[SELECT count(*) FROM pg_stat_activity
            WHERE pid = $1 AND wait_event_type = 'Extension' AND state = 'active']], db:backend_pid()) == 1
      end)
      other:exec("COMMIT")
      local ok, err = pcall(db.receive, db)
      assert.is_false(ok)
      assert.equal("55000", err.sqlstate)
      assert.truthy(err.detail:find("out of order", 1, true))
      extract(db) -- of another table: nothing is wrong with it
      db:exec("UPDATE switch SET broken = false")
      search_shaken()
      assert.is_true(db:value("SELECT ruvector_extract_patterns('shaken')") > 0)
   end)
end)
