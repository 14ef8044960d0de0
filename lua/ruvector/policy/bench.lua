-- bench.lua - what a call of a policy costs: time, instructions, bytes.
--
-- Instructions and bytes are exact and repeatable. Time is the median over batches of calls of what
-- passes inside the host (arguments in, the policy, checks of the result): what the server waits for.
-- Counting instructions slows a call down, so it is done in a pass of its own.

local candidate = require("ruvector.policy.candidate")
local kinds = require("ruvector.policy.kinds")

local M = {}

local SEED = 20240307

local function median(values)
   table.sort(values)
   return values[math.ceil(#values / 2)]
end

-- Inputs of a typical size: what interpolation sees is up to three patterns.
local function inputs_of(policy, count)
   local kind, draw, inputs = kinds.kinds[policy.kind], kinds.draw(SEED), {}
   while #inputs < count do
      local input = kind.input(draw)
      if policy.kind ~= "interpolation" or #input.patterns == 3 then inputs[#inputs + 1] = input end
   end
   return inputs
end

--- Measures an open policy. Returns {calls, us, instructions, worst_instructions, bytes}.
function M.policy(policy, calls)
   local inputs, kind = inputs_of(policy, math.min(calls, 100)), kinds.kinds[policy.kind]
   local instructions, worst, bytes = 0, 0, 0
   policy.host:counting(true)
   for _, input in ipairs(inputs) do
      kind.run(policy.host, input)
      local spent, taken = policy.host:cost()
      instructions, worst, bytes = instructions + spent, math.max(worst, spent), bytes + taken
   end
   policy.host:counting(false)
   local rounds = {}
   for round = 1, 9 do
      local before = policy.host:info(policy.kind)
      for i = 1, calls do kind.run(policy.host, inputs[i % #inputs + 1]) end
      local after = policy.host:info(policy.kind)
      local total = after.mean_us * after.calls - before.mean_us * before.calls
      rounds[round] = total / (after.calls - before.calls)
   end
   return {
      calls = calls, us = median(rounds), instructions = instructions / #inputs, worst_instructions = worst,
      bytes = bytes / #inputs,
   }
end

function M.file(path, calls)
   local policy, failure = candidate.open(path)
   if not policy then
      error(("%s:%d: %s: %s"):format(path, failure.line, failure.cause, failure.reason), 0)
   end
   local figures = M.policy(policy, calls or (policy.kind == "distillation" and 20 or 2000))
   policy.host:destroy()
   return figures, policy.kind
end

return M
