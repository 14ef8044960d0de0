-- The specification of conservative.lua.

local candidate = require("ruvector.policy.candidate")

local here = debug.getinfo(1, "S").source:match("^@(.*)/") or "."

describe("the interpolation policy conservative", function()
   local policy
   setup(function() policy = assert(candidate.open(here .. "/conservative.lua")) end)
   teardown(function() policy.host:destroy() end)

   local function advice(changes)
      local all = { similarity = 1, slack = 0.2, ef_search = 80, probes = 4, confidence = 1, samples = 100 }
      for name, value in pairs(changes or {}) do all[name] = value end
      return all
   end

   local function plan(patterns, defaults)
      local result, cause, failure = policy.host:interpolate(defaults or advice(), patterns, 0.95)
      assert.equal("ok", cause, failure.reason)
      return result
   end

   it("adds a tenth to what holds everywhere", function()
      local alone = plan({})
      assert.near(0.22, alone.slack, 1e-9)
      assert.equal(88, alone.ef_search)
      assert.equal(5, alone.probes)
   end)

   it("adds a little even where no slack was needed", function()
      assert.near(0.01, plan({}, advice({ slack = 0 })).slack, 1e-9)
   end)

   it("takes effort from a harder neighbour, and none away for an easier one", function()
      assert.near(0.44, plan({ advice({ similarity = 0.9, slack = 0.4 }) }).slack, 1e-9)
      assert.near(0.22, plan({ advice({ similarity = 0.9, slack = 0.05, ef_search = 10 }) }).slack, 1e-9)
   end)

   it("does not listen to patterns that are far away", function()
      assert.near(0.22, plan({ advice({ similarity = 0.4, slack = 5 }) }).slack, 1e-9)
   end)
end)
