-- data.lua - the data sets of the index benchmark: rows, test queries, true neighbours, the metric.
--
-- debian-packages is bundled; the others are read from a folder beside the checkout when it is there.
-- Only the test half of the queries is used. Vectors are {count, dim, data = float *}, from 0.

local ffi = require("ffi")
local lfs = require("lfs")
local dataset = require("ruvector.dataset")

local M = {}

M.K = 10
local BUNDLED = "examples/data/debian-packages"
-- first_test: the first query of the test half.
local SETS = {
   ["debian-packages"] = { metric = "cosine", rows = "rows.i8v", queries = "queries.i8v",
      truth = "neighbours.ivecs", first_test = 10000 },
   wordnet = { metric = "cosine", rows = "base.i8v", queries = "query.i8v", truth = "groundtruth.ivecs",
      first_test = 2500 },
   ["sift-photos-200k"] = { metric = "l2", rows = "base.bvecs", queries = "query.bvecs",
      truth = "groundtruth.ivecs", first_test = 1000 },
}
M.NAMES = { "debian-packages", "wordnet", "sift-photos-200k" }

--- Reads vectors by the file's extension: i8v, or bvecs (texmex: int32 dimensions, then that many uint8).
function M.vectors(path)
   if not path:find("%.bvecs$") then return dataset.read_vectors(path) end
   local bytes = dataset.read_bytes(path)
   local dim = #bytes >= 4 and ffi.cast("const int32_t *", ffi.cast("const char *", bytes))[0] or 0
   if dim <= 0 or #bytes % (dim + 4) ~= 0 then
      error(path .. ": not a bvecs file of one dimension", 2)
   end
   local count, source = #bytes / (dim + 4), ffi.cast("const uint8_t *", bytes)
   local data = ffi.new("float[?]", count * dim)
   for i = 0, count - 1 do
      for j = 0, dim - 1 do data[i * dim + j] = source[i * (dim + 4) + 4 + j] end
   end
   return { count = count, dim = dim, data = data }
end

local Set = {}
Set.__index = Set

--- The folder of a set, or nil where it is not present.
function M.directory(name, folder)
   if name == "debian-packages" then return BUNDLED end
   if not SETS[name] then
      error(("unknown data set '%s'; known: %s"):format(name, table.concat(M.NAMES, ", ")), 0)
   end
   local directory = folder .. "/" .. name
   return lfs.attributes(directory) and directory or nil
end

--- Opens a set. Fields: name, metric ("l2", "cosine"), rows, queries, query_path, row_path, first, last
-- (the test queries used, at most `limit`).
function M.open(name, directory, limit)
   local spec = SETS[name]
   local self = setmetatable({ name = name, metric = spec.metric, row_path = directory .. "/" .. spec.rows,
      query_path = directory .. "/" .. spec.queries }, Set)
   self.rows, self.queries = M.vectors(self.row_path), M.vectors(self.query_path)
   self.truth = dataset.read_neighbours(directory .. "/" .. spec.truth)
   assert(self.rows.dim == self.queries.dim, "rows and queries differ in dimension")
   assert(self.truth.count == self.queries.count and self.truth.k >= M.K, "the true neighbours do not fit")
   self.first = spec.first_test
   self.last = math.min(self.queries.count, self.first + limit) - 1
   return self
end

local function l2(a, b, dim)
   local sum = 0
   for j = 0, dim - 1 do
      local d = a[j] - b[j]
      sum = sum + d * d
   end
   return math.sqrt(sum)
end

local function cosine(a, b, dim)
   local dot, aa, bb = 0, 0, 0
   for j = 0, dim - 1 do dot, aa, bb = dot + a[j] * b[j], aa + a[j] * a[j], bb + b[j] * b[j] end
   return aa * bb > 0 and 1 - dot / math.sqrt(aa * bb) or 1
end

function Set:distance(query, row)
   local dim = self.rows.dim
   local a, b = self.queries.data + query * dim, self.rows.data + row * dim
   return self.metric == "l2" and l2(a, b, dim) or self.metric == "cosine" and cosine(a, b, dim)
end

--- Recall at K of the returned row numbers, by distance: a row no farther than the true K-th counts, so
-- ties are as good as each other; a row returned twice counts once.
function Set:recall(query, ids)
   local kth = self:distance(query, self.truth.ids[query * self.truth.k + M.K - 1])
   local bound = kth + dataset.TIE * math.max(1, kth)
   local seen, good = {}, 0
   for i = 1, math.min(M.K, #ids) do
      if not seen[ids[i]] and self:distance(query, ids[i]) <= bound then good = good + 1 end
      seen[ids[i]] = true
   end
   return good / M.K
end

return M
