-- What a policy may require: the arithmetic of ruvector.policy, the statistics of ruvector.kernels.

local policy_host = require("support.policy_host")
local serving, call, VALID = policy_host.serving, policy_host.call, policy_host.VALID

local library = dofile("lua/library/policy.lua")

describe("ruvector.policy", function()
   it("clamps and mixes", function()
      assert.equal(1, library.clamp(1.3, 0, 1))
      assert.equal(0, library.clamp(-2, 0, 1))
      assert.equal(0.3, library.clamp(0.3, 0, 1))
      assert.equal(15, library.mix(10, 20, 0.5))
      assert.equal(30, library.mix(10, 20, 2))
   end)

   it("takes means, weighted and moving", function()
      assert.equal(2, library.mean({ 1, 2, 3 }))
      assert.equal(0.75, library.weighted_mean({ 1, 0 }, { 3, 1 }))
      assert.equal(11, library.ewma(10, 20, 0.1))
      assert.equal(0.25, library.decay(14, 7))
      assert.equal(1, library.decay(0, 7))
   end)

   it("takes quantiles between neighbours, and leaves the values alone", function()
      local values = { 4, 1, 3, 2 }
      assert.equal(2.5, library.quantile(values, 0.5))
      assert.equal(1, library.quantile(values, 0))
      assert.equal(4, library.quantile(values, 1))
      assert.near(3.7, library.quantile(values, 0.9), 1e-12)
      assert.same({ 4, 1, 3, 2 }, values)
      assert.equal(math.huge, library.quantile({ math.huge, math.huge }, 0.3))
   end)

   it("has the logistic curve and tables of points", function()
      assert.equal(0.5, library.logistic(3, 3, 1))
      assert.near(0.7310586, library.logistic(4, 3, 1), 1e-7)
      assert.near(0.2689414, library.logistic(4, 3, -1), 1e-7)
      local xs, ys = { 0.90, 0.95, 0.99 }, { 0.1, 0.2, 0.6 }
      assert.near(0.4, library.lookup(xs, ys, 0.97), 1e-12)
      assert.equal(0.1, library.lookup(xs, ys, 0.5))
      assert.equal(0.6, library.lookup(xs, ys, 1))
      assert.equal(0.2, library.lookup(xs, ys, 0.95))
      assert.equal(2, library.lookup({ 1, 1, 2 }, { 1, 2, 2 }, 1.5))
   end)

   it("says which argument is wrong", function()
      local wrong = {
         ["value must be a number, not string"] = function() library.clamp("1", 0, 1) end,
         ["value must be a number, not NaN"] = function() library.clamp(0 / 0, 0, 1) end,
         ["high is less than low"] = function() library.clamp(1, 1, 0) end,
         ["values must be a table, not nil"] = function() library.mean() end,
         ["values has 0 entries; at least 1 are needed"] = function() library.mean({}) end,
         ["values[2] must be a number, not boolean"] = function() library.mean({ 1, true }) end,
         ["weights has 1 entries; at least 2 are needed"] = function()
            library.weighted_mean({ 1, 2 }, { 1 })
         end,
         ["weights[1] is negative"] = function() library.weighted_mean({ 1 }, { -1 }) end,
         ["all weights are 0"] = function() library.weighted_mean({ 1 }, { 0 }) end,
         ["share must be from 0 to 1"] = function() library.quantile({ 1 }, 1.1) end,
         ["half_life must be more than 0"] = function() library.decay(1, 0) end,
         ["age is negative"] = function() library.decay(-1, 1) end,
         ["scale must not be 0"] = function() library.logistic(1, 1, 0) end,
         ["xs[2] is less than the one before"] = function() library.lookup({ 2, 1 }, { 1, 1 }, 3) end,
      }
      for message, run in pairs(wrong) do
         local ok, err = pcall(run)
         assert.is_false(ok)
         assert.match(message, err, 1, true)
         assert.match("library_spec.lua:%d+: ", err) -- the caller's line, not the library's
      end
   end)
end)

