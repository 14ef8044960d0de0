-- Statistics against definitions, closed forms and published tables.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local rng = ffi.new("rv_prng")
lib.rv_prng_seed(rng, 11)
local function uniform() return lib.rv_prng_uniform(rng) end
local function below(n) return tonumber(lib.rv_prng_below(rng, n)) end

local function doubles(list) return ffi.new("double[?]", math.max(#list, 1), list) end

local function status_of(status) return tonumber(status) end

describe("rv_quantile", function()
   local function quantile(values, weights, q)
      local out, err = ffi.new("double[1]"), engine.error_buffer()
      engine.check(lib.rv_quantile(doubles(values), weights and doubles(weights) or nil, #values, q,
         out, err), err)
      return out[0]
   end

   it("is the least value with at least that share at or below it", function()
      local values = { 15, 20, 35, 40, 50 } -- the nearest-rank textbook example
      assert.equal(15, quantile(values, nil, 0.05))
      assert.equal(20, quantile(values, nil, 0.30))
      assert.equal(20, quantile(values, nil, 0.40))
      assert.equal(35, quantile(values, nil, 0.50))
      assert.equal(50, quantile(values, nil, 1.00))
      assert.equal(15, quantile(values, nil, 0.00))
   end)

   it("takes the rank that is meant where q times count is not exact", function()
      for count = 1, 200 do
         local values = {}
         for i = 1, count do values[i] = i end
         for rank = 1, count do assert.equal(rank, quantile(values, nil, rank / count)) end
      end
   end)

   it("follows its definition with weights, ties and infinities", function()
      for _ = 1, 500 do
         local n, values, weights, total = 1 + below(30), {}, {}, 0
         for i = 1, n do
            values[i] = below(8) == 0 and math.huge or below(6)
            weights[i] = below(5)
            total = total + weights[i]
         end
         local q = below(17) / 16
         if total > 0 then
            local expected = math.huge
            for i = 1, n do
               local sum = 0
               for j = 1, n do if values[j] <= values[i] then sum = sum + weights[j] end end
               if sum > 0 and sum >= q * total then expected = math.min(expected, values[i]) end
            end
            assert.equal(expected, quantile(values, weights, q))
         end
      end
   end)

   it("keeps values and weights together when it reorders them", function()
      local n = 200
      local values, weights = ffi.new("double[?]", n), ffi.new("double[?]", n)
      for i = 0, n - 1 do
         values[i] = below(1000)
         weights[i] = values[i] * 2 + 1
      end
      local out = ffi.new("double[1]")
      assert.equal(lib.RV_OK, status_of(lib.rv_quantile(values, weights, n, 0.5, out, nil)))
      for i = 0, n - 1 do assert.equal(values[i] * 2 + 1, weights[i]) end
   end)

   it("never returns a value without weight", function()
      assert.equal(2, quantile({ 1, 2, 3 }, { 0, 1, 0 }, 0))
      assert.equal(2, quantile({ 1, 2, 3 }, { 0, 1, 0 }, 1))
   end)

   it("refuses no values, no weight, and what is not a number", function()
      local function fails(expected, values, weights, q, text)
         local out, err = ffi.new("double[1]"), engine.error_buffer()
         local status = lib.rv_quantile(doubles(values), weights and doubles(weights) or nil, #values,
            q, out, err)
         assert.equal(expected, status_of(status))
         assert.truthy(engine.message(err):find(text, 1, true), engine.message(err))
      end
      fails(lib.RV_ERR_INVALID, {}, nil, 0.5, "no values")
      fails(lib.RV_ERR_INVALID, { 1, 2 }, { 0, 0 }, 0.5, "total weight is 0")
      fails(lib.RV_ERR_RANGE, { 1, 0 / 0 }, nil, 0.5, "value 1 is NaN")
      fails(lib.RV_ERR_RANGE, { 1, 2 }, { 1, -1 }, 0.5, "weight 1 is -1")
      fails(lib.RV_ERR_RANGE, { 1, 2 }, { 0 / 0, 1 }, 0.5, "weight 0 is")
      fails(lib.RV_ERR_RANGE, { 1, 2 }, { math.huge, 1 }, 0.5, "weight 0 is inf")
      fails(lib.RV_ERR_RANGE, { 1 }, nil, 1.01, "q is 1.01")
      fails(lib.RV_ERR_RANGE, { 1 }, nil, 0 / 0, "q is")
   end)
end)

describe("rv_isotonic", function()
   local function isotonic(y, weights, in_place)
      local n, err = #y, engine.error_buffer()
      local input = doubles(y)
      local fit = in_place and input or ffi.new("double[?]", math.max(n, 1))
      engine.check(lib.rv_isotonic(engine.allocator, input, weights and doubles(weights) or nil, n,
         fit, err), err)
      local list = {}
      for i = 1, n do list[i] = fit[i - 1] end
      return list
   end

   it("pools what violates the order and leaves the rest", function()
      assert.same({ 1, 2, 3 }, isotonic({ 1, 2, 3 }))
      assert.same({ 2, 2, 2 }, isotonic({ 3, 2, 1 }))
      assert.same({ 1, 2.5, 2.5, 4 }, isotonic({ 1, 3, 2, 4 }))
      assert.same({ 1.5, 1.5, 3 }, isotonic({ 1.5, 1.5, 3 }))
      assert.same({}, isotonic({}))
      assert.same({ -7 }, isotonic({ -7 }))
   end)

   it("lets weights pull the pooled value", function()
      assert.same({ 2.5, 2.5 }, isotonic({ 4, 2 }, { 1, 3 }))
      assert.same({ 2, 2 }, isotonic({ 4, 2 }, { 0, 3 }))
      assert.same({ 3, 3 }, isotonic({ 4, 2 }, { 0, 0 }))
   end)

   it("is the min-max formula's fit, monotone, and keeps the weighted mean", function()
      for round = 1, 200 do
         local n, y, weights = 1 + below(25), {}, {}
         for i = 1, n do
            y[i] = round % 2 == 0 and below(5) or uniform() * 10 - 5
            weights[i] = 0.1 + uniform() * 3
         end
         local fit = isotonic(y, weights, round % 3 == 0)
         local mean_y, mean_fit = 0, 0
         for i = 1, n do
            -- max over starts s <= i of min over ends t >= i of the mean of s..t
            local best = -math.huge
            for s = 1, i do
               local sum, weight, least = 0, 0, math.huge
               for t = s, n do
                  sum, weight = sum + weights[t] * y[t], weight + weights[t]
                  if t >= i then least = math.min(least, sum / weight) end
               end
               best = math.max(best, least)
            end
            assert.near(best, fit[i], 1e-9)
            if i > 1 then assert(fit[i] >= fit[i - 1]) end
            mean_y, mean_fit = mean_y + weights[i] * y[i], mean_fit + weights[i] * fit[i]
         end
         assert.near(mean_y, mean_fit, 1e-9)
      end
   end)

   it("takes long input that is all violation", function()
      local n, y = 200000, {}
      for i = 1, n do y[i] = n - i end
      local fit = isotonic(y)
      assert.near((n - 1) / 2, fit[1], 1e-6)
      assert.equal(fit[1], fit[n])
   end)

   it("refuses values that are not finite and weights that are negative", function()
      local err = engine.error_buffer()
      for _, bad in ipairs({ 0 / 0, math.huge, -math.huge }) do
         local y = doubles({ 1, bad })
         assert.equal(lib.RV_ERR_RANGE, status_of(lib.rv_isotonic(engine.allocator, y, nil, 2, y, err)))
         assert.truthy(engine.message(err):find("value 1 is", 1, true))
      end
      local y = doubles({ 1, 2 })
      assert.equal(lib.RV_ERR_RANGE,
         status_of(lib.rv_isotonic(engine.allocator, y, doubles({ -1, 2 }), 2, y, err)))
   end)

   it("reports each failed allocation, leaks nothing and leaves the fit alone", function()
      local fail_at, failures = 1, 0
      while true do
         local a, err = ffi.new("rv_test_allocator"), engine.error_buffer()
         lib.rv_test_allocator_init(a, fail_at)
         local y, fit = doubles({ 3, 2, 1 }), doubles({ -1, -1, -1 })
         local status = status_of(lib.rv_isotonic(a.allocator, y, nil, 3, fit, err))
         assert.equal(0, tonumber(a.live))
         if status == lib.RV_OK then break end
         assert.equal(lib.RV_ERR_NOMEM, status)
         assert.equal(-1, fit[0])
         fail_at, failures = fail_at + 1, failures + 1
      end
      assert.is_true(failures > 0)
   end)
end)

describe("rv_normal_quantile", function()
   it("gives the table's values", function()
      for p, z in pairs({ [0.5] = 0, [0.9] = 1.2815515655446004, [0.95] = 1.6448536269514722,
         [0.975] = 1.9599639845400545, [0.995] = 2.5758293035489004, [0.9995] = 3.2905267314919255,
         [0.001] = -3.0902323061678132, [1e-10] = -6.361340902404056 }) do
         assert.near(z, lib.rv_normal_quantile(p), 1e-12 * math.max(1, math.abs(z)))
      end
   end)

   it("is odd around one half, and infinite at the ends", function()
      for p = 0.01, 0.49, 0.03 do
         assert.near(-lib.rv_normal_quantile(p), lib.rv_normal_quantile(1 - p), 1e-12)
      end
      assert.equal(-math.huge, lib.rv_normal_quantile(0))
      assert.equal(math.huge, lib.rv_normal_quantile(1))
   end)

   it("rises with p down to the smallest probabilities", function()
      local last = -math.huge
      for exponent = -300, -1 do
         local z = lib.rv_normal_quantile(10 ^ exponent)
         assert(z > last and z < 0)
         last = z
      end
   end)
end)

describe("the beta distribution", function()
   it("has the values of its closed forms", function()
      for _, x in ipairs({ 1e-8, 0.01, 0.2, 0.5, 0.77, 0.99 }) do
         assert.near(x, lib.rv_beta_cdf(x, 1, 1), 1e-14)
         assert.near(x ^ 3.5, lib.rv_beta_cdf(x, 3.5, 1), 1e-14)
         assert.near(1 - (1 - x) ^ 7, lib.rv_beta_cdf(x, 1, 7), 1e-14)
         assert.near(2 / math.pi * math.asin(math.sqrt(x)), lib.rv_beta_cdf(x, 0.5, 0.5), 1e-13)
         assert.near(x ^ 2 * (3 - 2 * x), lib.rv_beta_cdf(x, 2, 2), 1e-14)
      end
      assert.near(0.6875, lib.rv_beta_cdf(0.5, 2, 3), 1e-14)
   end)

   it("sums the tail of a binomial", function()
      -- P(X >= k) for X ~ Bin(n, p) is I_p(k, n - k + 1)
      local n, p = 40, 0.3
      local term, tail = (1 - p) ^ n, 1
      for k = 1, n do
         tail = tail - term
         term = term * (n - k + 1) / k * p / (1 - p)
         assert.near(tail, lib.rv_beta_cdf(p, k, n - k + 1), 1e-12)
      end
   end)

   it("is symmetric, monotone and within 0 to 1 for parameters of every size", function()
      for _, a in ipairs({ 0.01, 0.5, 1, 3, 40, 1e3, 1e6 }) do
         for _, b in ipairs({ 0.01, 0.5, 1, 3, 40, 1e3, 1e6 }) do
            local last = 0
            for i = 0, 40 do
               local x = i / 40
               local value = lib.rv_beta_cdf(x, a, b)
               assert(value >= 0 and value <= 1)
               assert(value >= last - 1e-12)
               assert.near(1 - value, lib.rv_beta_cdf(1 - x, b, a), 1e-9)
               last = value
            end
         end
      end
      assert.near(0.5, lib.rv_beta_cdf(0.5, 1e6, 1e6), 1e-9)
   end)

   it("is undone by its quantile", function()
      assert.near(0.38572756813238945, lib.rv_beta_quantile(0.5, 2, 3), 1e-13)
      for p = 0.05, 0.95, 0.1 do
         assert.near(math.sin(math.pi * p / 2) ^ 2, lib.rv_beta_quantile(p, 0.5, 0.5), 1e-12)
      end
      for _, a in ipairs({ 0.1, 0.5, 1, 3, 40, 1e3, 1e6 }) do
         for _, b in ipairs({ 0.5, 1, 3, 40, 1e3, 1e6 }) do
            for _, p in ipairs({ 1e-12, 1e-5, 0.025, 0.5, 0.9, 0.975, 0.99999 }) do
               local x = lib.rv_beta_quantile(p, a, b)
               assert(x >= 0 and x <= 1)
               -- Next to 1 the cumulative distribution changes more between two doubles than this.
               if x < 1 - 1e-9 then assert.near(1, lib.rv_beta_cdf(x, a, b) / p, 1e-6) end
            end
         end
      end
      assert.equal(0, lib.rv_beta_quantile(0, 2, 3))
      assert.equal(1, lib.rv_beta_quantile(1, 2, 3))
   end)

   it("is not a number for parameters that are not positive", function()
      for _, bad in ipairs({ 0, -1, 0 / 0, math.huge }) do
         local cdf, quantile = lib.rv_beta_cdf(0.5, bad, 1), lib.rv_beta_quantile(0.5, 1, bad)
         assert.is_true(cdf ~= cdf and quantile ~= quantile)
      end
   end)
end)

describe("intervals of a proportion", function()
   -- Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, 95%.
   local PUBLISHED = {
      { 81, 263, wilson = { 0.2553, 0.3662 }, exact = { 0.2527, 0.3676 } },
      { 15, 148, wilson = { 0.0624, 0.1605 }, exact = { 0.0578, 0.1617 } },
      { 0, 20, wilson = { 0.0000, 0.1611 }, exact = { 0.0000, 0.1684 } },
      { 1, 29, wilson = { 0.0061, 0.1718 }, exact = { 0.0009, 0.1776 } },
   }

   it("are the published ones, Wilson's and Clopper and Pearson's", function()
      for _, row in ipairs(PUBLISHED) do
         local wilson = lib.rv_wilson_interval(row[1], row[2], 0.95)
         local exact = lib.rv_clopper_pearson_interval(row[1], row[2], 0.95)
         assert.near(row.wilson[1], wilson.low, 5.1e-5)
         assert.near(row.wilson[2], wilson.high, 5.1e-5)
         assert.near(row.exact[1], exact.low, 5.1e-5)
         assert.near(row.exact[2], exact.high, 5.1e-5)
      end
   end)

   local BOTH = { wilson = lib.rv_wilson_interval, exact = lib.rv_clopper_pearson_interval }

   for name, interval in pairs(BOTH) do
      it(name .. ": contain the proportion, mirror each other, widen with confidence", function()
         for _, n in ipairs({ 1, 2, 7, 100, 10000 }) do
            for _, k in ipairs({ 0, 1, math.floor(n / 3), n - 1, n }) do
               local narrow, wide = interval(k, n, 0.8), interval(k, n, 0.99)
               local mirror = interval(n - k, n, 0.8)
               assert(narrow.low <= k / n and narrow.high >= k / n)
               assert(wide.low <= narrow.low and wide.high >= narrow.high)
               assert(wide.low >= 0 and wide.high <= 1)
               assert.near(1 - mirror.high, narrow.low, 1e-12)
               assert.near(1 - mirror.low, narrow.high, 1e-12)
            end
            assert.equal(0, interval(0, n, 0.95).low)
            assert.equal(1, interval(n, n, 0.95).high)
         end
      end)

      it(name .. ": say nothing without trials, and stay in bounds on odd arguments", function()
         for _, odd in ipairs({ { 0, 0, 0.95 }, { 3, 0, 0.95 }, { 0, -1, 0.95 }, { 0, 0 / 0, 0.95 },
            { 0 / 0, 5, 0.95 }, { 2, 5, 1 }, { 2, 5, 7 } }) do
            local result = interval(odd[1], odd[2], odd[3])
            assert.equal(0, result.low)
            assert.equal(1, result.high)
         end
         assert.equal(1, interval(9, 5, 0.95).high)
         assert.equal(0, interval(-9, 5, 0.95).low)
      end)
   end

   -- The probability that the interval of X ~ Bin(n, p) contains p.
   local function coverage(interval, n, p)
      local sum, term = 0, (1 - p) ^ n
      for k = 0, n do
         local bounds = interval(k, n, 0.95)
         if bounds.low <= p and p <= bounds.high then sum = sum + term end
         term = term * (n - k) / (k + 1) * p / (1 - p)
      end
      return sum
   end

   it("exact: cover every proportion at least as often as promised", function()
      for _, n in ipairs({ 5, 20, 50 }) do
         for p = 0.01, 0.995, 0.02 do
            assert(coverage(BOTH.exact, n, p) >= 0.95 - 1e-9, ("n %d, p %g"):format(n, p))
         end
      end
   end)

   it("wilson: cover the proportions on average as often as promised", function()
      for _, n in ipairs({ 10, 20, 50 }) do
         local sum, count = 0, 0
         for p = 0.005, 0.9951, 0.01 do
            sum, count = sum + coverage(BOTH.wilson, n, p), count + 1
         end
         assert.near(0.953, sum / count, 0.01)
      end
   end)
end)
