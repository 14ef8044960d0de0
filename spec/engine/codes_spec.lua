-- Compact codes: half precision over all of its 65,536 values, int8 within its stated error.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local rng = ffi.new("rv_prng")
lib.rv_prng_seed(rng, 5)
local function uniform() return lib.rv_prng_uniform(rng) end

-- IEEE 754 half precision by its definition.
local function half_value(code)
   local sign = code >= 0x8000 and -1 or 1
   local exponent, fraction = math.floor(code / 1024) % 32, code % 1024
   if exponent == 31 then return fraction == 0 and sign * math.huge or 0 / 0 end
   if exponent == 0 then return sign * fraction * 2 ^ -24 end
   return sign * (1 + fraction / 1024) * 2 ^ (exponent - 15)
end

local function is_nan(x) return x ~= x end

local levels = {}
for number = 0, 3 do
   local kernels = lib.rv_kernels_for(ffi.cast("rv_simd_level", number))
   if kernels ~= nil then levels[#levels + 1] = kernels end
end

for _, kernels in ipairs(levels) do
   describe("half precision, " .. ffi.string(kernels.name) .. ",", function()
      local function encode(x)
         -- eight at a time, so that the vector's path is taken too
         local input, out = engine.floats(function() return x end, 9), ffi.new("uint16_t[9]")
         kernels.to_half(input, out, 9)
         for i = 1, 8 do assert.equal(out[0], out[i]) end
         return out[0]
      end

      it("decodes every code to the value IEEE 754 gives it", function()
         local codes, values = ffi.new("uint16_t[65536]"), ffi.new("float[65536]")
         for code = 0, 65535 do codes[code] = code end
         kernels.from_half(codes, values, 65536)
         -- A NaN is read as bits: as a Lua number its payload would look like a tagged value.
         local bits = ffi.cast("uint32_t *", values)
         for code = 0, 65535 do
            local expected = half_value(code)
            if is_nan(expected) then
               assert(bit.band(bits[code], 0x7FFFFFFF) > 0x7F800000, ("%04x is not NaN"):format(code))
            else
               assert(values[code] == expected, ("%04x: %.9g"):format(code, values[code]))
            end
         end
         assert.equal(-math.huge, 1 / values[0x8000]) -- the negative zero
      end)

      it("encodes every code's value back to the code", function()
         local codes, values = ffi.new("uint16_t[65536]"), ffi.new("float[65536]")
         local back = ffi.new("uint16_t[65536]")
         for code = 0, 65535 do codes[code] = code end
         kernels.from_half(codes, values, 65536)
         kernels.to_half(values, back, 65536)
         for code = 0, 65535 do
            if is_nan(half_value(code)) then
               assert(is_nan(half_value(back[code])), ("%04x lost its NaN"):format(code))
            else
               assert(back[code] == code, ("%04x came back as %04x"):format(code, back[code]))
            end
         end
      end)

      it("rounds to the nearest code, and to the even one of two equally near", function()
         for code = 0, 0x7BFE do
            local low, high = half_value(code), half_value(code + 1)
            local middle = (low + high) / 2 -- exact in float32
            local even = code % 2 == 0 and code or code + 1
            local step = math.max(middle * 2 ^ -23, 2 ^ -40)
            if code % 37 == 0 or code < 40 or (code > 0x3E0 and code < 0x420) or code > 0x7BF0 then
               assert.equal(even, encode(middle))
               assert.equal(code, encode(middle - step))
               assert.equal(code + 1, encode(middle + step))
               assert.equal(even + 0x8000, encode(-middle))
            end
         end
      end)

      it("makes what is too large infinite and what is too small zero", function()
         assert.equal(0x7BFF, encode(65504))
         assert.equal(0x7BFF, encode(65519.996)) -- the last float that rounds down
         assert.equal(0x7C00, encode(65520))
         assert.equal(0xFC00, encode(-1e30))
         assert.equal(0x7C00, encode(math.huge))
         assert.equal(0x0001, encode(2 ^ -24))
         assert.equal(0x0000, encode(2 ^ -25)) -- half of the smallest, a tie: to even
         assert.equal(0x0001, encode(2 ^ -25 * 1.0000002))
         assert.equal(0x8000, encode(-2 ^ -30))
         assert.equal(0x0000, encode(2 ^ -149))
         assert.is_true(is_nan(half_value(encode(0 / 0))))
      end)
   end)
end

describe("rv_half_encode", function()
   it("encodes and rv_half_decode decodes, within half a unit of the 11th bit", function()
      local n = 1000
      local values = engine.floats(function() return (uniform() - 0.5) * 2 ^ (uniform() * 30 - 15) end, n)
      local codes, back = ffi.new("uint16_t[?]", n), ffi.new("float[?]", n)
      local err = engine.error_buffer()
      engine.check(lib.rv_half_encode(values, codes, n, err), err)
      lib.rv_half_decode(codes, back, n)
      for i = 0, n - 1 do
         local bound = math.max(math.abs(values[i]) * 2 ^ -11, 2 ^ -25)
         assert(math.abs(values[i] - back[i]) <= bound, ("%.9g -> %.9g"):format(values[i], back[i]))
      end
   end)

   it("refuses a finite value beyond 65504, naming element, value and limit", function()
      for _, case in ipairs({ { 0, 65505 }, { 5, -1e6 }, { 12, 65504.004 } }) do
         local values, codes = ffi.new("float[13]"), ffi.new("uint16_t[13]")
         local err = engine.error_buffer()
         values[case[1]] = case[2]
         assert.equal(lib.RV_ERR_RANGE, tonumber(lib.rv_half_encode(values, codes, 13, err)))
         local message = engine.message(err)
         assert.truthy(message:find("element " .. case[1] .. " ", 1, true), message)
         assert.truthy(message:find("65504", 1, true), message)
         assert.equal(lib.RV_ERR_RANGE, tonumber(lib.rv_half_encode(values, codes, 13, nil)))
      end
   end)

   it("takes the largest value, infinity and no values at all", function()
      local codes = ffi.new("uint16_t[3]")
      local values = engine.floats({ 65504, -math.huge, -65504 })
      assert.equal(lib.RV_OK, tonumber(lib.rv_half_encode(values, codes, 3, nil)))
      assert.same({ 0x7BFF, 0xFC00, 0xFBFF }, { codes[0], codes[1], codes[2] })
      assert.equal(lib.RV_OK, tonumber(lib.rv_half_encode(values, codes, 0, nil)))
   end)
end)

describe("int8 codes", function()
   local function round_trip(values, dim)
      local codes, back = ffi.new("int8_t[?]", dim), ffi.new("float[?]", dim)
      local scale = lib.rv_int8_encode(values, codes, dim)
      lib.rv_int8_decode(codes, scale, back, dim)
      return scale, codes, back
   end

   it("put the largest element at 127 and every other within half a step", function()
      for _, factor in ipairs({ 1, 1e-30, 1e30, 3e38 }) do
         local dim, max = 300, 0
         local values = engine.floats(function() return (uniform() * 2 - 1) * factor end, dim)
         for i = 0, dim - 1 do max = math.max(max, math.abs(values[i])) end
         local scale, codes, back = round_trip(values, dim)
         assert.near(1, scale * 127 / max, 1e-6)
         local extreme = 0
         for i = 0, dim - 1 do
            extreme = math.max(extreme, math.abs(codes[i]))
            assert(math.abs(values[i] - back[i]) <= scale * 0.50001)
         end
         assert.equal(127, extreme)
      end
   end)

   it("never use -128", function()
      local _, codes = round_trip(engine.floats({ -1, 1, -0.999999 }), 3)
      assert.same({ -127, 127, -127 }, { codes[0], codes[1], codes[2] })
   end)

   it("give a zero vector scale 0 and zeros back", function()
      local scale, codes, back = round_trip(engine.floats({ 0, 0, 0 }), 3)
      assert.equal(0, scale)
      for i = 0, 2 do assert.is_true(codes[i] == 0 and back[i] == 0) end
   end)

   it("stay within the code's range for elements near the smallest float", function()
      for exponent = -149, -120 do
         local x = 2 ^ exponent
         local scale, codes, back = round_trip(engine.floats({ x, -x, x / 2 }), 3)
         assert(codes[0] >= 0 and codes[0] <= 127 and codes[1] == -codes[0])
         assert(math.abs(back[0] - x) <= math.max(x / 127, 2 ^ -142), ("2^%d"):format(exponent))
         assert(scale >= 0)
      end
   end)

   it("give the distances of the decoded vector", function()
      local dim = 100
      local query = engine.floats(function() return uniform() - 0.5 end, dim)
      local values = engine.floats(function() return uniform() - 0.5 end, dim)
      local scale, codes, back = round_trip(values, dim)
      local kernels = lib.rv_kernels_active()
      assert.near(kernels.l2_squared(query, back, dim),
         kernels.l2_squared_int8(query, codes, scale, dim), 1e-4)
      assert.near(kernels.inner_product(query, back, dim),
         kernels.inner_product_int8(query, codes, scale, dim), 1e-4)
      assert.near(kernels.l1(query, back, dim), kernels.l1_int8(query, codes, scale, dim), 1e-4)
   end)
end)

local function encoded(x, dim, planes)
   local high, rest = ffi.new("int8_t[?]", dim), ffi.new("int8_t[?]", planes * dim)
   return lib.rv_fixed_encode(x, high, rest, planes, dim), high, rest
end

for _, kernels in ipairs(levels) do
   describe("fixed point, " .. ffi.string(kernels.name) .. ",", function()
      -- planes, and the exponent of the bound of the error
      for planes, bits in pairs { [2] = -23, [3] = -30 } do
         it(("in %d planes is within 2^%d of the largest element"):format(planes, bits), function()
            local dim = 67
            local x, back = ffi.new("float[?]", dim), ffi.new("float[?]", dim)
            for _ = 1, 300 do
               local size, largest = 2 ^ (200 * uniform() - 100), 0
               for i = 0, dim - 1 do
                  x[i] = (uniform() - 0.5) * size
                  largest = math.max(largest, math.abs(x[i]))
               end
               local scale, high, rest = encoded(x, dim, planes)
               kernels.from_fixed(high, rest, planes, scale, back, dim)
               -- What comes back is rounded itself, once or twice.
               for i = 0, dim - 1 do
                  assert(math.abs(back[i] - x[i]) <= largest * 2 ^ bits + math.abs(x[i]) * 2 ^ -23)
               end
            end
         end)
      end

      it("in 3 planes gives large elements back as they were", function()
         -- NEON has it, but not where it is emulated.
         local fused = kernels.level == lib.RV_SIMD_AVX2 or kernels.level == lib.RV_SIMD_AVX512
         local dim, large = 301, 0
         local x, back = ffi.new("float[?]", dim), ffi.new("float[?]", dim)
         for _ = 1, 1000 do
            local size = 2 ^ (200 * uniform() - 100)
            for i = 0, dim - 1 do x[i] = (uniform() - 0.5) * size end
            x[0] = size / 2
            local scale, high, rest = encoded(x, dim, 3)
            kernels.from_fixed(high, rest, 3, scale, back, dim)
            for i = 0, dim - 1 do
               if math.abs(x[i]) >= size / 62 then
                  large = large + 1
                  assert(math.abs(back[i] - x[i]) <= (fused and 0 or math.abs(x[i]) * 2 ^ -23))
               end
            end
         end
         assert.is_true(large > 200000)
      end)
   end)
end

describe("fixed point", function()
   it("has the int8 code as its high part, or its neighbour where it lies between two", function()
      for planes = 2, 3 do
         local x = engine.floats(function() return uniform() - 0.5 end, 40)
         local code = ffi.new("int8_t[40]")
         local scale, high = encoded(x, 40, planes)
         assert.equal(lib.rv_int8_encode(x, code, 40), scale)
         for i = 0, 39 do
            assert(code[i] == high[i] or math.abs(math.abs(x[i] / scale - high[i]) - 0.5) < 0.003)
         end
      end
   end)

   it("has no scale for a zero vector", function()
      local zero, x = ffi.new("float[40]"), ffi.new("float[40]", 1)
      local scale, high, rest = encoded(zero, 40, 3)
      assert.equal(0, scale)
      lib.rv_fixed_decode(high, rest, 3, scale, x, 40)
      for i = 0, 39 do assert.equal(0, x[i]) end
   end)
end)

describe("a direction in 16 bits", function()
   local function encode(values)
      local dim = #values
      local out = ffi.new("int16_t[?]", dim)
      return lib.rv_wide_encode(engine.floats(values), out, dim), out
   end

   it("is within half a unit of the direction in every element, at every length", function()
      for _, scale in ipairs { 1e-40, 1e-25, 1e-3, 1, 1e10, 1e25, 1e38 } do
         local values, squares = {}, 0
         for i = 1, 37 do values[i] = (2 * uniform() - 1) * scale end
         local floats = engine.floats(values)
         for i = 0, 36 do squares = squares + floats[i] ^ 2 end
         local length, out = encode(values)
         assert.near(1, length / math.sqrt(squares), 1e-5)
         for i = 0, 36 do
            assert.near(32767 * floats[i] / math.sqrt(squares), out[i], 0.51, "at " .. scale)
         end
      end
   end)

   it("holds a direction along an axis, and leaves a zero vector zero", function()
      local length, out = encode { 0, -3e38, 0 }
      assert.near(1, length / 3e38, 1e-6)
      assert.same({ 0, -32767, 0 }, { out[0], out[1], out[2] })
      length, out = encode { 0, 0, 0 }
      assert.equal(0, length)
      assert.same({ 0, 0, 0 }, { out[0], out[1], out[2] })
   end)

   it("has no length where an element is no number", function()
      for _, wrong in ipairs { 0 / 0, math.huge, -math.huge } do
         local length = encode { 1, wrong, 2 }
         assert.is_false(length < math.huge)
      end
   end)
end)
