-- The specification of night_healing.lua.

local candidate = require("ruvector.policy.candidate")
local policy_host = require("ruvector.policy_host")

local here = debug.getinfo(1, "S").source:match("^@(.*)/") or "."

describe("the healing policy night_healing", function()
   local policy
   setup(function() policy = assert(candidate.open(here .. "/night_healing.lua")) end)
   teardown(function() policy.host:destroy() end)

   local function heal(changes)
      local answer, cause, failure = policy.host:heal(policy_host.situation(changes))
      assert.equal("ok", cause, failure.reason)
      return answer
   end

   it("runs from one o'clock until five, however busy the night is", function()
      assert.is_false(heal({ hour = 0.99 }).run)
      assert.is_true(heal({ hour = 1, load = 1.5 }).run)
      assert.is_true(heal({ hour = 4.99 }).run)
      assert.is_false(heal({ hour = 5 }).run)
   end)

   it("runs by day when nobody has searched for five minutes and the server idles", function()
      assert.is_false(heal({ hour = 12, idle_s = 299, load = 0 }).run)
      assert.is_true(heal({ hour = 12, idle_s = 300, load = 0 }).run)
      assert.is_false(heal({ hour = 12, idle_s = 300, load = 0.5 }).run) -- other tables are searched
   end)

   it("does not take a server for idle of which nothing is known", function()
      assert.is_false(heal({ hour = 12, idle_s = -1, load = -1 }).run)
   end)

   it("does not run by day because somebody waits", function()
      assert.is_false(heal({ hour = 12, asked = 1 }).run)
   end)

   it("wants enough queries: twice min_samples, and a quarter of those used before", function()
      assert.is_false(heal({ hour = 2, waiting = 199 }).run)
      assert.is_true(heal({ hour = 2, waiting = 200 }).run)
      assert.is_false(heal({ hour = 2, waiting = 999, used = 4000 }).run)
      assert.is_true(heal({ hour = 2, waiting = 1000, used = 4000 }).run)
      assert.is_true(heal({ hour = 2, waiting = 8192, used = 1e6 }).run)
      assert.is_false(heal({ hour = 2, held_out = 99 }).run)
   end)

   it("rests between two rounds", function()
      assert.is_false(heal({ hour = 2, since_round_s = 40, round_s = 5 }).run)
      assert.is_true(heal({ hour = 2, since_round_s = 50, round_s = 5 }).run)
   end)

   it("keeps what gains a hundredth", function() assert.equal(0.01, heal().min_gain) end)
end)
