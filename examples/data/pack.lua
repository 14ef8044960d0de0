-- pack.lua - makes a bundled data set from its full form.
--
--   luajit examples/data/pack.lua SOURCE [TARGET]
--
-- SOURCE holds base.i8v, base.tsv, query.i8v, query.tsv and groundtruth.ivecs (100 neighbours a
-- query). TARGET (default: examples/data/ and the source's last component) gets the same rows and
-- queries and the 10 nearest of each query, compressed by zstd. The README.md there describes the
-- files. The result depends on the source and the version of zstd alone.

local ffi = require("ffi")
local argparse = require("argparse") -- Debian: lua-argparse

local KEPT_NEIGHBOURS = 10

local function read(path)
   local file = assert(io.open(path, "rb"))
   local bytes = file:read("*a")
   file:close()
   return bytes
end

local function quote(path) return "'" .. path:gsub("'", "'\\''") .. "'" end

local function write_compressed(path, bytes)
   local file = assert(io.open(path, "wb"))
   assert(file:write(bytes))
   assert(file:close())
   assert(os.execute("zstd -19 -qf --rm " .. quote(path)) == 0, "zstd failed on " .. path)
end

-- The first `kept` of each record of an ivecs file.
local function narrowed(bytes, kept)
   local words = ffi.cast("const int32_t *", ffi.cast("const char *", bytes))
   local k = words[0]
   local count = #bytes / (4 * (k + 1))
   assert(k >= kept and count == math.floor(count), "groundtruth.ivecs is malformed")
   local out = ffi.new("int32_t[?]", count * (kept + 1))
   for i = 0, count - 1 do
      out[i * (kept + 1)] = kept
      ffi.copy(out + i * (kept + 1) + 1, words + i * (k + 1) + 1, 4 * kept)
   end
   return ffi.string(out, 4 * count * (kept + 1))
end

local parser = argparse("pack.lua", "Packs a data set for the repository.")
parser:argument("source", "Directory of the full data set.")
parser:argument("target", "Directory to write to."):args("?")
local options = parser:parse()
local source = options.source:gsub("/+$", "")
local target = options.target or "examples/data/" .. source:match("[^/]+$")

assert(os.execute("mkdir -p " .. quote(target)) == 0, "cannot create " .. target)
write_compressed(target .. "/rows.i8v", read(source .. "/base.i8v"))
write_compressed(target .. "/queries.i8v", read(source .. "/query.i8v"))
write_compressed(target .. "/packages.tsv", read(source .. "/base.tsv"))
write_compressed(target .. "/queries.tsv", read(source .. "/query.tsv"))
write_compressed(target .. "/neighbours.ivecs",
   narrowed(read(source .. "/groundtruth.ivecs"), KEPT_NEIGHBOURS))
