-- selection.lua, run by the host as the server runs it.

local policy_host = require("support.policy_host")

describe("selection", function()
   local host, built_in
   setup(function()
      host, built_in = policy_host.new(), policy_host.new()
      assert.equal("ok", (host:load("policies")))
   end)
   teardown(function()
      host:destroy()
      built_in:destroy()
   end)

   -- The index that is predicted to be cheaper.
   local function cheaper(hnsw, ivfflat, features)
      local costs, cause, failure = host:predict(hnsw, ivfflat, features)
      assert.equal("ok", cause, failure.reason)
      assert.is_true(costs.hnsw ~= costs.ivfflat)
      return costs.hnsw < costs.ivfflat and "hnsw" or "ivfflat"
   end

   it("follows the planner's estimates until both indexes were measured", function()
      assert.equal("hnsw", cheaper({ cost = 10 }, { cost = 11 }))
      assert.equal("ivfflat", cheaper({ cost = 11 }, { cost = 10 }))
      assert.equal("hnsw", cheaper({ cost = 10, searches = 1000, latency_us = 900 }, { cost = 11 }))
      assert.equal("hnsw", cheaper({ cost = 10, searches = 1000, latency_us = 900 },
         { cost = 11, searches = 19, latency_us = 3 }))
   end)

   it("follows the latency once both were", function()
      assert.equal("ivfflat", cheaper({ cost = 10, searches = 20, latency_us = 900 },
         { cost = 11, searches = 20, latency_us = 300 }))
      assert.equal("hnsw", cheaper({ cost = 11, searches = 20, latency_us = 300 },
         { cost = 10, searches = 20, latency_us = 900 }))
   end)

   it("counts recall that is missing as cost, on both alike", function()
      assert.equal("ivfflat", cheaper({ cost = 10, recall = 0.85 }, { cost = 30, recall = 0.95 }))
      assert.equal("hnsw", cheaper({ cost = 10, recall = 0.93 }, { cost = 30, recall = 0.95 }))
      assert.equal("hnsw", cheaper({ cost = 10, recall = 0.85 }, { cost = 30, recall = 0.85 }))
      assert.equal("hnsw", cheaper({ cost = 10, recall = 0.85 }, { cost = 30 }))
      assert.equal("hnsw", cheaper({ cost = 10, recall = 0.85 }, { cost = 30, recall = 0.95 },
         { target_recall = 0.8 }))
   end)

   it("is the same from the built-in, for any features", function()
      math.randomseed(3)
      local function random_index()
         local index = { cost = math.random(1, 1000) }
         if math.random() < 0.7 then
            index.searches, index.latency_us = math.random(0, 60), math.random(1, 5000)
            index.distances = math.random(10, 9999)
         end
         if math.random() < 0.7 then index.recall = math.random() end
         return index
      end
      for _ = 1, 500 do
         local hnsw, ivfflat = random_index(), random_index()
         local mine, theirs = host:predict(hnsw, ivfflat), (built_in:predict(hnsw, ivfflat))
         assert.near(1, mine.hnsw / theirs.hnsw, 1e-9)
         assert.near(1, mine.ivfflat / theirs.ivfflat, 1e-9)
      end
   end)

   it("that gives no positive cost for each is refused", function()
      for _, body in ipairs({ "return { hnsw = 0, ivfflat = 1 }", "return { hnsw = 1 }",
         "return { hnsw = 1, ivfflat = math.huge }", "return { hnsw = 1, ivfflat = 2, seqscan = 3 }" }) do
         local odd = policy_host.serving("selection", body)
         local costs, cause = odd:predict({ cost = 10 }, { cost = 11 })
         assert.equal("shape", cause, body)
         assert.same({ hnsw = 10, ivfflat = 11 }, costs)
         odd:destroy()
      end
      policy_host.clean()
   end)
end)
