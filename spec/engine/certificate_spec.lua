-- Certificates of recall: the interval of a bounded mean, and the verdict that rests on it.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local NOT_YET, CERTIFIED, BELOW = 0, 1, 2

local rng = ffi.new("rv_prng")
local function uniform() return lib.rv_prng_uniform(rng) end

local function doubles(list) return ffi.new("double[?]", math.max(#list, 1), list) end

-- Draws of a recall: (1 - share) are 1, the others even between low and 1.
local function recalls(count, share, low)
   local list = {}
   for i = 1, count do
      list[i] = uniform() < share and low + (1 - low) * uniform() or 1
   end
   return list, 1 - share * (1 - low) / 2
end

local function interval(list, confidence)
   return lib.rv_mean_interval(doubles(list), #list, confidence or 0.95)
end

describe("the interval of a bounded mean", function()
   before_each(function() lib.rv_prng_seed(rng, 17) end)

   -- The definition, straight from the paper: the capital of both gamblers at a mean of m.
   local function capital(list, m, confidence)
      local alpha, up, down = 1 - confidence, 1, 1
      local sum, spread = 0.5, 0.25
      for i, x in ipairs(list) do
         local bet = math.sqrt(2 * math.log(2 / alpha) / (spread / i * #list))
         up = up * (1 + math.min(bet, 0.75 / m) * (x - m))
         down = down * (1 - math.min(bet, 0.75 / (1 - m)) * (x - m))
         sum = sum + x
         local mean = sum / (i + 1)
         spread = spread + (x - mean) ^ 2
      end
      return math.max(up, down) / 2
   end

   it("ends where the capital of a gambler reaches 1 / (1 - confidence)", function()
      for _, case in ipairs({ { 40, 0.5, 0 }, { 200, 0.2, 0.3 }, { 700, 0.05, 0.5 } }) do
         local list = recalls(case[1], case[2], case[3])
         local ends = interval(list)
         assert.near(20, capital(list, ends.low, 0.95), 1e-4)
         assert.near(20, capital(list, ends.high, 0.95), 1e-4)
         assert.is_true(capital(list, (ends.low + ends.high) / 2, 0.95) < 20)
      end
   end)

   it("covers the mean at least as often as promised, of recalls as of coins", function()
      for _, case in ipairs({ { 20, 0.1, 0 }, { 100, 0.02, 0 }, { 100, 0.3, 0.5 }, { 400, 0.01, 0.2 } }) do
         local missed, trials = 0, 400
         for _ = 1, trials do
            local list, mean = recalls(case[1], case[2], case[3])
            local ends = interval(list)
            if mean < ends.low or mean > ends.high then missed = missed + 1 end
         end
         assert.is_true(missed <= 0.05 * trials, ("missed %d of %d"):format(missed, trials))
      end
   end)

   it("narrows with the number of values and widens with the confidence", function()
      local many = recalls(2000, 0.2, 0.5)
      local few = { unpack(many, 1, 100) }
      local function width(list, confidence)
         local ends = interval(list, confidence)
         return ends.high - ends.low
      end
      assert.is_true(width(many) < width(few) / 2)
      assert.is_true(width(few, 0.99) > width(few, 0.9))
   end)

   it("mirrors when the values do", function()
      local list, mirrored = recalls(150, 0.3, 0.2), {}
      for i, x in ipairs(list) do mirrored[i] = 1 - x end
      local ends, others = interval(list), interval(mirrored)
      assert.near(1 - others.high, ends.low, 1e-9)
      assert.near(1 - others.low, ends.high, 1e-9)
   end)

   it("says nothing without values, and keeps its bounds", function()
      assert.equal(0, interval({}).low)
      assert.equal(1, interval({}).high)
      local all = {}
      for i = 1, 1000 do all[i] = 1 end
      assert.is_true(interval(all).low > 0.98)
      assert.equal(1, interval(all).high)
   end)
end)

describe("the verdict on a recall", function()
   local function judge(list, target)
      local out, err = ffi.new("rv_certificate[1]"), engine.error_buffer()
      engine.check(lib.rv_certificate_judge(doubles(list), #list, target, out, err), err)
      return out[0]
   end

   local function constant(count, value)
      local list = {}
      for i = 1, count do list[i] = value end
      return list
   end

   before_each(function() lib.rv_prng_seed(rng, 23) end)

   it("is not yet without checks, and says how many perfect ones would do", function()
      local none = judge({}, 0.95)
      assert.equal(NOT_YET, none.verdict)
      assert.equal(0, tonumber(none.checks))
      assert.is_true(none.mean ~= none.mean and none.share ~= none.share)
      local more = tonumber(none.more)
      assert.is_true(more > 50 and more < 120, tostring(more))
   end)

   it("is certified once the mean is shown to be no more than a hundredth below the target", function()
      local list = recalls(3000, 0.1, 0.6) -- 0.98
      assert.equal(NOT_YET, judge({ unpack(list, 1, 40) }, 0.95).verdict)
      local all = judge(list, 0.95)
      assert.equal(CERTIFIED, all.verdict)
      assert.equal(0, tonumber(all.more))
      assert.is_true(all.recall.low >= 0.94 and all.recall.low <= all.mean and all.mean <= all.recall.high)
   end)

   it("comes about as soon as it foretold", function()
      local list = recalls(3000, 0.15, 0.6) -- 0.97
      local seen = judge({ unpack(list, 1, 200) }, 0.95)
      local foretold = 200 + tonumber(seen.more)
      local first
      for count = 60, #list, 10 do
         if judge({ unpack(list, 1, count) }, 0.95).verdict == CERTIFIED then
            first = count
            break
         end
      end
      assert.is_true(first and first > foretold / 2.5 and first < foretold * 2.5,
         ("foretold %d, came at %s"):format(foretold, tostring(first)))
   end)

   it("is below once the mean is shown to be below the target", function()
      local list = recalls(400, 0.4, 0.5) -- 0.90
      local low = judge(list, 0.95)
      assert.equal(BELOW, low.verdict)
      assert.equal(0, tonumber(low.more))
      assert.is_true(lib.rv_certificate_below(doubles(list), #list, 0.95))
      assert.is_false(lib.rv_certificate_below(doubles(list), #list, 0.85))
   end)

   it("raises a false alarm less often than once in a hundred", function()
      local alarms = 0
      for _ = 1, 500 do
         local list, mean = recalls(200, 0.2, 0.5)
         if lib.rv_certificate_below(doubles(list), #list, mean) then alarms = alarms + 1 end
      end
      assert.is_true(alarms <= 5, alarms .. " of 500")
   end)

   it("counts the share of checks at or above the target, with an exact lower bound", function()
      local list = constant(90, 1)
      for i = 91, 100 do list[i] = 0.8 end
      local seen = judge(list, 0.95)
      assert.near(0.9, seen.share, 1e-12)
      assert.near(lib.rv_clopper_pearson_interval(90, 100, 0.9).low, seen.share_low, 1e-12)
      assert.near(1, judge(constant(10, ffi.new("float", 0.7)), 0.7).share, 1e-12)
   end)

   it("refuses a target or a recall that is none", function()
      local out, err = ffi.new("rv_certificate[1]"), engine.error_buffer()
      for _, target in ipairs({ 0, 0.01, 1.1, 0 / 0 }) do
         assert.is_true(lib.rv_certificate_judge(doubles({ 1 }), 1, target, out, err) ==
            lib.RV_ERR_RANGE)
      end
      for _, recall in ipairs({ -0.1, 1.1, 0 / 0 }) do
         assert.is_true(lib.rv_certificate_judge(doubles({ 1, recall }), 2, 0.9, out, err) ==
            lib.RV_ERR_RANGE)
         assert.matches("recall 1 is", engine.message(err))
      end
   end)
end)
