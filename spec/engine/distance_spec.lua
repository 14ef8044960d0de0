-- Distances: every level against the scalar one, the scalar one against double precision.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

pcall(ffi.cdef, [[
   void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset);
   int mprotect(void *address, size_t length, int protection);
   int munmap(void *address, size_t length);
]])

local LEVELS = { scalar = 0, avx2 = 1, avx512 = 2, neon = 3 }
local UNIT_ROUNDOFF = 2 ^ -24

local scalar = lib.rv_kernels_for(lib.RV_SIMD_SCALAR)
local present = {} -- the levels that this machine has, without the scalar one
for _, name in ipairs({ "avx2", "avx512", "neon" }) do
   local kernels = lib.rv_kernels_for(ffi.cast("rv_simd_level", LEVELS[name]))
   if kernels ~= nil then present[#present + 1] = { name = name, kernels = kernels } end
end

local DIMS = {}
for dim = 1, 200 do DIMS[#DIMS + 1] = dim end
for _, dim in ipairs({ 384, 768, 1536, 2000 }) do DIMS[#DIMS + 1] = dim end

local rng = ffi.new("rv_prng")
lib.rv_prng_seed(rng, 42)
local function uniform() return lib.rv_prng_uniform(rng) end

-- Of either sign and never small, so that one element more or less shows in every sum.
local function element() return (uniform() < 0.5 and -1 or 1) * (0.5 + uniform()) end

-- The kernels, by name, as functions of an operand set.
local KERNELS = {
   { "l2_squared", "float" }, { "inner_product", "float" }, { "l1", "float" }, { "cosine", "float" },
   { "l2_squared_half", "half" }, { "inner_product_half", "half" }, { "l1_half", "half" },
   { "l2_squared_int8", "int8" }, { "inner_product_int8", "int8" }, { "l1_int8", "int8" },
}

local ROW_TYPES = { float = "float", half = "uint16_t", int8 = "int8_t" }
local SCALE = 0.0078125

local function call(kernels, kernel, a, rows, dim)
   if kernel[2] == "int8" then return kernels[kernel[1]](a, rows.int8, SCALE, dim) end
   return kernels[kernel[1]](a, rows[kernel[2]], dim)
end

-- Value number i of a row in any of its codings.
local function value(kind, row, i)
   if kind == "float" then return row[i] end
   if kind == "int8" then return SCALE * row[i] end
   local out = ffi.new("float[1]")
   scalar.from_half(row + i, out, 1)
   return out[0]
end

-- The kernel in double precision, and the sum of its terms' magnitudes, which bounds the rounding.
local function reference(kernel, a, rows, dim)
   local name, kind = kernel[1], kernel[2]
   local row = rows[kind]
   local sum, magnitude, aa, bb = 0, 0, 0, 0
   for i = 0, dim - 1 do
      local x, y = a[i], value(kind, row, i)
      local term
      if name:find("^l2") then
         term = (x - y) * (x - y)
      elseif name:find("^l1") then
         term = math.abs(x - y)
      else
         term = x * y
      end
      sum, magnitude, aa, bb = sum + term, magnitude + math.abs(term), aa + x * x, bb + y * y
   end
   if name == "cosine" then return sum / math.sqrt(aa * bb), 1 end
   return sum, magnitude
end

local function tolerance(magnitude, dim) return UNIT_ROUNDOFF * (dim / 4 + 8) * magnitude end

-- Operands of dim elements that start offset elements into an aligned buffer, with values around
-- them that poison any sum they enter.
local function operands(dim, offset)
   local size = dim + offset + 64
   local rows, keep = {}, {}
   local poison = { float = 0 / 0, half = 0x7E00, int8 = 127 }
   for kind, ctype in pairs(ROW_TYPES) do
      local buffer = ffi.new(ctype .. "[?]", size)
      for i = 0, size - 1 do buffer[i] = poison[kind] end
      rows[kind], keep[kind] = buffer + offset, buffer
   end
   local a = ffi.new("float[?]", size)
   for i = 0, size - 1 do a[i] = 0 / 0 end
   keep.a, a = a, a + offset
   for i = 0, dim - 1 do
      a[i], rows.float[i] = element(), element()
      rows.int8[i] = element() * 80
   end
   scalar.to_half(rows.float, rows.half, dim)
   return a, rows, keep
end

-- A tile's queries and rows, each in a buffer of its own as operands() makes them.
local function tile_operands(dim, offset)
   local queries, rows, keep = ffi.new("const float *[2]"), ffi.new("const float *[4]"), {}
   for i = 0, 3 do
      local a, codes, buffers = operands(dim, offset + i)
      rows[i] = codes.float
      if i < 2 then queries[i] = a end
      keep[#keep + 1] = buffers
   end
   return queries, rows, keep
end

local function tiles_are_pairs(kernels)
   for _, name in ipairs({ "l2_squared", "inner_product", "l1" }) do
      it(("compute %s in tiles as pair by pair, to the bit"):format(name), function()
         local out = ffi.new("float[8]")
         for _, dim in ipairs(DIMS) do
            local queries, rows, keep = tile_operands(dim, dim % 5)
            kernels[name .. "_tile"](queries, rows, dim, out)
            for at = 0, 7 do
               local expected = kernels[name](queries[math.floor(at / 4)], rows[at % 4], dim)
               assert(out[at] == expected,
                  ("dim %d, pair %d: %.9g, alone %.9g"):format(dim, at, out[at], expected))
            end
            assert.is_table(keep)
         end
      end)
   end
end

describe("the scalar kernels", function()
   tiles_are_pairs(scalar)

   for _, kernel in ipairs(KERNELS) do
      it(("compute %s as double precision does, at every dimension"):format(kernel[1]), function()
         for _, dim in ipairs(DIMS) do
            local a, rows, keep = operands(dim, 0)
            local expected, magnitude = reference(kernel, a, rows, dim)
            local got = call(scalar, kernel, a, rows, dim)
            local difference = math.abs(expected - got)
            assert(difference <= tolerance(magnitude, dim),
               ("dim %d: %.9g, not %.9g"):format(dim, got, expected))
            assert.is_table(keep)
         end
      end)
   end

   it("give 0 for vectors of no elements", function()
      local a, rows, keep = operands(1, 0)
      for _, kernel in ipairs(KERNELS) do assert.equal(0, call(scalar, kernel, a, rows, 0)) end
      assert.is_table(keep)
   end)
end)

for _, level in ipairs(present) do
   describe("the " .. level.name .. " kernels", function()
      tiles_are_pairs(level.kernels)
      for _, kernel in ipairs(KERNELS) do
         it(("agree with the scalar %s at every dimension and alignment"):format(kernel[1]), function()
            for _, dim in ipairs(DIMS) do
               for _, offset in ipairs({ 0, 1, 3, 7 }) do
                  local a, rows, keep = operands(dim, offset)
                  local _, magnitude = reference(kernel, a, rows, dim)
                  local expected = call(scalar, kernel, a, rows, dim)
                  local got = call(level.kernels, kernel, a, rows, dim)
                  local difference = math.abs(expected - got)
                  assert(difference <= 2 * tolerance(magnitude, dim),
                     ("dim %d, offset %d: %.9g, scalar %.9g"):format(dim, offset, got, expected))
                  assert.is_table(keep)
               end
            end
         end)
      end

      it("give 0 for vectors of no elements", function()
         local a, rows, keep = operands(1, 0)
         for _, kernel in ipairs(KERNELS) do
            assert.equal(0, call(level.kernels, kernel, a, rows, 0))
         end
         assert.is_table(keep)
      end)

      it("convert halves to the same bits as the scalar level, in any number", function()
         for count = 0, 40 do
            local a, rows, keep = operands(count, 1)
            local half = ffi.new("uint16_t[64]")
            level.kernels.to_half(a, half, count)
            for i = 0, count - 1 do
               local one = ffi.new("uint16_t[1]")
               scalar.to_half(a + i, one, 1)
               assert.equal(one[0], half[i])
            end
            assert.equal(0, half[count])
            local back = ffi.new("float[64]", 7)
            level.kernels.from_half(rows.half, back, count)
            for i = 0, count - 1 do assert.equal(value("half", rows.half, i), back[i]) end
            assert.is_table(keep)
         end
      end)

      it("convert every float's bits to half as the scalar level does", function()
         local n = 8192
         local floats = ffi.new("float[?]", n)
         local bits = ffi.cast("uint32_t *", floats)
         local expected, got = ffi.new("uint16_t[?]", n), ffi.new("uint16_t[?]", n)
         for round = 1, 40 do
            for i = 0, n - 1 do
               bits[i] = ffi.cast("uint32_t", lib.rv_prng_next(rng))
               -- three of four within the exponents where half precision is finite
               if round % 4 ~= 0 then bits[i] = bit.bor(bit.band(bits[i], 0x8FFFFFFF), 0x30000000) end
            end
            scalar.to_half(floats, expected, n)
            level.kernels.to_half(floats, got, n)
            for i = 0, n - 1 do
               -- which NaN a NaN becomes is left to the level
               local nan = bit.band(expected[i], 0x7FFF) > 0x7C00 and bit.band(got[i], 0x7FFF) > 0x7C00
               if expected[i] ~= got[i] and not nan then
                  error(("bits %08x: %04x, scalar %04x"):format(bits[i], got[i], expected[i]))
               end
            end
         end
      end)
   end)
end

describe("every level", function()
   local all = { { name = "scalar", kernels = scalar }, unpack(present) }

   it("knows its own name and number", function()
      for _, level in ipairs(all) do
         assert.equal(level.name, ffi.string(level.kernels.name))
         assert.equal(LEVELS[level.name], tonumber(level.kernels.level))
      end
   end)

   it("reads no byte beyond the end of a vector", function()
      -- A page that may not be read follows the vectors' last element.
      local page, PROT_NONE, READ_WRITE, PRIVATE_ANONYMOUS = 4096, 0, 3, 0x22
      local memory = ffi.C.mmap(nil, 2 * page, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
      assert.is_true(ffi.cast("intptr_t", memory) ~= -1)
      local edge = ffi.cast("char *", memory) + page
      assert.equal(0, ffi.C.mprotect(edge, page, PROT_NONE))
      for _, level in ipairs(all) do
         for dim = 1, 70 do
            local a = ffi.cast("float *", edge) - dim
            local rows = { float = a }
            rows.half, rows.int8 = ffi.cast("uint16_t *", edge) - dim, ffi.cast("int8_t *", edge) - dim
            for _, kernel in ipairs(KERNELS) do
               assert.is_number(call(level.kernels, kernel, a, rows, dim))
            end
            local out, halves = ffi.new("float[70]"), ffi.new("uint16_t[70]")
            level.kernels.from_half(rows.half, out, dim)
            level.kernels.to_half(a, halves, dim)
            local wide, product = ffi.new("int16_t[70]"), ffi.new("int32_t[1]")
            level.kernels.to_wide(a, 1, wide, dim)
            level.kernels.dot_codes(wide, rows.int8, dim, 1, dim, product)
         end
      end
      ffi.C.munmap(memory, 2 * page)
   end)

   it("gives the exact products of wide and int8 codes, the extremes in 16,000 dimensions too", function()
      local wide, codes, out = ffi.new("int16_t[16000]"), ffi.new("int8_t[32000]"), ffi.new("int32_t[3]")
      for _, level in ipairs(all) do
         for _, dim in ipairs({ 1, 15, 16, 31, 32, 33, 63, 64, 65, 127, 768, 1000 }) do
            local stride, sums = dim + 3, { 0, 0, 0 }
            for i = 0, 3 * stride - 1 do codes[i] = (i * 91) % 255 - 127 end
            for i = 0, dim - 1 do
               wide[i] = (i * 371) % 2001 - 1000
               for row = 1, 3 do sums[row] = sums[row] + wide[i] * codes[(row - 1) * stride + i] end
            end
            level.kernels.dot_codes(wide, codes, stride, 3, dim, out)
            assert.same(sums, { out[0], out[1], out[2] })
         end
         -- the longest wide code in one dimension, and spread over all of them
         ffi.fill(codes, 32000, 129) -- -127
         wide[0] = 32767
         level.kernels.dot_codes(wide, codes, 1, 1, 1, out)
         assert.equal(-127 * 32767, out[0])
         for i = 0, 15999 do wide[i] = 259 end -- 32767 / sqrt(16000)
         level.kernels.dot_codes(wide, codes, 16000, 2, 16000, out)
         assert.same({ -127 * 259 * 16000, -127 * 259 * 16000 }, { out[0], out[1] })
      end
   end)

   it("gives the exact products of tiles of wide codes, the extremes in 16,000 dimensions too", function()
      local queries, rows, out = ffi.new("int16_t *[2]"), ffi.new("int16_t *[4]"), ffi.new("int32_t[8]")
      local kept = {}
      for i = 0, 5 do
         kept[i] = ffi.new("int16_t[16000]")
         if i < 2 then queries[i] = kept[i] else rows[i - 2] = kept[i] end
      end
      local function fill(number)
         for i = 0, 5 do
            for j = 0, 15999 do kept[i][j] = number(i, j) end
         end
      end
      local function products(kernels, dim)
         kernels.dot_wides_tile(ffi.cast("const int16_t *const *", queries),
            ffi.cast("const int16_t *const *", rows), dim, out)
         local list = {}
         for i = 0, 7 do list[i + 1] = out[i] end
         return list
      end
      for _, level in ipairs(all) do
         fill(function(i, j) return ((j + 1) * (371 + 40 * i)) % 2001 - 1000 end)
         for _, dim in ipairs({ 0, 32, 64, 96, 128, 800, 1600 }) do
            local expected = {}
            for i = 0, 7 do
               local sum = 0
               for j = 0, dim - 1 do sum = sum + kept[math.floor(i / 4)][j] * kept[2 + i % 4][j] end
               expected[i + 1] = sum
            end
            assert.same(expected, products(level.kernels, dim))
         end
         -- the longest codes in one dimension, and spread over all of them
         fill(function(i, j) return j == 7 and (i % 2 == 0 and 32767 or -32767) or 0 end)
         local square = 32767 * 32767
         assert.same({ square, -square, square, -square, -square, square, -square, square },
            products(level.kernels, 32))
         fill(function() return 259 end) -- 32767 / sqrt(16000)
         assert.equal(259 * 259 * 16000, products(level.kernels, 16000)[8])
      end
   end)

   it("rounds to wide codes alike, and holds them within 16 bits", function()
      local floats, out, expected = ffi.new("float[40]"), ffi.new("int16_t[40]"), ffi.new("int16_t[40]")
      for i = 0, 39 do floats[i] = (i - 20) * 0.25 * (i % 3 == 0 and 30000 or 1) end
      floats[5], floats[6], floats[7] = 0.5, 1.5, -2.5
      for _, level in ipairs(all) do
         for count = 0, 40 do
            ffi.fill(out, 80)
            ffi.fill(expected, 80)
            scalar.to_wide(floats, 1, expected, count)
            level.kernels.to_wide(floats, 1, out, count)
            assert.equal(ffi.string(expected, 80), ffi.string(out, 80))
         end
         assert.same({ 0, 2, -2, -32768, 32767 }, { out[5], out[6], out[7], out[0], out[39] })
      end
   end)

   it("gives a cosine of exactly 1 to itself, -1 to the opposite, 0 to a zero vector", function()
      for _, level in ipairs(all) do
         for _, dim in ipairs({ 1, 3, 8, 31, 100, 768 }) do
            local a, rows, keep = operands(dim, 0)
            local opposite, zero = ffi.new("float[?]", dim), ffi.new("float[?]", dim)
            for i = 0, dim - 1 do opposite[i] = -a[i] end
            assert.equal(1, level.kernels.cosine(a, a, dim))
            assert.equal(-1, level.kernels.cosine(a, opposite, dim))
            assert.equal(0, level.kernels.cosine(a, zero, dim))
            assert.equal(0, level.kernels.cosine(zero, zero, dim))
            assert.is_true(rows ~= nil and keep ~= nil)
         end
      end
   end)

   it("keeps the cosine within [-1, 1] and right when squares overflow or vanish", function()
      for _, level in ipairs(all) do
         for _, factor in ipairs({ 1e30, 1e-30, 1e20, 1e-22 }) do
            local a = engine.floats({ 3 * factor, 4 * factor })
            local b = engine.floats({ 4 * factor, 3 * factor })
            assert.near(24 / 25, level.kernels.cosine(a, b, 2), 1e-6)
            assert.near(24 / 25, level.kernels.cosine(a, engine.floats({ 4, 3 }), 2), 1e-6)
         end
         for _ = 1, 2000 do
            local x, y = element(), element()
            local c = level.kernels.cosine(engine.floats({ x, y, x }),
               engine.floats({ 3 * x, 3 * y, 3 * x }), 3)
            assert(c <= 1 and c > 0.999999)
         end
      end
   end)

   it("lets an infinite l2 distance be infinite, not NaN", function()
      for _, level in ipairs(all) do
         local a, b = engine.floats({ 3e38, 0, 1 }), engine.floats({ -3e38, 0, 1 })
         assert.equal(math.huge, level.kernels.l2_squared(a, b, 3))
      end
   end)
end)

describe("the choice of the level", function()
   local function level_with(environment)
      local command = ("%s RUVECTOR_BUILD='%s' LUA_PATH='lua/?.lua;;' luajit -e '%s' 2>&1"):format(
         environment, engine.build, [[
            local e = require("ruvector.engine")
            local k = e.lib.rv_kernels_active()
            assert(k == e.lib.rv_kernels_active())
            io.write(e.ffi.string(k.name))]])
      local pipe = assert(io.popen(command))
      local out = pipe:read("*a")
      pipe:close()
      return out
   end

   local best = level_with("env -u RUVECTOR_SIMD")

   it("follows RUVECTOR_SIMD for every level the machine has", function()
      assert.equal("scalar", level_with("RUVECTOR_SIMD=scalar"))
      for _, level in ipairs(present) do
         assert.equal(level.name, level_with("RUVECTOR_SIMD=" .. level.name))
      end
   end)

   it("is the best level of the machine when nothing is asked for", function()
      local order = jit.arch == "arm64" and { "neon" } or { "avx512", "avx2", "scalar" }
      for _, name in ipairs(order) do
         if lib.rv_kernels_for(ffi.cast("rv_simd_level", LEVELS[name])) ~= nil then
            assert.equal(name, best)
            return
         end
      end
   end)

   it("falls back to the best level on a name that is unknown or not available", function()
      assert.equal(best, level_with("RUVECTOR_SIMD=turbo"))
      assert.equal(best, level_with("RUVECTOR_SIMD="))
      assert.equal(best, level_with("RUVECTOR_SIMD=AVX2"))
      for name, number in pairs(LEVELS) do
         if lib.rv_kernels_for(ffi.cast("rv_simd_level", number)) == nil then
            assert.equal(best, level_with("RUVECTOR_SIMD=" .. name))
         end
      end
   end)

   it("has no table for a level that does not exist", function()
      assert.is_true(lib.rv_kernels_for(ffi.cast("rv_simd_level", 17)) == nil)
   end)
end)

local METRICS = { L2 = lib.RV_METRIC_L2, IP = lib.RV_METRIC_IP, COSINE = lib.RV_METRIC_COSINE,
   L1 = lib.RV_METRIC_L1 }

describe("raw distances", function()
   local a, b = engine.floats({ 1, 2, 2 }), engine.floats({ 2, -1, 4 })

   it("are what the header says", function()
      assert.equal(14, lib.rv_raw_distance(METRICS.L2, a, b, 3))
      assert.equal(-8, lib.rv_raw_distance(METRICS.IP, a, b, 3))
      assert.near(1 - 8 / (3 * math.sqrt(21)), lib.rv_raw_distance(METRICS.COSINE, a, b, 3), 1e-6)
      assert.equal(6, lib.rv_raw_distance(METRICS.L1, a, b, 3))
   end)

   it("put a zero vector at cosine distance 1 from everything", function()
      local zero = engine.floats({ 0, 0, 0 })
      assert.equal(1, lib.rv_raw_distance(METRICS.COSINE, a, zero, 3))
      assert.equal(1, lib.rv_raw_distance(METRICS.COSINE, zero, zero, 3))
   end)

   it("take unit vectors at their word, and stay within 0 to 2", function()
      local u, v, w = ffi.new("float[50]"), ffi.new("float[50]"), ffi.new("float[50]")
      for _ = 1, 200 do
         for i = 0, 49 do
            u[i], v[i] = element(), element()
         end
         lib.rv_normalize(u, u, 50)
         lib.rv_normalize(v, v, 50)
         for i = 0, 49 do w[i] = -u[i] end
         assert.near(lib.rv_raw_distance(METRICS.COSINE, u, v, 50),
            lib.rv_raw_distance_unit(METRICS.COSINE, u, v, 50), 1e-6)
         local same = lib.rv_raw_distance_unit(METRICS.COSINE, u, u, 50)
         local opposite = lib.rv_raw_distance_unit(METRICS.COSINE, u, w, 50)
         assert(same >= 0 and same < 1e-6 and opposite <= 2 and opposite > 2 - 1e-6)
         for _, metric in pairs({ METRICS.L2, METRICS.IP, METRICS.L1 }) do
            assert.equal(lib.rv_raw_distance(metric, u, v, 50),
               lib.rv_raw_distance_unit(metric, u, v, 50))
         end
      end
   end)

   it("become the user's distance by a square root for L2, unchanged otherwise", function()
      assert.equal(3, lib.rv_distance_from_raw(METRICS.L2, 9))
      assert.equal(0, lib.rv_distance_from_raw(METRICS.L2, -1e-9))
      assert.equal(-9, lib.rv_distance_from_raw(METRICS.IP, -9))
      assert.equal(0.5, lib.rv_distance_from_raw(METRICS.COSINE, 0.5))
      assert.equal(4, lib.rv_distance_from_raw(METRICS.L1, 4))
   end)
end)

describe("a batch", function()
   it("gives each row the distance it has alone, for every metric, count and length", function()
      for _, dim in ipairs({ 1, 3, 128, 600, 1536 }) do
         local n = 37
         local vectors = engine.floats(element, n * dim)
         local rows = ffi.new("const float *[?]", n)
         -- in an order that is not the memory's
         for i = 0, n - 1 do rows[i] = vectors + ((i * 11) % n) * dim end
         local query = engine.floats(element, dim)
         local out = ffi.new("float[?]", n + 1)
         for _, metric in pairs(METRICS) do
            for _, unit in ipairs({ false, true }) do
               local alone = unit and lib.rv_raw_distance_unit or lib.rv_raw_distance
               for _, count in ipairs({ 0, 1, 2, 3, 8, 9, n }) do
                  for i = 0, n do out[i] = -77 end
                  lib.rv_raw_distance_batch(metric, unit, query, rows, count, dim, out)
                  for i = 0, count - 1 do assert.equal(alone(metric, query, rows[i], dim), out[i]) end
                  assert.equal(-77, out[count])
               end
            end
         end
      end
   end)

   it("of vectors of no elements is a batch of zeros", function()
      local row = engine.floats({ 1 })
      local rows, out = ffi.new("const float *[2]", row, row), ffi.new("float[2]", 5, 5)
      lib.rv_raw_distance_batch(METRICS.L2, false, row, rows, 2, 0, out)
      assert.equal(0, out[0])
      assert.equal(0, out[1])
   end)
end)

describe("norms", function()
   it("are Euclidean, over the whole range of float32", function()
      for _, factor in ipairs({ 1, 1e-30, 1e-40, 1e30 }) do
         local norm = lib.rv_norm(engine.floats({ 3 * factor, 4 * factor }), 2)
         assert.near(1, norm / (5 * factor), 1e-4)
      end
      assert.equal(0, lib.rv_norm(engine.floats({ 0, 0 }), 2))
      assert.equal(0, lib.rv_norm(engine.floats({ 1 }), 0))
   end)

   it("scale a vector to unit length, in place or not, and return the former norm", function()
      for _, factor in ipairs({ 1, 1e-30, 1e30 }) do
         local v, out = engine.floats({ 3 * factor, 4 * factor }), ffi.new("float[2]")
         assert.near(1, lib.rv_normalize(v, out, 2) / (5 * factor), 1e-6)
         assert.near(0.6, out[0], 1e-6)
         assert.near(0.8, out[1], 1e-6)
         lib.rv_normalize(v, v, 2)
         assert.near(0.6, v[0], 1e-6)
         assert.near(0.8, v[1], 1e-6)
      end
   end)

   it("leave a zero vector zero", function()
      local v = engine.floats({ 0, 0, 0 })
      assert.equal(0, lib.rv_normalize(v, v, 3))
      for i = 0, 2 do assert.equal(0, v[i]) end
   end)

   it("scale a vector whose norm is beyond float32", function()
      local v = engine.floats(function() return 3e38 end, 100)
      assert.equal(math.huge, lib.rv_normalize(v, v, 100))
      for i = 0, 99 do assert.near(0.1, v[i], 1e-6) end
   end)
end)

describe("the metric form", function()
   local function metric_of(metric, x, y, dim, max_norm)
      local map = lib.rv_metric_map_make(metric, max_norm or 0, lib.rv_norm(x, dim))
      return lib.rv_metric_map_apply(map, lib.rv_raw_distance(metric, x, y, dim))
   end

   it("is the Euclidean distance for L2, the chord for cosine, the distance for L1", function()
      local x, y = engine.floats({ 1, 0 }), engine.floats({ 0, 1 })
      assert.near(math.sqrt(2), metric_of(METRICS.L2, x, y, 2), 1e-9)
      assert.near(math.sqrt(2), metric_of(METRICS.COSINE, x, y, 2), 1e-9)
      assert.near(2, metric_of(METRICS.L1, x, y, 2), 1e-9)
   end)

   it("obeys the triangle inequality", function()
      local dim = 5
      for _ = 1, 500 do
         local x, y, z = engine.floats(element, dim), engine.floats(element, dim),
            engine.floats(element, dim)
         for _, name in ipairs({ "L2", "COSINE", "L1" }) do
            local m = METRICS[name]
            assert(metric_of(m, x, z, dim) <= metric_of(m, x, y, dim) + metric_of(m, y, z, dim) + 1e-5)
         end
      end
   end)

   it("is the lifted Euclidean distance for the inner product", function()
      local dim, max_norm = 6, 5
      for _ = 1, 200 do
         local q, x = engine.floats(element, dim), engine.floats(element, dim)
         local q_norm, x_norm = lib.rv_norm(q, dim), lib.rv_norm(x, dim)
         local squared = max_norm ^ 2 - x_norm ^ 2 -- the lift's extra coordinate
         for i = 0, dim - 1 do squared = squared + (q[i] * max_norm / q_norm - x[i]) ^ 2 end
         assert.near(math.sqrt(squared), metric_of(METRICS.IP, q, x, dim, max_norm), 1e-4)
      end
   end)

   it("is constant for the inner product when a norm is unknown or beyond float32", function()
      for _, norms in ipairs({ { 0, 1 }, { 1, 0 }, { 0, 0 }, { 3e38, 1 }, { 1, 1e-45 } }) do
         local map = lib.rv_metric_map_make(METRICS.IP, norms[1], norms[2])
         assert.equal(1, lib.rv_metric_map_apply(map, -100))
         assert.equal(1, lib.rv_metric_map_apply(map, 0))
         assert.equal(1, lib.rv_metric_map_apply(map, 100))
      end
   end)

   it("is never negative nor NaN", function()
      for _, metric in pairs(METRICS) do
         local map = lib.rv_metric_map_make(metric, 1, 1)
         assert.is_true(lib.rv_metric_map_apply(map, -3) >= 0)
      end
   end)
end)

describe("a block of distances", function()
   local BLOCK_METRICS = { l2 = lib.RV_METRIC_L2, ip = lib.RV_METRIC_IP, cosine = lib.RV_METRIC_COSINE,
      l1 = lib.RV_METRIC_L1 }

   for name, metric in pairs(BLOCK_METRICS) do
      it("has of each pair what the pair alone has, whatever the block, under " .. name, function()
         local dim, most_queries, most_rows = 37, 5, 9
         local queries, memory = ffi.new("float[?]", most_queries * dim), ffi.new("float[?]", most_rows * dim)
         for i = 0, most_queries * dim - 1 do queries[i] = element() end
         for i = 0, most_rows * dim - 1 do memory[i] = element() end
         local rows = ffi.new("const float *[?]", most_rows)
         for i = 0, most_rows - 1 do rows[i] = memory + i * dim end
         for _, unit in ipairs({ false, true }) do
            local alone = unit and lib.rv_raw_distance_unit or lib.rv_raw_distance
            for query_count = 0, most_queries do
               for count = 0, most_rows do
                  local out = ffi.new("float[?]", query_count * count + 1)
                  out[query_count * count] = 4711
                  lib.rv_raw_distance_block(metric, unit, queries, query_count, rows, count, dim, out)
                  for i = 0, query_count - 1 do
                     for j = 0, count - 1 do
                        assert.equal(alone(metric, queries + i * dim, rows[j], dim), out[i * count + j])
                     end
                  end
                  assert.equal(4711, out[query_count * count])
               end
            end
         end
      end)
   end

   it("keeps ties: equal rows are equally far from a query in every place of the block", function()
      local dim, count = 100, 64
      local queries, row = ffi.new("float[?]", 3 * dim), ffi.new("float[?]", dim)
      for i = 0, 3 * dim - 1 do queries[i] = element() end
      for i = 0, dim - 1 do row[i] = element() end
      local rows, out = ffi.new("const float *[?]", count), ffi.new("float[?]", 3 * count)
      for i = 0, count - 1 do rows[i] = row end
      lib.rv_raw_distance_block(lib.RV_METRIC_L2, false, queries, 3, rows, count, dim, out)
      for i = 0, 2 do
         for j = 1, count - 1 do assert.equal(out[i * count], out[i * count + j]) end
      end
   end)
end)
