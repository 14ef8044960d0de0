-- check.lua - what is wrong with a policy file, line by line, before a server loads it.
--
-- It is loaded in the real sandbox, its self-test runs, and it is called with inputs from the whole
-- range of its contract. Every call is made twice: a policy that answers differently the second time
-- keeps a state, and would answer differently in every session.

local candidate = require("ruvector.policy.candidate")
local kinds = require("ruvector.policy.kinds")

local M = {}

M.CALLS = 2000
local SEED = 20240229

local function finding(severity, line, text) return { severity = severity, line = line, text = text } end

-- Findings of calls, each cause and line once, with how often it happened.
local function collector()
   local list, by_key = {}, {}
   return list, function(severity, line, text, detail)
      local key = severity .. line .. text
      if by_key[key] then
         by_key[key].times = by_key[key].times + 1
         return
      end
      by_key[key] = finding(severity, line, text)
      by_key[key].times, by_key[key].detail = 1, detail
      list[#list + 1] = by_key[key]
   end
end

local function advise(policy, add)
   if not policy.info.source:find("self_test", 1, true) then
      add("advice", 0, "no self_test: nothing stands between a typing error and a server that uses it")
   end
   if not policy.info.source:find("contract%s*=") then
      add("advice", 0, "no field 'contract': it is taken for version 1, the first")
   end
end

local function try(policy, kind, input, add, number)
   local result, cause, failure = kind.run(policy.host, input)
   if cause ~= "ok" then
      add("error", failure.line, cause .. ": " .. failure.reason, "first for input " .. number)
      return
   end
   local again, second = kind.run(policy.host, input)
   if second ~= "ok" or #kind.differences(result, again) > 0 then
      add("error", 0, "the same input gave another result the second time: the policy keeps a state",
         "first for input " .. number)
   end
end

--- Checks one file. Returns {path, kind, calls, findings}; a finding has severity ("error" or
--- "advice"), line (0: of the file), text, times, detail. recorded: further inputs by kind.
function M.file(path, calls, recorded)
   local list, add = collector()
   local policy, failure = candidate.open(path)
   if not policy then
      add("error", failure.line, failure.cause .. ": " .. failure.reason)
      return { path = path, calls = 0, findings = list }
   end
   advise(policy, add)
   local kind, draw = kinds.kinds[policy.kind], kinds.draw(SEED)
   local inputs = recorded and recorded[policy.kind] or {}
   calls = calls or (policy.kind == "distillation" and M.CALLS / 20 or M.CALLS)
   for i, input in ipairs(inputs) do try(policy, kind, input, add, i .. " of those recorded") end
   for i = 1, calls do try(policy, kind, kind.input(draw), add, i .. " of those generated") end
   policy.host:destroy()
   return { path = path, kind = policy.kind, version = policy.info.version, calls = calls + #inputs,
      findings = list }
end

--- The lines that describe a report, and whether the file passed.
function M.describe(report)
   local lines, passed = {}, true
   for _, found in ipairs(report.findings) do
      if found.severity == "error" then passed = false end
      local often = found.times and found.times > 1 and (" (%d times)"):format(found.times) or ""
      local detail = found.detail and (" [%s]"):format(found.detail) or ""
      lines[#lines + 1] = ("%s:%d: %s: %s%s%s"):format(report.path, found.line, found.severity, found.text,
         often, detail)
   end
   local outcome = passed and "passed" or "failed"
   lines[#lines + 1] = ("%s: %s%s, %d calls"):format(report.path, outcome,
      report.kind and (" as %s policy %s"):format(report.kind, report.version) or "", report.calls)
   return lines, passed
end

return M
