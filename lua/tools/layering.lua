-- layering.lua - fails when an include, a symbol or a require points against the layers:
--   ext -> lua (host) -> engine; policies and spec use the Lua library.
-- Usage: luajit lua/tools/layering.lua BUILD   (from the repository's root, after `make build`)

local build = assert(arg[1], "usage: layering.lua BUILD")
local findings = 0

local function finding(text, ...)
   findings = findings + 1
   io.stderr:write(string.format(text, ...), "\n")
end

local function lines(command)
   local pipe = assert(io.popen(command))
   local result = {}
   for line in pipe:lines() do result[#result + 1] = line end
   pipe:close()
   return result
end

-- Includes: what each layer may name, as Lua patterns on the included path.
local libc = {
   "assert.h", "ctype.h", "errno.h", "float.h", "inttypes.h", "limits.h", "math.h", "pthread.h",
   "setjmp.h", "stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h",
   "string.h", "strings.h", "time.h", "unistd.h", "fcntl.h", "dirent.h", "sys/stat.h", "sys/types.h",
   "immintrin.h", "cpuid.h",
}
local function is_libc(name)
   for _, header in ipairs(libc) do
      if name == header then return true end
   end
   return false
end

local layers = {
   engine = {
      dirs = "engine/include engine/src",
      allowed = function(name, file)
         if name:match("^cjson/") then return file:match("json") ~= nil end
         return is_libc(name) or name:match("^ruvector/") or name:match("^simde/")
            or not name:match("/") or io.open("engine/src/" .. name) ~= nil
            or name:match("^%.%./[%w_]+/[%w_]+%.h$")
      end,
   },
   host = {
      dirs = "lua/host",
      allowed = function(name)
         return is_libc(name) or name:match("^ruvector/") or name:match("^host/")
            or name == "lua.h" or name == "lauxlib.h" or name == "lualib.h" or name == "luajit.h"
            or io.open("lua/host/" .. name) ~= nil
      end,
   },
}

local function file_exists_in(dir, name)
   local file = io.open(dir .. "/" .. name)
   if file then file:close() end
   return file ~= nil
end

for layer, rule in pairs(layers) do
   for _, line in ipairs(lines("grep -rnE '^[[:space:]]*#[[:space:]]*include' " .. rule.dirs)) do
      local file, number, name = line:match('^([^:]+):(%d+):.-include%s*[<"]([^>"]+)[>"]')
      if not name then
         finding("%s: cannot read this include", line)
      else
         local own = file_exists_in(file:match("^(.*)/[^/]+$"), name)
         local foreign = name:match("postgres") or name:match("^lua") and layer == "engine"
         if foreign or not (own or rule.allowed(name, file)) then
            finding("%s:%s: layer %s must not include <%s>", file, number, layer, name)
         end
      end
   end
end

for _, line in ipairs(lines("grep -rnE 'include *[<\"](host|lua)/' engine || true")) do
   finding("%s: the engine includes the host", line)
end
for _, line in ipairs(lines("grep -rnE 'include *[<\"](lua|lauxlib|lualib|luajit)\\.h' ext/src || true")) do
   finding("%s: the extension reaches Lua other than through the host", line)
end

-- Symbols: the engine's objects may need nothing but libc, libm, cJSON and their own.
local engine_allowed = {}
for name in ([[
   memcpy memmove memset memcmp strlen strcmp strncmp strcpy strncpy strchr strrchr strtol strtoul
   strtoull strtod strtof strnlen snprintf vsnprintf __snprintf_chk __vsnprintf_chk __memcpy_chk
   __memset_chk __memmove_chk sqrt sqrtf log logf log1p log2 exp expm1 pow cos sin floor ceil fabs
   lgamma lround lroundf nearbyint nearbyintf rint rintf roundf round ldexp frexp isnan isinf fmod
   qsort malloc free realloc calloc getenv abs __isoc99_sscanf __errno_location __assert_fail
   __stack_chk_fail _GLOBAL_OFFSET_TABLE_ __cpu_model __cpu_indicator_init __tls_get_addr
   __ctype_b_loc __isnan __isinf strtok_r fmaf fma memchr bcmp __isoc23_strtoull __isoc23_strtoul
   cosf sinf expf powf log10 tolower toupper isfinite __isoc23_strtol strtoll __isoc23_strtoll
   pthread_once sched_yield fmin fmax fminf fmaxf nextafterf nextafter erf erfc roundevenf lrint lrintf llrint
]]):gmatch("%S+") do engine_allowed[name] = true end

local sanitizer = { "^__asan", "^__ubsan", "^__tsan", "^__sanitizer", "^__gcov" }
local function undefined_symbols(archive)
   return lines("nm -u --format=posix " .. build .. "/" .. archive .. " 2>/dev/null || true")
end

for _, line in ipairs(undefined_symbols("libruvector_engine.a")) do
   local name = line:match("^([%w_@.]+) [Uw]")
   if name then
      name = name:gsub("@.*", "")
      local ok = engine_allowed[name] or name:match("^rv_") or name:match("^cJSON_")
      for _, pattern in ipairs(sanitizer) do ok = ok or name:match(pattern) end
      if not ok then finding("engine needs the symbol %s, which its layer does not allow", name) end
   end
end
for _, line in ipairs(undefined_symbols("libruvector_host.a")) do
   local name = line:match("^([%w_@.]+) [Uw]")
   if name and (name:match("^errstart") or name:match("^palloc") or name:match("^MemoryContext")) then
      finding("the policy host needs the PostgreSQL symbol %s", name)
   end
end

-- The end of every search: no lock, no allocation, no error (ext/src/learning.h).
for _, line in ipairs(lines("nm -u --format=posix " .. build .. "/ext/src/learning/capture.o")) do
   local name = line:match("^([%w_@.]+) [Uw]") or ""
   for _, pattern in ipairs { "^LW", "^Lock", "^s_lock", "alloc", "^MemoryContext", "^err", "^SPI" } do
      if name:match(pattern) then
         finding("capture.c needs %s: a finished search may not wait or fail", name)
      end
   end
end

-- malloc only behind the allocator of base/.
local libc_memory = [[grep -rnE '\b(malloc|calloc|realloc|free) *\(' engine/src]]
   .. [[ | grep -vE 'engine/src/base/|cJSON|rv_free|->free|\.free' || true]]
for _, line in ipairs(lines(libc_memory)) do
   if not line:match("^[^:]+:%d+:%s*%*") then finding("%s: memory other than through the allocator", line) end
end

-- The shipped policies stand alone: no require, no I/O.
local outside = [[grep -nE '\b(require|io\.|os\.|loadstring|dofile)\b' policies/*.lua /dev/null || true]]
for _, line in ipairs(lines(outside)) do
   if not line:match("^[^:]+:%d+:%s*%-%-") then finding("%s: not allowed in a policy", line) end
end

if findings > 0 then
   io.stderr:write(findings, " layering findings\n")
   os.exit(1)
end
print("layering: clean")
