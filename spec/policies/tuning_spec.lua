-- tuning.lua, run by the host as the server runs it.

local policy_host = require("support.policy_host")

local CURVE = {
   { effort = 10, recall = 0.82, distances = 200, latency_us = 90 },
   { effort = 20, recall = 0.91, distances = 340, latency_us = 150 },
   { effort = 40, recall = 0.962, distances = 600, latency_us = 260 },
   { effort = 80, recall = 0.981, distances = 1100, latency_us = 480 },
   { effort = 160, recall = 0.9912, distances = 2100, latency_us = 930 },
   { effort = 320, recall = 0.9916, distances = 4000, latency_us = 1800 },
}

describe("tuning", function()
   local host, built_in
   setup(function()
      host, built_in = policy_host.new(), policy_host.new()
      assert.equal("ok", (host:load("policies")))
   end)
   teardown(function()
      host:destroy()
      built_in:destroy()
   end)

   local function choose(curve, goal)
      local choice, cause, failure = host:choose(curve, goal)
      assert.equal("ok", cause, failure.reason)
      return curve[choice.point].effort, choice.target_recall
   end

   it("for recall takes the least effort that reaches 0.99", function()
      local effort, target = choose(CURVE, "recall")
      assert.equal(160, effort)
      assert.near(0.99, target, 1e-12)
   end)

   it("for latency takes the least effort that reaches 0.90", function()
      local effort, target = choose(CURVE, "latency")
      assert.equal(20, effort)
      assert.near(0.91, target, 1e-12)
   end)

   it("when balanced takes the least product of distances and misses", function()
      -- 340 x 0.095, 600 x 0.043, 1100 x 0.024, 2100 x 0.0138
      local effort, target = choose(CURVE, "balanced")
      assert.equal(40, effort)
      assert.near(0.962, target, 1e-12)
   end)

   it("when balanced never takes more than for recall", function()
      local easy = {
         { effort = 10, recall = 0.95, distances = 200, latency_us = 90 },
         { effort = 20, recall = 0.992, distances = 210, latency_us = 95 },
         { effort = 40, recall = 0.9999, distances = 220, latency_us = 99 },
      }
      assert.equal(20, (choose(easy, "recall")))
      assert.equal(20, (choose(easy, "balanced")))
   end)

   it("orders the goals: latency, balanced, recall", function()
      assert.is_true(choose(CURVE, "latency") <= choose(CURVE, "balanced"))
      assert.is_true(choose(CURVE, "balanced") <= choose(CURVE, "recall"))
   end)

   it("takes what comes near the best where nothing reaches the floor", function()
      local low = {
         { effort = 10, recall = 0.3, distances = 200, latency_us = 90 },
         { effort = 100, recall = 0.7995, distances = 900, latency_us = 400 },
         { effort = 1000, recall = 0.80, distances = 9000, latency_us = 4000 },
      }
      for _, goal in ipairs({ "recall", "latency", "balanced" }) do
         assert.equal(100, (choose(low, goal)), goal)
      end
   end)

   it("takes the only setting there is, and keeps the target within its range", function()
      local only = { { effort = 5, recall = 0.1, distances = 9, latency_us = 1 } }
      local effort, target = choose(only, "balanced")
      assert.equal(5, effort)
      assert.equal(0.5, target)
      only[1].recall = 1
      assert.equal(0.99, select(2, choose(only, "recall")))
   end)

   it("is the same from the built-in, for any curve", function()
      math.randomseed(5)
      for _ = 1, 500 do
         local curve, recall, work = {}, math.random(), 100
         for i = 1, math.random(1, 20) do
            recall = recall + (1 - recall) * math.random() ^ 3
            work = work * (1 + math.random())
            curve[i] = { effort = 10 * i, recall = recall, distances = work,
               latency_us = work * (0.8 + 0.4 * math.random()) }
         end
         for _, goal in ipairs({ "recall", "latency", "balanced" }) do
            local mine, theirs = host:choose(curve, goal), (built_in:choose(curve, goal))
            assert.same(theirs, mine)
         end
      end
   end)

   it("that names no point of the curve, or no recall, is refused", function()
      for _, body in ipairs({ "return { point = 0, target_recall = 0.9 }",
         "return { point = #curve + 1, target_recall = 0.9 }", "return { point = 1.5, target_recall = 0.9 }",
         "return { point = 1, target_recall = 0.4 }", "return { point = 1 }",
         "return { point = 1, target_recall = 0.9, effort = 3 }", "return 3" }) do
         local odd = policy_host.serving("tuning", body)
         local choice, cause = odd:choose(CURVE, "recall")
         assert.equal("shape", cause, body)
         assert.equal(5, choice.point, "the built-in answers")
         odd:destroy()
      end
      policy_host.clean()
   end)
end)
