-- Drift: alarms when something has changed, and hardly ever when nothing has.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local function generator(seed)
   local rng = ffi.new("rv_prng")
   lib.rv_prng_seed(rng, seed)
   return function() return lib.rv_prng_uniform(rng) end
end

local function floats(count, draw)
   local out = ffi.new("float[?]", count)
   for i = 0, count - 1 do out[i] = draw() end
   return out
end

-- How many of `times` tries raise an alarm.
local function alarms(times, try)
   local count = 0
   for i = 1, times do
      if try(i) then count = count + 1 end
   end
   return count
end

describe("a share that may have grown", function()
   it("raises an alarm when it has", function()
      assert.is_true(lib.rv_drift_share(20, 30, 50, 500, 0.1))
      assert.is_true(lib.rv_drift_share(10, 20, 0, 500, 0.1))
   end)

   it("raises none for a change that is small, unsure or downwards", function()
      assert.is_false(lib.rv_drift_share(600, 1000, 5500, 10000, 0.1)) -- sure, but small
      assert.is_false(lib.rv_drift_share(6, 20, 100, 500, 0.1))        -- large, but not sure
      assert.is_false(lib.rv_drift_share(0, 100, 400, 500, 0.1))
      assert.is_false(lib.rv_drift_share(19, 19, 0, 500, 0.1))
      assert.is_false(lib.rv_drift_share(500, 500, 0, 19, 0.1))
   end)

   it("goes by the exact chance where counts are small", function()
      -- 3 of 3 among 20 of 110 by luck: C(20, 3) / C(110, 3) = 0.005; 5 of 5: 0.0001266; 6 of 6: 0.0000181
      assert.is_false(lib.rv_drift_share(3, 20, 0, 90, 0.1))
      assert.is_false(lib.rv_drift_share(5, 20, 0, 90, 0.1))
      assert.is_true(lib.rv_drift_share(6, 20, 0, 90, 0.1))
      assert.is_true(lib.rv_drift_share(5, 20, 0, 100, 0.1)) -- 0.0000814
   end)

   it("hardly ever raises one in a stream that is looked at after each case", function()
      local random = generator(8)
      local function hit() return random() < 0.04 and 1 or 0 end
      local count = alarms(2000, function()
         local former, recent = 0, 0
         for _ = 1, 90 do former = former + hit() end
         for n = 1, 100 do
            recent = recent + hit()
            if lib.rv_drift_share(recent, n, former, 90, 0.15) then return true end
         end
         return false
      end)
      assert.is_true(count <= 6, count .. " false alarms")
   end)

   it("hardly ever raises one when nothing changed", function()
      local random = generator(5)
      local count = alarms(2000, function()
         local recent, former = 0, 0
         for _ = 1, 40 do recent = recent + (random() < 0.2 and 1 or 0) end
         for _ = 1, 400 do former = former + (random() < 0.2 and 1 or 0) end
         return lib.rv_drift_share(recent, 40, former, 400, 0.1)
      end)
      assert.is_true(count <= 10, count .. " false alarms")
   end)
end)

describe("a distribution that may have moved", function()
   it("raises an alarm when it has", function()
      local random = generator(6)
      local count = alarms(50, function()
         return lib.rv_drift_distribution(floats(60, function() return random() + 0.5 end), 60,
            floats(500, random), 500)
      end)
      assert.equal(50, count)
   end)

   it("hardly ever raises one when it has not, ties or not", function()
      local random = generator(7)
      for _, draw in ipairs { random, function() return math.floor(random() * 4) end } do
         local count = alarms(1000, function()
            return lib.rv_drift_distribution(floats(60, draw), 60, floats(500, draw), 500)
         end)
         assert.is_true(count <= 8, count .. " false alarms")
      end
   end)

   it("says nothing of few", function()
      local ones, zeros = floats(19, function() return 1 end), floats(100, function() return 0 end)
      assert.is_false(lib.rv_drift_distribution(ones, 19, zeros, 100))
      assert.is_false(lib.rv_drift_distribution(zeros, 100, ones, 19))
   end)
end)

describe("recall that may be short", function()
   it("raises an alarm when it is", function()
      local random = generator(8)
      local count = alarms(50, function()
         return lib.rv_drift_recall(floats(60, function() return random() < 0.5 and 1 or 0.7 end), 60, 0.95,
            0.005)
      end)
      assert.is_true(count >= 45, count .. " alarms")
   end)

   it("hardly ever raises one when it is not", function()
      local random = generator(9)
      local count = alarms(2000, function()
         return lib.rv_drift_recall(floats(60, function() return random() < 0.75 and 1 or 0.8 end), 60, 0.95,
            0.005)
      end)
      assert.is_true(count <= 30, count .. " false alarms")
      assert.is_false(lib.rv_drift_recall(floats(19, function() return 0 end), 19, 0.95, 0.005))
   end)
end)
