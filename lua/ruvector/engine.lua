-- engine.lua - the engine library, and the policy host, through LuaJIT's FFI.
--
-- The declarations are the public C headers themselves, preprocessed by the build (build/cdef.h),
-- so the binding cannot drift from the code. RUVECTOR_BUILD names another build directory.

local ffi = require("ffi")

local M = {}

M.build = os.getenv("RUVECTOR_BUILD") or "build"

local function read(path)
   local file, err = io.open(path, "r")
   if not file then error("cannot read " .. path .. " (run `make build` first): " .. err, 0) end
   local text = file:read("*a")
   file:close()
   return text
end

local function library_path(name)
   local path = M.build .. "/" .. name
   if path:sub(1, 1) ~= "/" then path = "./" .. path end
   return path
end

-- #define constants of the headers do not survive the preprocessor: the few that callers need.
M.TARGETS = 12
M.MAX_DIMENSIONS = 16000
M.RING_CELL_BYTES = 1024

ffi.cdef(read(M.build .. "/cdef.h"))

M.ffi = ffi
M.lib = ffi.load(library_path("libruvector_engine.so"))
M.allocator = M.lib.rv_malloc_allocator()

local host
--- The policy host's library, loaded at first use.
function M.host()
   host = host or ffi.load(library_path("libruvector_host.so"))
   return host
end

--- A fresh rv_error buffer.
function M.error_buffer() return ffi.new("rv_error[1]") end

--- The message of an rv_error buffer, as a Lua string.
function M.message(err) return ffi.string(err[0].message) end

--- Raises a Lua error that carries the engine's message unless status is RV_OK.
function M.check(status, err)
   if status ~= M.lib.RV_OK then
      error(ffi.string(M.lib.rv_status_name(status)) .. ": " .. (err and M.message(err) or ""), 2)
   end
end

--- A float array of a Lua table (or of n values from a function of the index, counted from 0).
function M.floats(source, n)
   if type(source) == "table" then return ffi.new("float[?]", math.max(#source, 1), source) end
   local array = ffi.new("float[?]", math.max(n, 1))
   for i = 0, n - 1 do array[i] = source and source(i) or 0 end
   return array
end

return M
