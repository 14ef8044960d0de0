-- What every engine module stands on: status codes, messages, allocators, the generator.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

-- The helpers that engine modules share are not in the public headers.
ffi.cdef([[
   rv_status rv_fail(rv_error *err, rv_status status, const char *fmt, ...);
   rv_status rv_fail_nomem(rv_error *err, size_t size);
   void *rv_alloc(const rv_allocator *allocator, size_t size);
   void *rv_alloc_zero(const rv_allocator *allocator, size_t size);
   void *rv_alloc_array(const rv_allocator *allocator, size_t count, size_t element_size);
   void *rv_alloc_array_zero(const rv_allocator *allocator, size_t count, size_t element_size);
   void rv_free(const rv_allocator *allocator, void *pointer);
]])

local function seeded(seed)
   local rng = ffi.new("rv_prng")
   lib.rv_prng_seed(rng, seed)
   return rng
end

describe("rv_status_name", function()
   it("has a name of its own for every status", function()
      local seen = {}
      for status = 0, 11 do
         local name = ffi.string(lib.rv_status_name(ffi.cast("rv_status", status)))
         assert.is_not.equal("unknown", name)
         assert.is_nil(seen[name], name)
         seen[name] = true
      end
   end)

   it("names what is not a status too", function()
      assert.equal("unknown", ffi.string(lib.rv_status_name(ffi.cast("rv_status", 99))))
   end)
end)

describe("rv_fail", function()
   it("fills the buffer and returns the status", function()
      local err = engine.error_buffer()
      local status = lib.rv_fail(err, lib.RV_ERR_RANGE, "q is %g, above %d", ffi.cast("double", 1.5),
         ffi.cast("int", 1))
      assert.equal(lib.RV_ERR_RANGE, tonumber(status))
      assert.equal(lib.RV_ERR_RANGE, tonumber(err[0].status))
      assert.equal("q is 1.5, above 1", engine.message(err))
   end)

   it("allows a caller that wants no message", function()
      assert.equal(lib.RV_ERR_FULL, tonumber(lib.rv_fail(nil, lib.RV_ERR_FULL, "full")))
   end)

   it("cuts a message that is too long, and ends it", function()
      local err = engine.error_buffer()
      lib.rv_fail(err, lib.RV_ERR_FORMAT, "%s", string.rep("x", 1000))
      assert.equal(string.rep("x", 255), engine.message(err))
   end)
end)

describe("the test allocator", function()
   local a
   before_each(function() a = ffi.new("rv_test_allocator") end)

   it("counts calls and live blocks", function()
      lib.rv_test_allocator_init(a, 0)
      local x = lib.rv_alloc(a.allocator, 10)
      local y = lib.rv_alloc(a.allocator, 10)
      assert.equal(2, tonumber(a.calls))
      assert.equal(2, tonumber(a.live))
      lib.rv_free(a.allocator, x)
      lib.rv_free(a.allocator, y)
      assert.equal(2, tonumber(a.calls))
      assert.equal(0, tonumber(a.live))
   end)

   it("fails the chosen call and no other", function()
      lib.rv_test_allocator_init(a, 2)
      local blocks = {}
      for i = 1, 4 do blocks[i] = lib.rv_alloc(a.allocator, 8) end
      assert.is_true(blocks[1] ~= nil and blocks[2] == nil and blocks[3] ~= nil and blocks[4] ~= nil)
      assert.equal(3, tonumber(a.live))
      for i = 1, 4 do lib.rv_free(a.allocator, blocks[i]) end
      assert.equal(0, tonumber(a.live))
   end)
end)

describe("allocation helpers", function()
   local allocator = engine.allocator

   it("give a block for a size of zero, so that NULL means failure", function()
      local block = lib.rv_alloc(allocator, 0)
      assert.is_true(block ~= nil)
      lib.rv_free(allocator, block)
   end)

   it("zero what is asked to be zero", function()
      local a = ffi.new("rv_test_allocator")
      lib.rv_test_allocator_init(a, 0)
      for _, block in ipairs({ lib.rv_alloc_zero(a.allocator, 100),
         lib.rv_alloc_array_zero(a.allocator, 25, 4) }) do
         local bytes = ffi.cast("uint8_t *", block)
         for i = 0, 99 do assert.equal(0, bytes[i]) end
         lib.rv_free(a.allocator, block)
      end
   end)

   it("refuse an array whose size overflows", function()
      local huge = ffi.cast("size_t", 2 ^ 62)
      assert.is_true(lib.rv_alloc_array(allocator, huge, 8) == nil)
      assert.is_true(lib.rv_alloc_array_zero(allocator, huge, 8) == nil)
   end)

   it("accept NULL to free", function() lib.rv_free(allocator, nil) end)

   it("report the size that could not be had", function()
      local err = engine.error_buffer()
      assert.equal(lib.RV_ERR_NOMEM, tonumber(lib.rv_fail_nomem(err, 12345)))
      assert.truthy(engine.message(err):find("12345 bytes", 1, true))
   end)
end)

