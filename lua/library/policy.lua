--- Arithmetic that most policies need.
--
-- `local policy = require("ruvector.policy")` in a policy file. Pure functions of numbers and tables
-- of numbers: no state, no randomness, no clock. Wrong arguments are errors that name the argument
-- and point at the line of the policy. The file is compiled into the policy host and runs in the
-- sandbox of the policy that asked for it, at its budget.
--
-- @module ruvector.policy

local exp, floor, max, min = math.exp, math.floor, math.max, math.min

local M = {}

local function number(value, name, level)
   if type(value) ~= "number" or value ~= value then
      local shown = type(value) == "number" and "NaN" or type(value)
      error(name .. " must be a number, not " .. shown, level + 1)
   end
   return value
end

-- An array of numbers, at least `least` of them.
local function numbers(values, name, least, level)
   if type(values) ~= "table" then error(name .. " must be a table, not " .. type(values), level + 1) end
   if #values < least then
      error(name .. " has " .. #values .. " entries; at least " .. least .. " are needed", level + 1)
   end
   for i = 1, #values do number(values[i], name .. "[" .. i .. "]", level + 1) end
   return values
end

--- The nearest number from `low` to `high`.
-- @number value
-- @number low
-- @number high at least `low`
-- @treturn number
-- @usage policy.clamp(1.3, 0, 1) --> 1
function M.clamp(value, low, high)
   number(value, "value", 2)
   number(low, "low", 2)
   if number(high, "high", 2) < low then error("high is less than low", 2) end
   return max(low, min(value, high))
end

--- The point between `a` (share 0) and `b` (share 1).
-- @number a
-- @number b
-- @number share any number; beyond 0 to 1 the line goes on
-- @treturn number
function M.mix(a, b, share)
   return number(a, "a", 2) + (number(b, "b", 2) - a) * number(share, "share", 2)
end

--- The mean of some numbers.
-- @tparam {number,...} values at least one
-- @treturn number
function M.mean(values)
   numbers(values, "values", 1, 2)
   local sum = 0
   for i = 1, #values do sum = sum + values[i] end
   return sum / #values
end

--- The mean of some numbers that count differently.
-- @tparam {number,...} values at least one
-- @tparam {number,...} weights as many, none negative, not all 0
-- @treturn number
-- @usage policy.weighted_mean({ 1, 0 }, { 3, 1 }) --> 0.75
function M.weighted_mean(values, weights)
   numbers(values, "values", 1, 2)
   numbers(weights, "weights", #values, 2)
   local sum, total = 0, 0
   for i = 1, #values do
      if weights[i] < 0 then error("weights[" .. i .. "] is negative", 2) end
      sum, total = sum + weights[i] * values[i], total + weights[i]
   end
   if total <= 0 then error("all weights are 0", 2) end
   return sum / total
end

--- The value below which a share of the numbers lies, interpolated between neighbours
-- (Hyndman and Fan's definition 7, the one of spreadsheets).
-- @tparam {number,...} values at least one, in any order; they are not changed
-- @number share 0 (the least) to 1 (the largest)
-- @treturn number
-- @usage policy.quantile({ 4, 1, 3, 2 }, 0.5) --> 2.5
function M.quantile(values, share)
   numbers(values, "values", 1, 2)
   if not (number(share, "share", 2) >= 0 and share <= 1) then error("share must be from 0 to 1", 2) end
   local sorted = {}
   for i = 1, #values do sorted[i] = values[i] end
   table.sort(sorted)
   local place = 1 + (#sorted - 1) * share
   local below = floor(place)
   local above = min(below + 1, #sorted)
   if sorted[below] == sorted[above] then return sorted[below] end
   return sorted[below] + (sorted[above] - sorted[below]) * (place - below)
end

--- An exponentially weighted moving average: one more value.
-- @number average so far
-- @number value the new one
-- @number share of the new one, 0 to 1
-- @treturn number
-- @usage policy.ewma(10, 20, 0.1) --> 11
function M.ewma(average, value, share)
   if not (number(share, "share", 2) >= 0 and share <= 1) then error("share must be from 0 to 1", 2) end
   return number(average, "average", 2) + share * (number(value, "value", 2) - average)
end

--- What is left of 1 after a time: one half after each half-life.
-- @number age not negative; in the unit of `half_life`
-- @number half_life more than 0
-- @treturn number 0 to 1
-- @usage policy.decay(14, 7) --> 0.25
function M.decay(age, half_life)
   if number(age, "age", 2) < 0 then error("age is negative", 2) end
   if number(half_life, "half_life", 2) <= 0 then error("half_life must be more than 0", 2) end
   return 0.5 ^ (age / half_life)
end

--- The logistic curve: from 0 to 1, one half at `middle`.
-- @number value
-- @number middle where it is one half
-- @number scale how far from the middle it has reached 0.73; negative: it falls
-- @treturn number 0 to 1
function M.logistic(value, middle, scale)
   if number(scale, "scale", 2) == 0 then error("scale must not be 0", 2) end
   return 1 / (1 + exp(-(number(value, "value", 2) - number(middle, "middle", 2)) / scale))
end

--- A value from a table of points, on the line between two of them; beyond the first and the last
-- point it is theirs. For tables that rise together, such as slack over recall.
-- @tparam {number,...} xs at least one, rising
-- @tparam {number,...} ys as many
-- @number x
-- @treturn number
-- @usage policy.lookup({ 0.90, 0.95, 0.99 }, { 0.1, 0.2, 0.6 }, 0.97) --> 0.4
function M.lookup(xs, ys, x)
   numbers(xs, "xs", 1, 2)
   numbers(ys, "ys", #xs, 2)
   number(x, "x", 2)
   if x <= xs[1] then return ys[1] end
   for i = 2, #xs do
      if xs[i] < xs[i - 1] then error("xs[" .. i .. "] is less than the one before", 2) end
      if x <= xs[i] then
         return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])
      end
   end
   return ys[#xs]
end

return M
