-- dataset.lua - a bundled data set: rows, queries, the true nearest rows of each query, and names.
--
-- The files (see examples/data/debian-packages/README.md) are read whole into FFI arrays; those
-- that end in .zst are decompressed by the zstd command on the way. Vectors are stored as int8
-- with one scale; everything here and the ground truth is about the decoded values.
--
-- Rows and queries are counted from 0, as in the files.

local ffi = require("ffi")
local lfs = require("lfs") -- Debian: lua-filesystem

local M = {}

-- Distances that differ by less than single precision can resolve are equal: a search computes in
-- float32, the ground truth in float64.
M.TIE = 1e-6

--- The bytes of a file; of `path` .zst, decompressed, when the plain file does not exist.
function M.read_bytes(path)
   local file, err
   if lfs.attributes(path) then
      file, err = io.open(path, "rb")
   elseif lfs.attributes(path .. ".zst") then
      file, err = io.popen("zstd -dcq '" .. path:gsub("'", "'\\''") .. ".zst'", "r")
   else
      err = "neither it nor " .. path .. ".zst exists"
   end
   if not file then error("cannot read " .. path .. ": " .. err, 2) end
   local bytes = file:read("*a")
   file:close()
   return bytes
end

local function uint32_at(bytes, offset)
   return tonumber(ffi.cast("const uint32_t *", ffi.cast("const char *", bytes) + offset)[0])
end

local Vectors = {}
Vectors.__index = Vectors

--- Reads an i8v file: { "I8V1", uint32 dimensions, uint32 count, float32 scale } and count x
-- dimensions int8. Returns {count, dim, scale, codes (int8_t *), data (float *)}.
function M.read_vectors(path)
   local bytes = M.read_bytes(path)
   if #bytes < 16 or bytes:sub(1, 4) ~= "I8V1" then
      error(path .. ": not an i8v file (or zstd is not installed)", 2)
   end
   local dim, count = uint32_at(bytes, 4), uint32_at(bytes, 8)
   if #bytes ~= 16 + dim * count then
      error(("%s: %d bytes where %d x %d vectors need %d"):format(path, #bytes, count, dim,
         16 + dim * count), 2)
   end
   local scale = ffi.cast("const float *", ffi.cast("const char *", bytes) + 12)[0]
   local codes = ffi.new("int8_t[?]", dim * count)
   ffi.copy(codes, ffi.cast("const char *", bytes) + 16, dim * count)
   local data = ffi.new("float[?]", dim * count)
   for i = 0, dim * count - 1 do data[i] = scale * codes[i] end
   return setmetatable(
      { count = count, dim = dim, scale = scale, codes = codes, data = data }, Vectors)
end

--- Vector i as a pointer to dim floats; valid as long as this object.
function Vectors:at(i)
   assert(i >= 0 and i < self.count, "no such vector")
   return self.data + i * self.dim
end

-- Norms of the codes, computed once; the scale cancels out of a cosine.
function Vectors:code_norms()
   if not self.norms then
      self.norms = ffi.new("double[?]", self.count)
      for i = 0, self.count - 1 do
         local sum, code = 0, self.codes + i * self.dim
         for j = 0, self.dim - 1 do sum = sum + code[j] * code[j] end
         self.norms[i] = math.sqrt(sum)
      end
   end
   return self.norms
end

--- Reads an ivecs file (texmex: int32 k, then k int32, per record; one k for all).
-- Returns {count, k, ids = int32_t *} with record i at ids + i * k.
function M.read_neighbours(path)
   local bytes = M.read_bytes(path)
   local k = #bytes >= 4 and uint32_at(bytes, 0) or 0
   local record = 4 * (k + 1)
   if k == 0 or #bytes % record ~= 0 then error(path .. ": not an ivecs file of one width", 2) end
   local count = #bytes / record
   local words = ffi.cast("const int32_t *", ffi.cast("const char *", bytes))
   local ids = ffi.new("int32_t[?]", count * k)
   for i = 0, count - 1 do
      assert(words[i * (k + 1)] == k, path .. ": records of different widths")
      ffi.copy(ids + i * k, words + i * (k + 1) + 1, 4 * k)
   end
   return { count = count, k = k, ids = ids }
end

--- Reads a tab-separated file with a header line: an array of rows by column name, from 1.
function M.read_table(path)
   local names, out = nil, {}
   for line in M.read_bytes(path):gmatch("([^\n]*)\n") do
      local fields, i = {}, 0
      for field in (line .. "\t"):gmatch("([^\t]*)\t") do
         i = i + 1
         fields[names and names[i] or i] = field
      end
      if names then out[#out + 1] = fields else names = fields end
   end
   return out
end

local Dataset = {}
Dataset.__index = Dataset

--- Opens a data set's directory. Fields: rows, queries (read_vectors), neighbours
-- (read_neighbours), packages (name, synopsis of row i at i + 1), questions (qid, package,
-- package_row, synopsis of query i at i + 1).
function M.open(directory)
   local self = setmetatable({ directory = directory }, Dataset)
   self.rows = M.read_vectors(directory .. "/rows.i8v")
   self.queries = M.read_vectors(directory .. "/queries.i8v")
   self.neighbours = M.read_neighbours(directory .. "/neighbours.ivecs")
   self.packages = M.read_table(directory .. "/packages.tsv")
   self.questions = M.read_table(directory .. "/queries.tsv")
   assert(self.rows.dim == self.queries.dim, "rows and queries differ in dimension")
   assert(#self.packages == self.rows.count, "packages.tsv does not fit rows.i8v")
   assert(#self.questions == self.queries.count, "queries.tsv does not fit queries.i8v")
   assert(self.neighbours.count == self.queries.count, "neighbours.ivecs does not fit queries.i8v")
   return self
end

--- The exact cosine distance (1 - cos) of a query and a row, in double precision.
function Dataset:distance(query, row)
   local dim = self.rows.dim
   local a, b = self.queries.codes + query * dim, self.rows.codes + row * dim
   local norm = self.queries:code_norms()[query] * self.rows:code_norms()[row]
   local dot = 0
   for j = 0, dim - 1 do dot = dot + a[j] * b[j] end
   return norm > 0 and 1 - dot / norm or 1
end

--- The true k nearest rows of a query, nearest first: an array of row numbers.
function Dataset:truth(query, k)
   assert(k <= self.neighbours.k, "the data set holds fewer true neighbours than asked for")
   local out = {}
   for i = 1, k do out[i] = self.neighbours.ids[query * self.neighbours.k + i - 1] end
   return out
end

--- Recall at k of the rows that a search returned, by distance: a returned row counts when it is
-- no farther than the true k-th, so equally near rows are as good as each other. A row that was
-- returned twice counts once; rows beyond the first k do not count.
function Dataset:recall(query, returned, k)
   local bound = self:distance(query, self:truth(query, k)[k]) + M.TIE
   local seen, good = {}, 0
   for i = 1, math.min(k, #returned) do
      local row = returned[i]
      if not seen[row] and self:distance(query, row) <= bound then good = good + 1 end
      seen[row] = true
   end
   return good / k
end

return M
