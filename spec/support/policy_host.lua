-- policy_host.lua - the policy host for specs: policy files from strings, in directories of their own.

local binding = require("ruvector.policy_host")
local lfs = require("lfs")

local M = setmetatable({}, { __index = binding })

-- ---- policy directories --------------------------------------------------------------------

local made = {}

--- A temporary directory with the given files, e.g. { verdict = "return {...}" }.
function M.directory(files)
   local name = os.tmpname()
   os.remove(name)
   assert(lfs.mkdir(name))
   made[#made + 1] = name
   for kind, text in pairs(files or {}) do M.write(name, kind, text) end
   return name
end

function M.write(directory, kind, text)
   local file = assert(io.open(directory .. "/" .. kind .. ".lua", "wb"))
   assert(file:write(text))
   file:close()
end

--- Removes every directory that was made.
function M.clean()
   for _, name in ipairs(made) do
      for entry in lfs.dir(name) do
         if entry ~= "." and entry ~= ".." then
            if lfs.attributes(name .. "/" .. entry, "mode") == "directory" then
               lfs.rmdir(name .. "/" .. entry)
            else
               os.remove(name .. "/" .. entry)
            end
         end
      end
      lfs.rmdir(name)
   end
   made = {}
end

local FUNCTIONS = {
   verdict = "judge = function(trajectory, context) BODY end",
   distillation = "distill = function(batch, kernels, config) BODY end",
   interpolation = "interpolate = function(query, patterns, defaults) BODY end",
   retention = "merge = function(a, b, weight) BODY end, keep = function(pattern, now) BODY end",
   tuning = "choose = function(curve, goal) BODY end",
   selection = "predict = function(features) BODY end",
   healing = "heal = function(situation) BODY end",
}

--- The text of a policy whose functions have the given body. The body is on line 2 of the file.
--- extra: further fields of the policy's table; before: statements at the top of the file.
function M.policy(kind, body, extra, before)
   local functions = FUNCTIONS[kind]:gsub("BODY", function() return body end)
   return (before or "") .. " return { name = 'spec', version = '1', describe = 'of a spec', defaults = {},\n"
      .. functions .. (extra and ", " .. extra or "") .. " }\n"
end

--- A result that the host accepts, as Lua source, for each kind.
M.VALID = {
   verdict = "return { success = true, confidence = 0.25, scores = {}, recommendations = {} }",
   interpolation = "return { slack = 0.5, ef_search = 50, probes = 2 }",
   distillation = "return {}",
   healing = "return { run = true, queries = 100, rows_per_query = 48, links_per_node = 4, min_requests = 1, "
      .. "min_gain = 0.01 }",
}

--- A host that serves one policy made by M.policy; raises when it does not load.
function M.serving(kind, body, options, extra, before)
   local host = M.new(options)
   local cause, failure = host:load(M.directory({ [kind] = M.policy(kind, body, extra, before) }))
   if cause ~= "ok" then error(cause .. ": " .. failure.reason, 2) end
   return host
end

--- Calls the function of a kind with plain arguments: result, cause, failure.
function M.call(host, kind)
   if kind == "verdict" then return host:judge({ recall = 1, target_recall = 0.95 }) end
   if kind == "interpolation" then return host:interpolate(M.advice(), { M.advice() }) end
   if kind == "healing" then return host:heal(M.situation()) end
   if kind == "distillation" then
      return host:distill(M.batch({ { query = { 0 }, slacks = { 0.1 } } }))
   end
   error("no plain call for " .. kind)
end

return M