describe("require in a policy", function()
   local host
   after_each(function()
      if host then host:destroy() end
      host = nil
      policy_host.clean()
   end)

   -- The confidence that a verdict returns when it is computed by an expression.
   local function confidence(expression, before, options)
      host = serving("verdict", "return { success = true, scores = {}, recommendations = {}, confidence = "
         .. expression .. " }", options, nil, before)
      local judgement, cause, failure = call(host, "verdict")
      return judgement.confidence, cause, failure
   end

   it("gives the library", function()
      local value, cause = confidence("lib.clamp(3, 0, 0.75)", "local lib = require('ruvector.policy')")
      assert.equal("ok", cause)
      assert.equal(0.75, value)
   end)

   it("gives the kernels", function()
      local function kernel(expression)
         local value, cause, failure = confidence(expression, "local kernels = require('ruvector.kernels')")
         assert.equal("ok", cause, failure.reason)
         return value
      end
      assert.near(0.3, kernel("kernels.isotonic({ 0.4, 0.2, 0.9 })[1]"), 1e-12)
      assert.near(0.35, kernel("kernels.isotonic({ 0.4, 0.2 }, { 3, 1 })[2]"), 1e-12)
      assert.equal(0.2, kernel("kernels.quantile({ 0.9, 0.1, 0.2 }, 0.5)"))
      assert.equal(0.9, kernel("kernels.quantile({ 0.9, 0.1, 0.2 }, 0.5, { 8, 1, 1 })"))
      assert.near(0.7639, kernel("(kernels.wilson(19, 20))"), 1e-4)
      assert.near(0.7513, kernel("(kernels.clopper_pearson(19, 20))"), 1e-4)
      assert.near(0.6817, kernel("(kernels.wilson(19, 20, 0.99))"), 1e-3)
   end)

   it("knows nothing else", function()
      local names = { "io", "os", "ffi", "jit", "ruvector", "ruvector.engine", "string", "", "policy" }
      for _, name in ipairs(names) do
         local _, cause, failure = confidence("require('" .. name .. "')")
         assert.equal("error", cause)
         assert.match("there is no module '" .. name .. "'; policies may require", failure.reason, 1, true)
         host:destroy()
      end
      local _, cause = confidence("require({})")
      assert.equal("error", cause)
   end)

   it("gives what cannot be changed or looked through", function()
      local before = "local lib, kernels = require('ruvector.policy'), require('ruvector.kernels')"
      for _, try in ipairs({ "lib.clamp = 1", "lib.mine = 1", "kernels.isotonic = nil" }) do
         host = serving("verdict", try .. " " .. VALID.verdict, nil, nil, before)
         local _, cause, failure = call(host, "verdict")
         assert.equal("error", cause)
         assert.match("assignment to read-only 'ruvector.", failure.reason, 1, true)
         host:destroy()
      end
      local _, cause, failure = confidence("lib.clip(1)", before)
      assert.equal("error", cause)
      assert.match("'ruvector.policy.clip' is not defined", failure.reason, 1, true)
   end)

   it("points at the line of the policy when an argument is wrong", function()
      local _, cause, failure = confidence("lib.mean({})", "local lib = require('ruvector.policy')")
      assert.equal("error", cause)
      assert.equal(2, failure.line)
      assert.match("values has 0 entries", failure.reason, 1, true)
      host:destroy()
      _, cause, failure = confidence("kernels.isotonic({ 0 / 0 })[1]",
         "local kernels = require('ruvector.kernels')")
      assert.equal("error", cause)
      assert.equal(2, failure.line)
      assert.match("entry 1 is not a finite number", failure.reason, 1, true)
   end)

   it("charges a kernel's work to the budget", function()
      local before = "local kernels = require('ruvector.kernels') local big = {} "
         .. "for i = 1, 20000 do big[i] = i end"
      local loop = "local sum = 0 for _ = 1, 100 do sum = sum + kernels.quantile(big, 0.5) end "
      host = serving("verdict", loop .. VALID.verdict, { fuel = 500000 }, nil, before)
      local _, cause = call(host, "verdict")
      assert.equal("fuel", cause) -- a hundred times 20,000 values, in a few hundred instructions
      host:destroy()
      host = serving("verdict", loop .. VALID.verdict, { fuel = 10000000 }, nil, before)
      _, cause = call(host, "verdict")
      assert.equal("ok", cause)
   end)

   it("is there while the file runs and in the self-test", function()
      host = policy_host.new()
      local self_test = "self_test = function() return lib.clamp(2, 0, 1) == 1 end"
      local text = policy_host.policy("verdict", VALID.verdict, self_test,
         "local lib = require('ruvector.policy')")
      assert.equal("ok", (host:load(policy_host.directory({ verdict = text }))))
   end)
end)
