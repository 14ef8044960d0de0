-- bank_flat_spec.lua - the flat form of the ReasoningBank: searched in place, checked to the last
-- link, and never trusted before that.

local engine = require("ruvector.engine")
local B = require("support.bank")
local ffi, lib = engine.ffi, engine.lib
local bxor, rol, rshift = require("bit").bxor, require("bit").rol, require("bit").rshift

local err = engine.error_buffer()
local metrics = { lib.RV_METRIC_L2, lib.RV_METRIC_IP, lib.RV_METRIC_COSINE, lib.RV_METRIC_L1 }
local L2, COSINE = lib.RV_METRIC_L2, lib.RV_METRIC_COSINE

-- The checksum of base/checksum.h, so that the specs can forge sealed buffers.
local function seal(flat, bytes)
   local K = 0x9E3779B97F4A7C15ULL
   local a = ffi.cast("uint32_t *", flat)[2] * K + 1
   local b = bxor(a, -1ULL)
   for i = 4, bytes / 8 - 1 do a, b = b, rol(bxor(a, flat[i]) * K, 29) end
   local z = bxor(a * K, b + bytes)
   z = bxor(z, rshift(z, 30)) * 0xBF58476D1CE4E5B9ULL
   z = bxor(z, rshift(z, 27)) * 0x94D049BB133111EBULL
   flat[3] = bxor(z, rshift(z, 31))
end

local function flat_check(flat, bytes) return lib.rv_bank_flat_check(flat, bytes, err) end

local function unflatten(flat, bytes)
   local out = ffi.new("rv_bank *[1]")
   engine.check(lib.rv_bank_unflatten(engine.allocator, flat, bytes, out, err), err)
   return ffi.gc(out[0], lib.rv_bank_destroy)
end

local function copy_of(flat, bytes)
   local other = ffi.new("uint64_t[?]", bytes / 8)
   ffi.copy(other, flat, bytes)
   return other
end

local function random_bank(metric, dim, count, seed, with_index)
   local random = B.random(seed)
   local next_centroid = B.clustered(random, dim, 1 + math.ceil(count / 30))
   local bank = B.new(metric, dim, 100000)
   if with_index then B.put(bank, B.random_pattern(random, { scope = lib.RV_PATTERN_INDEX, radius = 0 })) end
   for _ = 1, count do B.put(bank, B.random_pattern(random), next_centroid()) end
   return bank, next_centroid
end

