-- compare.lua - where two policies of a kind answer differently, over generated inputs.

local candidate = require("ruvector.policy.candidate")
local kinds = require("ruvector.policy.kinds")

local M = {}

local SEED = 20240301

local function open(path)
   local policy, failure = candidate.open(path)
   if not policy then
      error(("%s:%d: %s: %s"):format(path, failure.line, failure.cause, failure.reason), 0)
   end
   return policy
end

--- Two files of the same kind. Returns {kind, calls, differing, examples, changes}: examples are the
--- first few inputs' differences, changes counts the differing calls by what differed first.
function M.files(path_a, path_b, calls)
   local a, b = open(path_a), open(path_b)
   if a.kind ~= b.kind then
      error(("%s is a %s policy and %s a %s policy; only policies of one kind can be compared"):format(path_a,
         a.kind, path_b, b.kind), 0)
   end
   local kind, draw = kinds.kinds[a.kind], kinds.draw(SEED)
   local report = { kind = a.kind, calls = calls, differing = 0, examples = {}, changes = {} }
   for number = 1, calls do
      local input = kind.input(draw)
      local before = kind.run(a.host, input)
      local after = kind.run(b.host, input)
      local found = kind.differences(before, after)
      if #found > 0 then
         report.differing = report.differing + 1
         local what = found[1]:match("^[%a_]+") or found[1]
         report.changes[what] = (report.changes[what] or 0) + 1
         if #report.examples < 5 then
            report.examples[#report.examples + 1] = { input = number, differences = found }
         end
      end
   end
   a.host:destroy()
   b.host:destroy()
   return report
end

function M.describe(report, path_a, path_b)
   local lines = { ("%s policies %s and %s: %d of %d generated inputs differ"):format(report.kind, path_a,
      path_b, report.differing, report.calls) }
   local names = {}
   for name in pairs(report.changes) do names[#names + 1] = name end
   table.sort(names, function(x, y) return report.changes[x] > report.changes[y] end)
   for _, name in ipairs(names) do lines[#lines + 1] = ("  %6d  %s"):format(report.changes[name], name) end
   for _, example in ipairs(report.examples) do
      lines[#lines + 1] = ("  input %d: %s"):format(example.input, table.concat(example.differences, ", "))
   end
   return lines
end

return M
