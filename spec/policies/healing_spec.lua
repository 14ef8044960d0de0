-- healing.lua, run by the host as the server runs it.

local kinds = require("ruvector.policy.kinds")
local policy_host = require("support.policy_host")

describe("healing", function()
   local host, built_in
   setup(function()
      host, built_in = policy_host.new(), policy_host.new()
      assert.equal("ok", (host:load("policies")))
   end)
   teardown(function()
      host:destroy()
      built_in:destroy()
   end)

   local function heal(changes)
      local answer, cause, failure = host:heal(policy_host.situation(changes))
      assert.equal("ok", cause, failure.reason)
      return answer
   end

   it("waits for four times the searches that learning needs to begin", function()
      assert.is_false(heal({ waiting = 399 }).run)
      assert.is_true(heal({ waiting = 400 }).run)
      assert.is_true(heal({ waiting = 80, min_samples = 20 }).run)
   end)

   it("waits for as many queries as all rounds before used, and never for more than 8192", function()
      assert.is_false(heal({ waiting = 1999, used = 2000 }).run)
      assert.is_true(heal({ waiting = 2000, used = 2000 }).run)
      assert.is_true(heal({ waiting = 8192, used = 1e6 }).run)
   end)

   it("takes half of them when searches pause or somebody waits", function()
      for _, paused in ipairs({ { idle_s = 0.21 }, { idle_s = -1 }, { asked = 1 } }) do
         paused.used, paused.waiting = 2000, 999
         assert.is_false(heal(paused).run)
         paused.waiting = 1000
         assert.is_true(heal(paused).run)
      end
      assert.is_false(heal({ idle_s = 0.2, used = 2000, waiting = 1000 }).run)
   end)

   it("begins nothing that nobody can judge", function()
      assert.is_false(heal({ held_out = 99 }).run)
      assert.is_true(heal({ held_out = 100 }).run)
   end)

   it("leaves twice the time between two rounds that the last one took", function()
      assert.is_false(heal({ since_round_s = 9.9, round_s = 5 }).run)
      assert.is_true(heal({ since_round_s = 10, round_s = 5 }).run)
      assert.is_true(heal({ since_round_s = 0.05 }).run)
      assert.is_true(heal({ since_round_s = 0, round_s = 5, asked = 1 }).run) -- somebody waits
   end)

   it("fills the room of each node, and keeps whatever gains", function()
      local answer = heal({ room = 12 })
      assert.same({ run = true, queries = 8192, rows_per_query = 48, links_per_node = 12, min_requests = 1,
         min_gain = 0 }, answer)
   end)

   it("is the same from the built-in, in any situation", function()
      local draw = kinds.draw(7)
      local ran = 0
      for _ = 1, 2000 do
         local situation = kinds.kinds.healing.input(draw)
         local mine, cause = host:heal(situation)
         assert.equal("ok", cause)
         assert.same(mine, (built_in:heal(situation)))
         ran = ran + (mine.run and 1 or 0)
      end
      assert.is_true(ran > 100 and ran < 1900, ran .. " of 2000 run")
   end)
end)
