-- interpolation.lua, run by the host as the server runs it.

local policy_host = require("support.policy_host")
local advice = policy_host.advice

describe("interpolation", function()
   local host, built_in
   setup(function()
      host, built_in = policy_host.new(), policy_host.new()
      assert.equal("ok", (host:load("policies")))
   end)
   teardown(function()
      host:destroy()
      built_in:destroy()
   end)

   local function interpolate(defaults, patterns)
      local result, cause, failure = host:interpolate(defaults, patterns)
      assert.equal("ok", cause, failure.reason)
      return result
   end

   it("answers with the defaults when no pattern is near", function()
      local result = interpolate(advice({ slack = 0.2, ef_search = 80, probes = 4 }), {})
      assert.near(0.2, result.slack, 1e-12)
      assert.equal(80, result.ef_search)
      assert.equal(4, result.probes)
   end)

   it("answers with the defaults when all patterns agree with them", function()
      local result = interpolate(advice(), { advice({ similarity = 0.9 }), advice({ similarity = 0.4 }) })
      assert.near(0.2, result.slack, 1e-12)
      assert.equal(80, result.ef_search)
      assert.equal(4, result.probes)
   end)

   it("lies between the defaults and what the patterns say", function()
      local harder = advice({ slack = 0.4, ef_search = 200, probes = 8 })
      local result = interpolate(advice({ slack = 0.2 }), { harder })
      assert.is_true(result.slack > 0.2 and result.slack < 0.4)
      assert.is_true(result.ef_search > 80 and result.ef_search < 200)
      assert.is_true(result.probes > 4 and result.probes <= 8)
   end)

   it("moves the more, the nearer and the surer the patterns are, and the more of them agree", function()
      local function slack(similarity, confidence, count)
         local patterns = {}
         for i = 1, count do
            patterns[i] = advice({ slack = 0.5, similarity = similarity, confidence = confidence })
         end
         return interpolate(advice({ slack = 0.2 }), patterns).slack
      end
      assert.is_true(slack(0.9, 0.8, 1) > slack(0.7, 0.8, 1))
      assert.is_true(slack(0.9, 0.8, 1) > slack(0.9, 0.3, 1))
      assert.is_true(slack(0.9, 0.8, 3) > slack(0.9, 0.8, 1))
      assert.near(0.2, slack(0, 1, 8), 1e-12)
      assert.near(0.2, slack(1, 0, 8), 1e-12)
   end)

   it("follows its formula", function()
      local result = interpolate(advice({ slack = 0.1 }), {
         advice({ slack = 0.3, similarity = 0.9, confidence = 0.8 }),
         advice({ slack = 0.05, similarity = 0.8, confidence = 0.5 }),
      })
      local near, far = 0.9 ^ 8 * 0.8, 0.8 ^ 8 * 0.5
      local mean = (0.5 * math.log(1.1) + near * math.log(1.3) + far * math.log(1.05)) / (0.5 + near + far)
      assert.near(math.exp(mean) - 1, result.slack, 1e-12)
   end)

   it("keeps the slack within three times the default, up and down", function()
      local many = {}
      for i = 1, 8 do many[i] = advice({ slack = 9 }) end
      assert.near(0.3, interpolate(advice({ slack = 0.1 }), many).slack, 1e-12)
      for i = 1, 8 do many[i] = advice({ slack = 0 }) end
      assert.near(0.9 / 3, interpolate(advice({ slack = 0.9 }), many).slack, 1e-12)
   end)

   it("lets the slack rise to a floor from a default of 0", function()
      assert.near(0.02, interpolate(advice({ slack = 0 }), { advice({ slack = 1 }) }).slack, 1e-12)
   end)

   it("never bounds the beam below the default, nor above four times it", function()
      local few = { advice({ ef_search = 10, probes = 1 }) }
      local many = { advice({ ef_search = 100000, probes = 9999 }) }
      for i = 2, 8 do few[i], many[i] = few[1], many[1] end
      local low, high = interpolate(advice(), few), interpolate(advice(), many)
      assert.same({ 80, 4 }, { low.ef_search, low.probes })
      assert.same({ 320, 16 }, { high.ef_search, high.probes })
   end)

   it("gives whole efforts", function()
      local result = interpolate(advice(), { advice({ ef_search = 131, probes = 7 }) })
      assert.equal(math.floor(result.ef_search), result.ef_search)
      assert.equal(math.floor(result.probes), result.probes)
   end)

   it("is the same from the built-in, for any patterns", function()
      math.randomseed(11)
      local function random_advice()
         return advice({
            similarity = math.random(), slack = math.random() ^ 3 * 3, ef_search = math.random(10, 2000),
            probes = math.random(1, 50), confidence = math.random(),
         })
      end
      for _ = 1, 2000 do
         local defaults, patterns = random_advice(), {}
         for i = 1, math.random(0, 8) do patterns[i] = random_advice() end
         local mine, theirs = interpolate(defaults, patterns), (built_in:interpolate(defaults, patterns))
         assert.near(theirs.slack, mine.slack, 1e-9)
         assert.equal(theirs.ef_search, mine.ef_search)
         assert.equal(theirs.probes, mine.probes)
      end
   end)
end)
