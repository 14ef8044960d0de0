-- candidate.lua - one policy file in a host of its own, as the server would run it.
--
-- The file is loaded from a directory made for it under its own name, so that its neighbours cannot
-- make it fail or pass.

local lfs = require("lfs")
local policy_host = require("ruvector.policy_host")

local M = {}

local function read(path)
   local file, err = io.open(path, "rb")
   if not file then error("cannot read " .. err, 0) end
   local text = file:read("*a")
   file:close()
   return text
end

-- A directory that holds a copy of the file; the caller removes it.
local function lone_directory(path)
   local name = path:match("([^/]+)%.lua$")
   if not name then error(path .. ": a policy file ends in .lua", 0) end
   local text, directory = read(path), os.tmpname()
   os.remove(directory)
   assert(lfs.mkdir(directory))
   local file = assert(io.open(directory .. "/" .. name .. ".lua", "wb"))
   file:write(text)
   file:close()
   return directory, name
end

local function remove(directory, name)
   os.remove(directory .. "/" .. name .. ".lua")
   lfs.rmdir(directory)
end

--- Loads a policy file. Returns a table {host, kind, id, info, path}, or nil and the failure
--- {line, reason, cause}. options: fuel, memory.
function M.open(path, options)
   local directory, id = lone_directory(path)
   local host = policy_host.new(options)
   local cause, failure = host:load(directory)
   remove(directory, id)
   if cause ~= "ok" then
      host:destroy()
      return nil, { cause = cause, line = failure.line, reason = failure.reason }
   end
   local info = host:policies()[1]
   host:use(info.kind, id)
   return { host = host, kind = info.kind, id = id, info = info, path = path }
end

--- The built-in of a kind, in the same form.
function M.built_in(kind)
   local host = policy_host.new()
   return { host = host, kind = kind, id = "built-in", info = host:info(kind), path = "built-in" }
end

return M
