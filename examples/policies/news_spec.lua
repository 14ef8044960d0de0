-- The specification of news.lua.

local candidate = require("ruvector.policy.candidate")
local policy_host = require("ruvector.policy_host")

local here = debug.getinfo(1, "S").source:match("^@(.*)/") or "."
local HOUR = 3600

describe("the distillation policy news", function()
   local policy
   setup(function() policy = assert(candidate.open(here .. "/news.lua")) end)
   teardown(function() policy.host:destroy() end)

   -- Searches of some age whose neighbours need slacks up to a largest one.
   local function searches(list, count, age_s, largest)
      for i = 1, count do
         local slacks = {}
         for j = 1, 10 do slacks[j] = largest * ((j - 1) / 10 + (i % 10) / 100) end
         list[#list + 1] = { query = { i, 0 }, slacks = slacks, age_s = age_s }
      end
      return list
   end

   local function distil(samples, min_samples)
      local patterns, cause, failure = policy.host:distill(policy_host.batch(samples, {
         k = 10, min_samples = min_samples or 10,
      }))
      assert.equal("ok", cause, failure.reason)
      return patterns
   end

   it("makes one pattern, for the whole index", function()
      local patterns = distil(searches({}, 200, HOUR, 0.4))
      assert.equal(1, #patterns)
      assert.equal("index", patterns[1].scope)
   end)

   it("follows today's searches and not those of last week", function()
      local old_and_hard = searches({}, 200, 14 * 24 * HOUR, 2)
      local mixed = distil(searches(old_and_hard, 200, HOUR, 0.2))[1]
      local fresh = distil(searches({}, 200, HOUR, 0.2))[1]
      for i = 1, 10 do -- targets up to 0.99: one part in a thousand of last week is still there
         assert.near(fresh.table_slack[i], mixed.table_slack[i], 0.02)
      end
   end)

   it("is more careful when few recent searches are left", function()
      local few = distil(searches({}, 20, HOUR, 0.4))[1]
      local many = distil(searches({}, 2000, HOUR, 0.4))[1]
      assert.is_true(few.table_slack[7] > many.table_slack[7])
      assert.is_true(few.confidence < many.confidence)
   end)

   it("teaches nothing from too few, or when all are too old", function()
      assert.equal(0, #distil(searches({}, 5, HOUR, 0.4), 10))
      assert.equal(0, #distil(searches({}, 50, 60 * 24 * HOUR, 0.4)))
   end)
end)
