-- Drift: a new topic comes with its rows and its queries. Searches take more effort at once, recall
-- stays near what was declared, and the effort is taken back when the new topic has been learned.

local clock = require("ruvector.clock")
local cluster = require("ruvector.cluster")
local learning = require("support.learning")
local pg = require("ruvector.pg")

local TARGET, BLOCK, BLOCKS = 0.9, 200, 5

describe("a new topic", function()
   local server, db

   -- Vectors far from all others, in another arrangement: as text.
   local function topic(count, seed)
      local state, out = seed, {}
      local function random()
         state = (state * 48271) % 2147483647
         return state / 2147483647
      end
      for i = 1, count do
         local vector = {}
         for j = 1, learning.DIM do vector[j] = 4 + random() * (j % 4 == 0 and 3 or 1) end
         out[i] = pg.vector_text(vector)
      end
      return out
   end

   local function insert(rows)
      db:exec("BEGIN")
      local statement = db:prepare("INSERT INTO items VALUES ($1, $2)")
      for i, vector in ipairs(rows) do statement:exec(100000 + i, vector) end
      statement:close()
      db:exec("COMMIT")
   end

   local function guarded()
      return db:value("SELECT active FROM ruvector_learning_levers('items') WHERE lever = 'guard'")
   end

   local function recall_of(queries)
      return learning.recall(learning.search(db, "items", queries), learning.truth(db, "items", queries))
   end

   setup(function()
      server = cluster.new({ preload = true, settings = learning.SETTINGS }):start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector")
      learning.create_table(db, "items")
      db:exec("SET ruvector.target_recall = " .. TARGET)
      learning.teach(db, "items", { queries = 600 })
   end)

   teardown(function()
      if server then server:remove() end
   end)

   it("is no alarm as long as nobody has seen it", function()
      learning.search(db, "items", learning.queries(200, 5))
      learning.wait_learned(db, "items", 800)
      assert.is_false(guarded())
      assert.is_nil(server:log():match("take more effort for now[^\n]*\n[^\n]*"))
   end)

   it("is noticed, never far below the target, and as good as before within 1,000 queries", function()
      insert(topic(learning.ROWS / 10, 17))
      local before, recalls = learning.stats(db, "items").trajectories, {}
      for block = 1, BLOCKS do
         recalls[block] = recall_of(topic(BLOCK, 1000 + block))
         assert.is_true(recalls[block] > TARGET - 0.03,
            ("recall %.3f in block %d"):format(recalls[block], block))
      end
      clock.wait_until("the new topic to be noticed", learning.LIMIT, function()
         return server:log():find("take more effort for now: queries have changed", 1, true) ~= nil
      end)
      learning.wait_learned(db, "items", before + BLOCK * BLOCKS)
      db:exec("SET ruvector.trajectory_sample_rate = 0")
      local recall = recall_of(topic(500, 77))
      db:exec("RESET ruvector.trajectory_sample_rate")
      assert.is_true(recall > TARGET - 0.01, ("recall %.3f after learning"):format(recall))
   end)

   it("takes the calibrated effort again when it has been learned", function()
      clock.wait_until("the effort to be taken back", learning.LIMIT, function()
         return not guarded(), "the guard is still there"
      end)
      assert.is_truthy(server:log():find("take the calibrated effort again", 1, true))
   end)
end)
