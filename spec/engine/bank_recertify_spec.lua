-- bank_recertify_spec.lua - patterns of another build of an index, checked against searches traced on
-- the present one before they serve.

local engine = require("ruvector.engine")
local B = require("support.bank")
local ffi, lib = engine.ffi, engine.lib

local err = engine.error_buffer()
local L2 = lib.RV_METRIC_L2
local OLD, NEW, NOW = 77, 88, 5000000
local UNREACHED = 4294967295

-- A search with ten true neighbours whose needed slack is uniform in 0 to `hardest`.
local keep = {}
local function search(random, query, hardest, k, unreached)
   local efforts = ffi.new("rv_effort[10]")
   for i = 0, 9 do
      efforts[i].slack, efforts[i].ef = hardest * random.uniform(), 10 + random.below(40)
      efforts[i].distances = 300
      if i < (unreached or 0) then efforts[i].slack, efforts[i].ef = 1 / 0, UNREACHED end
   end
   keep[#keep + 1], keep[#keep + 2] = query, efforts
   return { query = query, efforts = efforts, count = 10, k = k or 10 }
end

local function recertify(bank, searches, allocator)
   local traced = ffi.new("rv_traced_search[?]", math.max(#searches, 1), searches)
   local out = ffi.new("rv_recertified")
   local status = lib.rv_bank_recertify(bank, NEW, NOW, traced, #searches, out, err)
   if not allocator then engine.check(status, err) end
   return out, status
end

-- A curve that reaches the grid's recalls with slack = 0.2 x recall.
local function curve(fields)
   local p = B.pattern(fields)
   for i = 0, B.TARGETS - 1 do
      local target = lib.rv_target_grid()[i]
      p.table_slack[i], p.table_ef[i], p.table_recall[i] = 0.2 * target, 60, target
   end
   p.entry_count = 2
   return p
end

local function bank_with_prior(allocator)
   local bank = B.new(L2, 2, 100, allocator)
   B.put(bank, curve { scope = lib.RV_PATTERN_INDEX, radius = 0, index_epoch = OLD, usage = 9,
      confidence = 0.8, samples = 500 })
   return bank
end

local function searches_at(count, random, hardest, x, y, k, unreached)
   local list = {}
   for i = 1, count do list[i] = search(random, engine.floats { x or 0, y or 0 }, hardest, k, unreached) end
   return list
end

describe("patterns of another build", function()
   local random
   before_each(function() random, keep = B.random(3), {} end)

   it("wait until there are enough searches of their k", function()
      local bank = bank_with_prior()
      local before = B.contents(bank)
      recertify(bank, {})
      recertify(bank, searches_at(29, random, 0.2))
      local other_k = searches_at(40, random, 0.2, 0, 0, 20)
      local out = recertify(bank, other_k)
      assert.equal(0, out.taken + out.dropped)
      assert.equal(before, B.contents(bank))
   end)

   it("are taken as they are when the searches agree with them", function()
      local bank = bank_with_prior()
      local out = recertify(bank, searches_at(200, random, 0.19))
      assert.equal(1, out.taken)
      local p = lib.rv_bank_index_pattern(bank)
      assert.equal(NEW, tonumber(p.index_epoch))
      assert.equal(9, tonumber(p.usage))
      assert.equal(200, p.samples)
      assert.equal(0, p.entry_count)
      assert.equal(NOW, tonumber(p.updated_us))
      for i = 0, B.TARGETS - 1 do assert.near(0.2 * lib.rv_target_grid()[i], p.table_slack[i], 1e-3) end
   end)

   it("are widened by one factor until they reach their recalls, and promise what was measured", function()
      local bank = bank_with_prior()
      local searches = searches_at(100, random, 1)
      recertify(bank, searches)
      local p = lib.rv_bank_index_pattern(bank)
      local factor = (1 + p.table_slack[0]) / (1 + 0.2 * 0.5)
      for i = 0, B.TARGETS - 1 do
         local target, within = lib.rv_target_grid()[i], 0
         assert.near(factor, (1 + p.table_slack[i]) / (1 + 0.2 * target), 1e-5)
         for _, s in ipairs(searches) do
            for j = 0, 9 do if s.efforts[j].slack <= p.table_slack[i] then within = within + 1 end end
         end
         assert.near(within / 1000, p.table_recall[i], 1e-6)
         if (1 - target) * 1000 >= 3 then assert.is_true(p.table_recall[i] >= target) end
      end
      assert.is_true(factor > 1.6 and factor < 1.8, factor)
      assert.is_true(p.confidence < 0.8)
   end)

   it("are not narrowed on the word of a few searches", function()
      local bank = bank_with_prior()
      recertify(bank, searches_at(50, random, 0.01))
      assert.near(0.2 * 0.95, lib.rv_bank_index_pattern(bank).table_slack[6], 1e-6)
   end)

   it("need not reach what this index cannot reach", function()
      local bank = bank_with_prior()
      local out = recertify(bank, searches_at(100, random, 0.19, 0, 0, 10, 1))
      assert.equal(1, out.taken)
      assert.near(0.9, lib.rv_bank_index_pattern(bank).table_recall[11], 0.02)
   end)

   it("are left alone when they would have to be widened beyond reason", function()
      local bank = bank_with_prior()
      local before = B.contents(bank)
      assert.equal(0, recertify(bank, searches_at(100, random, 20)).taken)
      assert.equal(before, B.contents(bank))
   end)

   it("of a region are checked by the searches within it, or dropped", function()
      local bank = bank_with_prior()
      local near = B.put(bank, curve { index_epoch = OLD, radius = 1 }, engine.floats { 5, 5 })
      B.put(bank, curve { index_epoch = OLD, radius = 1 }, engine.floats { -5, 5 })
      local own = B.put(bank, curve { index_epoch = NEW, radius = 1 }, engine.floats { 9, 9 })
      local searches = searches_at(30, random, 0.2)
      for _, s in ipairs(searches_at(10, random, 0.6, 5, 5.5)) do searches[#searches + 1] = s end
      for _, s in ipairs(searches_at(9, random, 0.2, -5, 5)) do searches[#searches + 1] = s end
      local out = recertify(bank, searches)
      assert.equal(2, out.taken)
      assert.equal(1, out.dropped)
      assert.equal(3, B.check(bank))
      local regions = { lib.rv_bank_get(bank, 1, nil), lib.rv_bank_get(bank, 2, nil) }
      assert.same({ near, own }, { tonumber(regions[1].id), tonumber(regions[2].id) })
      assert.equal(NEW, tonumber(regions[1].index_epoch))
      assert.equal(10, regions[1].samples)
      assert.is_true(regions[1].table_slack[6] > lib.rv_bank_index_pattern(bank).table_slack[6])
   end)

   it("without an index-wide pattern are of no use", function()
      local bank = B.new(L2, 2)
      B.put(bank, curve { index_epoch = OLD }, engine.floats { 0, 0 })
      local out = recertify(bank, searches_at(50, random, 0.2))
      assert.equal(0, out.taken + out.dropped)
   end)

   it("without memory are left as they were", function()
      local list = searches_at(40, random, 0.5)
      assert.is_true(B.fail_each_allocation(function(allocator, test)
         local calls, fail_at = test.calls, test.fail_at
         test.fail_at = 0 -- the bank itself is not the matter here
         local bank = bank_with_prior(allocator)
         local before = B.contents(bank)
         test.calls, test.fail_at = calls, fail_at
         local _, status = recertify(bank, list, allocator)
         if status ~= lib.RV_OK then assert.equal(before, B.contents(bank)) end
         lib.rv_bank_destroy(bank)
         return status
      end) >= 3)
   end)
end)
