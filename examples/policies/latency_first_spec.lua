-- The specification of latency_first.lua.

local candidate = require("ruvector.policy.candidate")

local here = debug.getinfo(1, "S").source:match("^@(.*)/") or "."

describe("the verdict policy latency_first", function()
   local policy
   setup(function() policy = assert(candidate.open(here .. "/latency_first.lua")) end)
   teardown(function() policy.host:destroy() end)

   local function judge(changes)
      local trajectory = {
         latency_us = 100, recall = 0.95, target_recall = 0.95, index_judged = 100,
         index_latency_p50_us = 100, index_latency_p95_us = 400,
      }
      for name, value in pairs(changes or {}) do trajectory[name] = value end
      local verdict, cause, failure = policy.host:judge(trajectory)
      assert.equal("ok", cause, failure.reason)
      return verdict
   end

   it("calls a search as quick as the median a full success", function()
      local verdict = judge()
      assert.is_true(verdict.success)
      assert.equal(1, verdict.latency)
      assert.equal(1, verdict.confidence)
      assert.same({}, verdict.recommendations)
   end)

   it("lets the score fall to nothing at one and a half times the 95th percentile", function()
      assert.equal(0, judge({ latency_us = 600 }).latency)
      assert.near(0.5, judge({ latency_us = 350 }).latency, 1e-9)
   end)

   it("fails a slow search whatever its recall, and says what would help", function()
      local verdict = judge({ latency_us = 500, recall = 1 })
      assert.is_false(verdict.success)
      assert.match("slow for this index", verdict.recommendations[1], 1, true)
   end)

   it("forgives recall down to nine tenths of the target, and nothing below", function()
      assert.is_true(judge({ recall = 0.86 }).success)
      local verdict = judge({ recall = 0.85 })
      assert.is_false(verdict.success)
      assert.equal("recall below its floor: raise effort", verdict.recommendations[1])
   end)

   it("does not judge speed before the index has been searched a little", function()
      local verdict = judge({ latency_us = 1e6, index_judged = 5 })
      assert.is_true(verdict.success)
      assert.equal(-1, verdict.latency)
      assert.near(0.3, verdict.confidence, 1e-9)
   end)
end)