describe("the generator", function()
   it("gives the sequence that xoshiro256** and splitmix64 define", function()
      -- Seed 0: splitmix64 yields e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f,
      -- f88bb8a8724c81ec (published test values); the first output is rotl(s1 * 5, 7) * 9.
      local rng = seeded(0)
      local state = { 0xe220a8397b1dcdafULL, 0x6e789e6aa1b965f4ULL, 0x06c45d188009454fULL,
         0xf88bb8a8724c81ecULL }
      for i = 0, 3 do assert.is_true(rng.state[i] == state[i + 1]) end
      assert.is_true(lib.rv_prng_next(rng) == 0x99ec5f36cb75f2b4ULL)
      -- The state 1, 2, 3, 4: the first outputs of the published reference code.
      for i = 0, 3 do rng.state[i] = i + 1 end
      for _, expected in ipairs({ 11520ULL, 0ULL, 1509978240ULL, 1215971899390074240ULL }) do
         assert.is_true(lib.rv_prng_next(rng) == expected)
      end
   end)

   it("repeats itself for a seed and differs between seeds", function()
      local a, b, c = seeded(7), seeded(7), seeded(8)
      local differs = false
      for _ = 1, 100 do
         local x = lib.rv_prng_next(a)
         assert.is_true(x == lib.rv_prng_next(b))
         differs = differs or x ~= lib.rv_prng_next(c)
      end
      assert.is_true(differs)
   end)

   it("draws uniforms in [0, 1) with mean 1/2 and variance 1/12", function()
      local rng, n, sum, squares = seeded(1), 100000, 0, 0
      for _ = 1, n do
         local u = lib.rv_prng_uniform(rng)
         assert(u >= 0 and u < 1)
         sum, squares = sum + u, squares + u * u
      end
      assert.near(0.5, sum / n, 0.005)
      assert.near(1 / 12, squares / n - (sum / n) ^ 2, 0.002)
   end)

   it("draws below a bound evenly, for bounds of every kind", function()
      local rng = seeded(2)
      for _, bound in ipairs({ 1, 2, 3, 7, 10 }) do
         local counts, n = {}, 20000
         for _ = 1, n do
            local value = tonumber(lib.rv_prng_below(rng, bound))
            assert(value >= 0 and value < bound)
            counts[value] = (counts[value] or 0) + 1
         end
         for value = 0, bound - 1 do
            -- five standard deviations of a binomial count
            local p = 1 / bound
            assert.near(n * p, counts[value] or 0, 5 * math.sqrt(n * p * (1 - p)) + 1e-9)
         end
      end
      -- A bound for which a bare remainder would draw low values a third more often.
      local bound, low, n = 0xC000000000000000ULL, 0, 10000
      for _ = 1, n do
         local value = lib.rv_prng_below(rng, bound)
         assert(value < bound)
         if value < 0x4000000000000000ULL then low = low + 1 end
      end
      assert.near(1 / 3, low / n, 0.025)
   end)

   it("draws normals of mean 0, variance 1 and no skew", function()
      local rng, n, sum, squares, cubes, beyond = seeded(3), 100000, 0, 0, 0, 0
      for _ = 1, n do
         local x = lib.rv_prng_normal(rng)
         sum, squares, cubes = sum + x, squares + x * x, cubes + x * x * x
         if math.abs(x) > 1.959964 then beyond = beyond + 1 end
      end
      assert.near(0, sum / n, 0.02)
      assert.near(1, squares / n, 0.03)
      assert.near(0, cubes / n, 0.06)
      assert.near(0.05, beyond / n, 0.005)
   end)
end)