describe("the flat form of a bank", function()
   it("comes back as the bank it was made from", function()
      for seed, metric in ipairs(metrics) do
         for _, count in ipairs { 0, 1, 7, 300, 700 } do
            local bank = random_bank(metric, 5 + seed, count, seed, count % 2 == 1)
            local flat, bytes = B.flatten(bank)
            engine.check(flat_check(flat, bytes), err)
            local back = unflatten(flat, bytes)
            assert.equal(B.contents(bank), B.contents(back))
            assert.equal(lib.rv_bank_count(bank), lib.rv_bank_flat_count(flat))
            local again, again_bytes = B.flatten(back)
            assert.equal(ffi.string(flat, bytes), ffi.string(again, again_bytes), "equal banks, equal bytes")
         end
      end
   end)

   it("keeps the ids that were used and the limit", function()
      local bank = B.new(L2, 2, 3)
      for _ = 1, 3 do B.put(bank, B.pattern(), engine.floats { 1, 2 }) end
      engine.check(lib.rv_bank_remove(bank, 3, err), err)
      local back = unflatten(B.flatten(bank))
      assert.equal(4, B.put(back, B.pattern(), engine.floats { 1, 2 }))
      assert.equal(lib.RV_ERR_FULL, lib.rv_bank_put(back, B.pattern(), engine.floats { 1, 2 }, nil, err))
   end)

   it("gives the index-wide pattern in place, or none", function()
      local bank = random_bank(L2, 3, 5, 1, true)
      local flat = B.flatten(bank)
      local p = lib.rv_bank_flat_index_pattern(flat)
      assert.equal(ffi.string(lib.rv_bank_index_pattern(bank), 296), ffi.string(p, 296))
      assert.is_true(lib.rv_bank_flat_index_pattern((B.flatten(random_bank(L2, 3, 5, 1)))) == nil)
   end)

   it("tells the size it needs when the capacity is less, and writes nothing", function()
      local bank = random_bank(L2, 3, 5, 1, true)
      local _, bytes = B.flatten(bank)
      local buffer, size = ffi.new("uint64_t[?]", bytes / 8), ffi.new("size_t[1]")
      assert.equal(lib.RV_ERR_FULL, lib.rv_bank_flatten(bank, buffer, bytes - 1, size, err))
      assert.equal(bytes, tonumber(size[0]))
      assert.matches("needs " .. bytes .. " bytes", engine.message(err), 1, true)
      for i = 0, bytes / 8 - 1 do assert(buffer[i] == 0) end
      local askew = ffi.cast("char *", buffer) + 4
      assert.equal(lib.RV_ERR_INVALID, lib.rv_bank_flatten(bank, askew, bytes, size, err))
   end)

   it("is searched in place with the exact results of the bank while it is small", function()
      for seed, metric in ipairs(metrics) do
         local bank, next_centroid = random_bank(metric, 33, 512, seed)
         local flat = B.flatten(bank)
         for _ = 1, 30 do
            local query = next_centroid()
            assert.same(B.lookup(bank, query, 7), B.flat_lookup(flat, query, 7))
         end
      end
   end)

   it("is exact where codes cannot tell the centroids apart, or hardly hold them", function()
      local random = B.random(21)
      local shapes = {
         -- all within the error of one code, around a far place
         function(i) return i == 1 and 1000 or 1 + 1e-4 * random.normal() end,
         -- of very different lengths, some beyond what squares can hold
         function(_, scale) return scale * random.normal() end,
         -- one element that makes all others vanish in the code
         function(i) return i == 1 and 1e6 or random.normal() end,
         -- many equal ones
         function() return random.below(2) end,
      }
      for _, metric in ipairs(metrics) do
         for number, shape in ipairs(shapes) do
            for _, dim in ipairs { 1, 3, 64, 65 } do
               local bank = B.new(metric, dim, 1000)
               local function vector()
                  local scale = 10 ^ (random.below(number == 2 and 41 or 1) - 20)
                  return engine.floats(function(i) return shape(i + 1, scale) end, dim)
               end
               for _ = 1, 200 do B.put(bank, B.random_pattern(random), vector()) end
               local flat, bytes = B.flatten(bank)
               engine.check(flat_check(flat, bytes), err)
               for k = 1, 19, 3 do
                  local query = vector()
                  assert.same(B.lookup(bank, query, k), B.flat_lookup(flat, query, k))
               end
               assert.same(B.lookup(bank, ffi.new("float[?]", dim), 3),
                  B.flat_lookup(flat, ffi.new("float[?]", dim), 3))
            end
         end
      end
   end)

   it("compares few centroids with the query, most only by their codes", function()
      for _, metric in ipairs { L2, COSINE } do
         local bank, next_centroid = random_bank(metric, 64, 400, 3)
         local flat, work = B.flatten(bank), ffi.new("uint32_t[1]")
         local out, count = ffi.new("rv_bank_match[3]"), ffi.new("uint32_t[1]")
         local compared = 0
         for _ = 1, 50 do
            engine.check(lib.rv_bank_flat_lookup(flat, engine.allocator, next_centroid(), 3, out, count, work,
               err), err)
            compared = compared + work[0] - 400
         end
         assert.is_true(compared >= 150 and compared / 50 < 40, compared / 50 .. " compared")
      end
   end)

   it("names the element of a query that is no number", function()
      for _, metric in ipairs(metrics) do
         local flat = B.flatten(random_bank(metric, 3, 5, 1))
         local out, count = ffi.new("rv_bank_match[3]"), ffi.new("uint32_t[1]")
         for _, wrong in ipairs { 0 / 0, math.huge } do
            assert.equal(lib.RV_ERR_RANGE, lib.rv_bank_flat_lookup(flat, engine.allocator,
               engine.floats { 1, wrong, 2 }, 3, out, count, nil, err))
            assert.matches("query[1] is", engine.message(err), 1, true)
         end
      end
   end)

   it("finds nearly all of the nearest in a large bank, at exact distances", function()
      for seed, metric in ipairs(metrics) do
         local bank, next_centroid = random_bank(metric, 40, 3000, seed)
         local flat = B.flatten(bank)
         local found, total = 0, 0
         for _ = 1, 60 do
            local query = next_centroid()
            local best = {}
            for _, match in ipairs(B.lookup(bank, query, 200)) do best[match.id] = match end
            local third = B.lookup(bank, query, 3)[3].distance
            local got = B.flat_lookup(flat, query, 3)
            assert.equal(3, #got)
            for i, match in ipairs(got) do
               if i > 1 then assert.is_true(got[i - 1].distance <= match.distance) end
               if best[match.id] then
                  assert.near(best[match.id].distance, match.distance, 1e-4)
                  assert.near(best[match.id].similarity, match.similarity, 1e-4)
               end
               if match.distance <= third * 1.000001 then found = found + 1 end
               total = total + 1
            end
         end
         assert.is_true(found / total >= 0.97, "recall " .. found / total)
      end
   end)

   it("is searched wherever it lies", function()
      local bank, next_centroid = random_bank(COSINE, 12, 900, 3)
      local flat, bytes = B.flatten(bank)
      local room = ffi.new("char[?]", bytes + 128)
      local query = next_centroid()
      local expected = B.flat_lookup(flat, query, 5)
      for _, shift in ipairs { 0, 8, 24, 56 } do
         ffi.copy(room + shift, flat, bytes)
         engine.check(flat_check(room + shift, bytes), err)
         assert.same(expected, B.flat_lookup(room + shift, query, 5))
      end
   end)

   it("gives back all scratch memory of a lookup, and fails cleanly without any", function()
      for _, metric in ipairs { L2, COSINE } do
         local bank, next_centroid = random_bank(metric, 12, 600, 4)
         local flat = B.flatten(bank)
         local query, out, count = next_centroid(), ffi.new("rv_bank_match[3]"), ffi.new("uint32_t[1]")
         assert.is_true(B.fail_each_allocation(function(allocator)
            return lib.rv_bank_flat_lookup(flat, allocator, query, 3, out, count, nil, err)
         end) > 2)
      end
      local small = B.flatten(random_bank(L2, 12, 10, 4))
      assert.equal(0, B.fail_each_allocation(function(allocator)
         local out, count = ffi.new("rv_bank_match[3]"), ffi.new("uint32_t[1]")
         return lib.rv_bank_flat_lookup(small, allocator, engine.floats(nil, 12), 3, out, count, nil, err)
      end))
   end)

   it("is read back cleanly without memory", function()
      local flat, bytes = B.flatten(random_bank(L2, 4, 40, 5, true))
      assert.is_true(B.fail_each_allocation(function(allocator)
         local out = ffi.new("rv_bank *[1]")
         local status = lib.rv_bank_unflatten(allocator, flat, bytes, out, err)
         if status == lib.RV_OK then lib.rv_bank_destroy(out[0]) end
         return status
      end) > 40)
   end)

   it("is written cleanly without memory, and the bank stays as it was", function()
      local a, size = ffi.new("rv_test_allocator"), ffi.new("size_t[1]")
      local buffer, failures = ffi.new("uint64_t[?]", 100000), 0
      for fail_at = 1, 100000 do
         lib.rv_test_allocator_init(a, 0)
         local bank = B.fill(B.new(COSINE, 4, 5000, a.allocator), 530, B.clustered(B.random(6), 4, 20))
         local before = B.contents(bank)
         a.fail_at = a.calls + fail_at
         local status = lib.rv_bank_flatten(bank, buffer, 800000, size, err)
         local hit = a.calls >= a.fail_at
         assert(status == (hit and lib.RV_ERR_NOMEM or lib.RV_OK))
         assert(B.contents(bank) == before)
         lib.rv_bank_destroy(bank)
         assert(a.live == 0)
         if not hit then break end
         failures = failures + 1
      end
      assert.is_true(failures > 5)
   end)
end)

describe("the check of a flat bank", function()
   local function expect(status, text, flat, bytes)
      assert.equal(status, flat_check(flat, bytes))
      assert.matches(text, engine.message(err), 1, true)
   end

   it("refuses what is no flat bank, or not for this code", function()
      local flat, bytes = B.flatten(random_bank(L2, 3, 5, 1, true))
      expect(lib.RV_ERR_FORMAT, "127 bytes; the header alone has 128", flat, 127)
      expect(lib.RV_ERR_INVALID, "aligned to 8 bytes", ffi.cast("char *", flat) + 4, bytes)
      expect(lib.RV_ERR_INVALID, "must be given", nil, bytes)
      expect(lib.RV_ERR_FORMAT, "the buffer has " .. bytes - 1, flat, bytes - 1)
      expect(lib.RV_ERR_FORMAT, "magic number is 0", ffi.new("uint64_t[100]"), 800)
      local other = copy_of(flat, bytes)
      ffi.cast("uint32_t *", other)[2] = 1
      expect(lib.RV_ERR_VERSION, "version 1; this code reads 2", other, bytes)
      other = copy_of(flat, bytes)
      ffi.cast("uint32_t *", other)[3] = 0x04030201
      expect(lib.RV_ERR_FORMAT, "other byte order", other, bytes)
   end)

   it("notices every changed byte", function()
      for _, with_index in ipairs { true, false } do
         local flat, bytes = B.flatten(random_bank(L2, 3, 4, 1, with_index))
         local raw = ffi.cast("uint8_t *", flat)
         for at = 0, bytes - 1 do
            local was = raw[at]
            raw[at] = bxor(was, 1 + at % 255)
            assert(flat_check(flat, bytes) ~= lib.RV_OK, "byte " .. at)
            raw[at] = was
         end
         engine.check(flat_check(flat, bytes), err)
      end
   end)

   it("names what is wrong in a buffer whose checksum was forged", function()
      local flat, bytes = B.flatten(random_bank(L2, 3, 5, 1, true))
      seal(flat, bytes)
      engine.check(flat_check(flat, bytes), err) -- the forger knows the checksum
      local function forged(text, change)
         local other = copy_of(flat, bytes)
         change(ffi.cast("uint32_t *", other), ffi.cast("rv_pattern *", ffi.cast("char *", other) + 128))
         seal(other, bytes)
         expect(lib.RV_ERR_FORMAT, text, other, bytes)
      end
      forged("no metric 7", function(h) h[8] = 7 end)
      forged("0 dimensions", function(h) h[9] = 0 end)
      forged("4294967295 dimensions", function(h) h[9] = 0xffffffff end)
      forged("max_patterns is 0", function(h) h[10] = 0 end)
      forged("5 region and 1 index-wide patterns; must be at most 5", function(h) h[10] = 5 end)
      forged("must be at most", function(h) h[11] = 0xffffffff end)
      forged("its counts make", function(h) h[11] = 4 end)
      forged("and 2 index-wide", function(h) h[14] = 2 end)
      forged("10 links per node with 5 regions", function(h) h[15] = 10 end)
      forged("entry 1 at level 0", function(h) h[16] = 1 end)
      forged("reserved header fields", function(h) h[31] = 1 end)
      forged("pattern 0: scope is 1; must be 0", function(_, p) p[0].scope, p[0].radius = 1, 0 end)
      forged("pattern 2: slack is", function(_, p) p[2].slack = 0 / 0 end)
      forged("pattern 3: id 2 repeats or is out of order", function(_, p) p[3].id = 2 end)
      forged("pattern 1: id 1 repeats", function(_, p) p[1].id = 1 end)
      forged("pattern 5: id is 99; must be 1 to 6", function(_, p) p[5].id = 99 end)
      forged("pattern 4: an unused entry point", function(_, p) p[4].entry_count, p[4].entry_points[7] = 0,
         1 end)
      forged("centroid 0[0] is", function(_, p) ffi.cast("float *", p)[(6 * 296 + 16) / 4] = 0 / 0 end)
   end)

   it("names what is wrong in a forged graph", function()
      local dim, regions, m = 3, 600, 10
      local flat, bytes = B.flatten(random_bank(L2, dim, regions, 2))
      local function up(n) return math.ceil(n / 64) * 64 end
      local scales = 128 + up(regions * 296) + regions * 64 + regions * 64
      local errors = scales + 2 * up(regions * 4)
      local region_of = errors + up(regions * 4)
      local base = region_of + up(regions * 4)
      local start = base + up(regions * (1 + 2 * m) * 4)
      local upper = start + up((regions + 1) * 4)
      local function forged(text, change)
         local other = copy_of(flat, bytes)
         local bytes_of = ffi.cast("char *", other)
         local function at(offset) return ffi.cast("uint32_t *", bytes_of + offset) end
         change(at, at(0))
         seal(other, bytes)
         expect(lib.RV_ERR_FORMAT, text, other, bytes)
      end
      forged("scale 3 is", function(at) ffi.cast("float *", at(scales))[3] = -1 end)
      forged("error 5 is", function(at) ffi.cast("float *", at(errors))[5] = 0 / 0 end)
      forged("node 2 is region 600", function(at) at(region_of)[2] = 600 end)
      forged("node 9 is region", function(at) at(region_of)[9] = at(region_of)[8] end)
      forged("node 0 has 21 links on level 0; at most 20 fit", function(at) at(base)[0] = 21 end)
      forged("node 1 links to 600 on level 0", function(at) at(base)[21 + 1] = 600 end)
      forged("entry 600 at level", function(_, h) h[16] = 600 end)
      forged("has level", function(_, h) h[17] = h[17] + 1 end)
      forged("node 0 has upper blocks", function(at) at(start)[0] = 1000000 end)
      forged("its nodes have upper blocks", function(at)
         at(start)[regions] = at(start)[regions] + 1
      end)
      forged("its counts make", function(_, h) h[18] = h[18] + 100 end)
      forged("links per node", function(_, h) h[15] = 0 end)
      forged("links per node", function(_, h) h[15] = 101 end)
      -- an upper link to a node that ends below that level
      forged("where there is no such node", function(at)
         local s, lowest = at(start), nil
         for i = 0, regions - 1 do if s[i + 1] == s[i] then lowest = i break end end
         for b = 0, s[regions] - 1 do
            if at(upper)[b * (1 + m)] > 0 then at(upper)[b * (1 + m) + 1] = lowest break end
         end
      end)
   end)

   it("accepts no forgery that a lookup or a reader could trip over", function()
      local random = B.random(77)
      local accepted, refused = 0, 0
      for _, count in ipairs { 6, 560 } do
         local flat, bytes = B.flatten(random_bank(COSINE, 3, count, 9, true))
         for _ = 1, count == 6 and 4000 or 400 do
            local other = copy_of(flat, bytes)
            local raw, words = ffi.cast("uint8_t *", other), ffi.cast("uint32_t *", other)
            for _ = 1, 1 + random.below(3) do
               local dice = random.below(5)
               if dice == 0 then raw[random.below(bytes)] = random.below(256)
               elseif dice == 1 then words[random.below(bytes / 4)] = random.bits()
               elseif dice == 2 then words[random.below(bytes / 4)] = random.below(700)
               elseif dice == 3 then words[8 + random.below(12)] = random.below(700)
               else words[random.below(bytes / 4)] = bxor(words[random.below(bytes / 4)], random.below(8)) end
            end
            seal(other, bytes)
            if flat_check(other, bytes) == lib.RV_OK then
               accepted = accepted + 1
               B.check(unflatten(other, bytes))
               for _ = 1, 3 do
                  local dim = words[9]
                  local got = B.flat_lookup(other, B.vector(random, dim), 1 + random.below(9))
                  assert.is_true(#got <= 9)
               end
            else
               refused = refused + 1
               local out = ffi.new("rv_bank *[1]")
               assert(lib.rv_bank_unflatten(engine.allocator, other, bytes, out, err) ~= lib.RV_OK)
            end
         end
      end
      assert.is_true(accepted > 100 and refused > 1000, accepted .. " accepted, " .. refused .. " refused")
   end)
end)
