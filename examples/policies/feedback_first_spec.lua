-- The specification of feedback_first.lua.

local candidate = require("ruvector.policy.candidate")

local here = debug.getinfo(1, "S").source:match("^@(.*)/") or "."

describe("the verdict policy feedback_first", function()
   local policy
   setup(function() policy = assert(candidate.open(here .. "/feedback_first.lua")) end)
   teardown(function() policy.host:destroy() end)

   local function judge(changes)
      local trajectory = { recall = 1, target_recall = 0.95, diversity = 0.5 }
      for name, value in pairs(changes or {}) do trajectory[name] = value end
      local verdict, cause, failure = policy.host:judge(trajectory)
      assert.equal("ok", cause, failure.reason)
      return verdict
   end

   it("goes by recall where nobody said anything", function()
      assert.is_true(judge().success)
      assert.is_false(judge({ recall = 0.85 }).success)
      assert.equal(-1, judge().feedback)
   end)

   it("goes by feedback where there is some, whatever the recall", function()
      assert.is_true(judge({ feedback_relevant = 8, feedback_irrelevant = 1, recall = 0.9 }).success)
      local verdict = judge({ feedback_relevant = 2, feedback_irrelevant = 6 })
      assert.is_false(verdict.success)
      assert.equal(0.25, verdict.feedback)
      assert.equal(1, verdict.confidence)
   end)

   it("fails a search that missed a near relevant row, and asks for effort", function()
      local verdict = judge({ feedback_relevant = 9, feedback_missed_near = 1 })
      assert.is_false(verdict.success)
      assert.same({ "index miss: raise effort" }, verdict.recommendations)
   end)

   it("counts a far relevant row half, and does not ask for effort", function()
      local verdict = judge({ feedback_relevant = 1, feedback_missed_far = 2 })
      assert.equal(0.5, verdict.feedback)
      assert.same({ "embedding miss: effort cannot help" }, verdict.recommendations)
   end)

   it("notices results that are copies of each other", function()
      assert.same({ "near copies among the results: remove duplicates" },
         judge({ diversity = 0.05 }).recommendations)
   end)
end)
