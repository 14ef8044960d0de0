-- distillation.lua, run by the host as the worker runs it.

local engine = require("ruvector.engine")
local policy_host = require("support.policy_host")
local ffi, lib = engine.ffi, engine.lib
local TARGETS = policy_host.TARGETS

local rng = ffi.new("rv_prng")
local function seed(n) lib.rv_prng_seed(rng, n) end
local function normal() return lib.rv_prng_normal(rng) end

-- One search: ten true neighbours, each needing a slack around `hardness`; the query near `centre`.
local function search(hardness, centre)
   local slacks, distances, efs = {}, {}, {}
   for j = 1, 10 do
      slacks[j] = math.max(0, hardness * (math.exp(0.8 * normal()) - 0.4))
   end
   table.sort(slacks)
   for j, slack in ipairs(slacks) do
      distances[j], efs[j] = math.floor(100 + 1000 * slack), math.floor(10 + 300 * slack)
   end
   centre = centre or { 0, 0 }
   local query = { centre[1] + 0.3 * normal(), centre[2] + 0.3 * normal() }
   return { query = query, slacks = slacks, distances = distances, efs = efs }
end

local function searches(count, hardness, centre)
   local list = {}
   for i = 1, count do list[i] = search(hardness or 0.1, centre) end
   return list
end

local function recall_at(sample, slack)
   local found = 0
   for _, needed in ipairs(sample.slacks) do
      if needed <= slack then found = found + 1 end
   end
   return found / #sample.slacks
end

local function mean_recall(samples, slack)
   local sum = 0
   for _, sample in ipairs(samples) do sum = sum + recall_at(sample, slack) end
   return sum / #samples
end

local function index_of(patterns)
   assert.equal("index", patterns[1].scope)
   return patterns[1]
end

describe("distillation", function()
   local host, built_in
   setup(function()
      host, built_in = policy_host.new(), policy_host.new()
      assert.equal("ok", (host:load("policies")))
   end)
   teardown(function()
      host:destroy()
      built_in:destroy()
      policy_host.clean()
   end)
   before_each(function() seed(5) end)

   local function distill_with(which, samples, options)
      local patterns, cause, failure = which:distill(policy_host.batch(samples, options))
      assert.equal(which == built_in and "missing" or "ok", cause, failure.reason)
      return patterns
   end
   local function distill(samples, options) return distill_with(host, samples, options) end

   -- A host whose distillation has other defaults, e.g. { safety = 0 }.
   local function edited(changes)
      local text = assert(io.open("policies/distillation.lua")):read("*a")
      for name, value in pairs(changes) do
         local count
         text, count = text:gsub("(\n      " .. name .. " = )[%d.]+", "%1" .. value)
         assert.equal(1, count)
      end
      local other = policy_host.new()
      local cause, failure = other:load(policy_host.directory({ distillation = text }))
      assert.equal("ok", cause, failure.reason)
      return other
   end

   describe("with too few samples", function()
      it("teaches nothing", function()
         assert.same({}, distill(searches(99), { min_samples = 100 }))
         assert.same({}, distill_with(built_in, searches(99), { min_samples = 100 }))
         assert.equal(1, #distill(searches(100), { min_samples = 100 }))
      end)
      it("teaches nothing from an empty batch, whatever the minimum", function()
         assert.same({}, distill({}, { min_samples = 0 }))
         assert.same({}, distill_with(built_in, {}, { min_samples = 0 }))
      end)
   end)

   describe("makes an index-wide pattern", function()
      it("whose slack for a target is the quantile of the pooled needs", function()
         local plain, samples = edited({ safety = 0 }), searches(150)
         local pool = ffi.new("double[?]", 1500)
         local index = index_of(distill_with(plain, samples))
         for row, target in ipairs(TARGETS) do
            for i, sample in ipairs(samples) do
               for j, slack in ipairs(sample.slacks) do pool[(i - 1) * 10 + j - 1] = slack end
            end
            local expected = ffi.new("double[1]")
            engine.check(lib.rv_quantile(pool, nil, 1500, target, expected, nil))
            assert.near(expected[0], index.table_slack[row], 1e-6)
         end
         plain:destroy()
      end)

      it("whose table says the recall that its slack reaches on the samples", function()
         local samples = searches(150)
         local index = index_of(distill(samples))
         for row, target in ipairs(TARGETS) do
            -- the table is kept in single precision
            local reached = mean_recall(samples, index.table_slack[row] * (1 + 1e-6))
            assert.near(reached, index.table_recall[row], 2e-3)
            assert.is_true(index.table_recall[row] >= target)
         end
      end)

      it("that gives searches it never saw the declared recall, and little more", function()
         local over = { [0.9] = 0, [0.95] = 0, [0.98] = 0, [0.99] = 0 }
         local rounds = 60
         for _ = 1, rounds do
            local index = index_of(distill(searches(150)))
            local unseen = searches(150)
            for row, target in ipairs(TARGETS) do
               if over[target] then
                  local reached = mean_recall(unseen, index.table_slack[row])
                  over[target] = over[target] + (reached - target) / rounds
               end
            end
         end
         for target, mean in pairs(over) do
            assert.is_true(mean > 0, target .. " is missed by " .. -mean)
            assert.is_true(mean < 0.35 * (1 - target), target .. " is passed by " .. mean)
         end
      end)

      it("in which a sample counts once, however many neighbours it has", function()
         local plain, samples = edited({ safety = 0 }), {}
         for i = 1, 90 do samples[i] = { query = { 0 }, slacks = { 0.1 } } end
         for i = 91, 100 do
            samples[i] = { query = { 0 }, slacks = { 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5 } }
         end
         local index = index_of(distill_with(plain, samples))
         assert.near(0.1, index.table_slack[5], 1e-6) -- 0.90: half of all neighbours, a tenth of the samples
         assert.near(0.5, index.table_slack[6], 1e-6) -- 0.93
         plain:destroy()
      end)

      it("that takes the highest known effort where a target is out of reach, and says so", function()
         local samples = {}
         for i = 1, 100 do
            samples[i] = { query = { 0 }, slacks = { 0.1, 0.2, 0.3, i <= 50 and 0.4 or math.huge } }
         end
         local index = index_of(distill(samples)) -- at most 0.875 can be reached
         assert.near(0.4, index.table_slack[4], 1e-6)
         for row = 5, 12 do
            assert.near(0.4, index.table_slack[row], 1e-6)
            assert.near(0.875, index.table_recall[row], 1e-6)
            assert.equal(50, index.table_ef[row])
         end
      end)

      it("that survives samples in which nothing was found", function()
         local samples = {}
         for i = 1, 20 do samples[i] = { query = { 0 }, slacks = { math.huge, math.huge } } end
         for _, which in ipairs({ host, built_in }) do
            local index = index_of(distill_with(which, samples))
            assert.equal(0, index.table_slack[12])
            assert.equal(10, index.table_ef[12])
            assert.equal(0, index.table_recall[12])
         end
      end)

      it("from failures and successes alike", function()
         local samples = searches(150)
         local plain = index_of(distill(samples))
         for i, sample in ipairs(samples) do sample.success, sample.confidence = i % 2 == 0, i % 3 / 3 end
         assert.same(plain, index_of(distill(samples)))
      end)

      it("in which a sample of one half-life counts half", function()
         local plain, samples = edited({ safety = 0 }), {}
         for i = 1, 50 do samples[i] = { query = { 0 }, slacks = { 0.1 } } end
         for i = 51, 80 do samples[i] = { query = { 0 }, slacks = { 0.7 }, age_s = 14 * 86400 } end
         -- weights 50 and 15: 77% at 0.1; unweighted it would be 62%
         local index = index_of(distill_with(plain, samples))
         assert.near(0.1, index.table_slack[2], 1e-6) -- 0.70
         assert.near(0.7, index.table_slack[3], 1e-6) -- 0.80
         plain:destroy()
      end)

      it("with the headline at the declared target, and the batch's facts", function()
         local samples = searches(120)
         local index = index_of(distill(samples, { target_recall = 0.98, epoch = 77, now_us = 123456 }))
         assert.near(index.table_slack[9], index.slack, 1e-7)
         assert.equal(index.table_ef[9], index.ef_search)
         assert.near(index.table_recall[9], index.expected_recall, 1e-6)
         assert.equal(77, index.epoch)
         assert.equal(123456, index.created_us)
         assert.equal(120, index.samples)
         assert.equal(10, index.k)
         assert.equal(0, index.radius)
         assert.same({ 0, 0 }, index.centroid)
         assert.near(120 / 220, index.confidence, 1e-6)
         local sum = 0
         for _, sample in ipairs(samples) do
            local found = recall_at(sample, index.slack * (1 + 1e-6)) * 10
            sum = sum + sample.distances[math.floor(found + 0.5)]
         end
         assert.near(sum / 120, index.mean_distances, 0.02 * sum / 120)
      end)

      it("whose entry points are the most frequent of the nearest nodes", function()
         local samples = searches(100)
         for i, sample in ipairs(samples) do
            sample.nearest = { 1000 + i, 7, i % 2 == 0 and 5 or 2000 + i, i % 4 == 0 and 9 or 3000 + i }
         end
         local points = index_of(distill(samples)).entry_points
         assert.equal(8, #points)
         assert.same({ 7, 5, 9 }, { points[1], points[2], points[3] })
      end)

      it("the same as the built-in does", function()
         for _, options in ipairs({ { count = 40 }, { count = 150 }, { count = 199, metric = 3 } }) do
            local samples = searches(options.count)
            for i, sample in ipairs(samples) do
               sample.age_s, sample.nearest = 86400 * (i % 30), { i % 9 }
               if i % 10 == 0 then sample.slacks[10] = math.huge end
            end
            local mine = index_of(distill(samples, { metric = options.metric }))
            local theirs = distill_with(built_in, samples, { metric = options.metric })
            assert.equal(1, #theirs)
            assert.same(mine, theirs[1])
         end
      end)
   end)

   describe("corrects regions", function()
      -- An easy and a hard region, far apart.
      local function two_regions(count)
         local samples = {}
         for i = 1, count do
            samples[i] = i % 2 == 0 and search(0.05, { -5, 0 }) or search(0.25, { 5, 0 })
         end
         return samples
      end
      local function sides(patterns) -- easy, hard; only these two
         assert.equal(3, #patterns)
         local easy, hard = patterns[2], patterns[3]
         if easy.centroid[1] > 0 then easy, hard = hard, easy end
         return easy, hard
      end

      it("from two clusters on, with a table between their own and the index-wide one", function()
         local two = edited({ max_clusters = 2 })
         local patterns = distill_with(two, two_regions(400))
         local easy, hard = sides(patterns)
         assert.near(-5, easy.centroid[1], 0.2)
         assert.near(5, hard.centroid[1], 0.2)
         assert.equal(200, easy.samples)
         for row = 5, 11 do
            assert.is_true(easy.table_slack[row] < patterns[1].table_slack[row])
            assert.is_true(hard.table_slack[row] > patterns[1].table_slack[row] - 0.02)
            assert.is_true(easy.table_ef[row] < hard.table_ef[row])
         end
         two:destroy()
      end)

      it("the more, the more samples they have", function()
         local two = edited({ max_clusters = 2 })
         local function ratio(count)
            local easy, hard = sides(distill_with(two, two_regions(count)))
            return (1 + hard.table_slack[7]) / (1 + easy.table_slack[7])
         end
         local few, many = ratio(200), ratio(6000)
         assert.is_true(many > 1 + 2 * (few - 1))
         two:destroy()
      end)

      it("and measures, on searches that took no part in it, whether that pays", function()
         local two = edited({ max_clusters = 2 })
         -- Slack costs ten times as much in the easy region, where less of it would do.
         local function region_work(samples)
            for _, sample in ipairs(samples) do
               local cost = sample.query[1] < -2 and 10000 or 1000
               sample.work = function(slack) return 100 + cost * slack end
            end
            local _, _, _, work = two:distill(policy_host.batch(samples))
            return work
         end
         -- in pairs, since every other search checks what the others taught
         local pairs_of_regions = {}
         for i = 1, 2000 do
            pairs_of_regions[i] = i % 4 < 2 and search(0.05, { -5, 0 }) or search(0.25, { 5, 0 })
         end
         local differing = region_work(pairs_of_regions)
         assert.is_true(differing < 0.97, "work " .. differing)
         local alike = region_work(searches(2000))
         assert.is_true(alike > 0.98 and alike < 1.1, "work " .. alike)
         two:destroy()
      end)

      it("and calls it even when it cannot be measured", function()
         local _, _, _, work = host:distill(policy_host.batch(two_regions(400)))
         assert.equal(1, work)
         _, _, _, work = built_in:distill(policy_host.batch(two_regions(400)))
         assert.equal(1, work)
      end)

      it("hardly at all where regions do not differ", function()
         local patterns = distill(searches(1000))
         assert.equal(11, #patterns)
         for i = 2, 11 do
            for row = 1, 9 do
               assert.near(patterns[1].table_slack[row], patterns[i].table_slack[row], 0.03)
            end
         end
      end)

      it("so that the mean recall of searches it never saw stays what was declared", function()
         local two = edited({ max_clusters = 2 })
         local row, target, rounds, mean = 8, 0.97, 40, 0
         for _ = 1, rounds do
            local easy, hard = sides(distill_with(two, two_regions(400)))
            local unseen, sum = two_regions(200), 0
            for _, sample in ipairs(unseen) do
               local region = sample.query[1] < 0 and easy or hard
               sum = sum + recall_at(sample, region.table_slack[row])
            end
            mean = mean + sum / #unseen / rounds
         end
         assert.is_true(mean > target - 0.001 and mean < target + 0.012, mean)
         two:destroy()
      end)

      it("so that small clusters that believe too much in themselves do not cost recall", function()
         local eager = edited({ shrink = 1, samples_per_cluster = 25, min_cluster_samples = 1, safety = 0 })
         local row, target, rounds, mean = 9, 0.98, 12, 0
         for _ = 1, rounds do
            local patterns = distill_with(eager, searches(500))
            local unseen, sum = searches(500), 0
            for _, sample in ipairs(unseen) do
               local nearest, least
               for i = 2, #patterns do
                  local c = patterns[i].centroid
                  local d = (c[1] - sample.query[1]) ^ 2 + (c[2] - sample.query[2]) ^ 2
                  if not least or d < least then nearest, least = patterns[i], d end
               end
               sum = sum + recall_at(sample, nearest.table_slack[row])
            end
            mean = mean + sum / #unseen / rounds
         end
         assert.is_true(mean >= target, mean)
         eager:destroy()
      end)

      it("only where enough samples lie", function()
         local samples = searches(380, 0.1, { 0, 0 })
         for _ = 1, 20 do samples[#samples + 1] = search(0.1, { 50, 50 }) end
         for _, pattern in ipairs(distill(samples)) do
            assert.is_true(pattern.scope == "index" or pattern.centroid[1] < 10)
            assert.is_true(pattern.samples >= 30)
         end
      end)

      it("with a radius that holds nine in ten of their samples", function()
         local two, samples = edited({ max_clusters = 2 }), two_regions(400)
         local easy = sides(distill_with(two, samples))
         local inside = 0
         for i = 2, 400, 2 do
            local x, y = samples[i].query[1] - easy.centroid[1], samples[i].query[2] - easy.centroid[2]
            if math.sqrt(x * x + y * y) <= easy.radius * (1 + 1e-5) then inside = inside + 1 end
         end
         assert.near(180, inside, 1)
         two:destroy()
      end)

      it("with entry points of their own, and centroids of unit length under cosine", function()
         local samples = {}
         for i = 1, 400 do
            samples[i] = search(0.1, i % 2 == 0 and { 5, 0 } or { 0, 5 })
            samples[i].nearest = { i % 2 == 0 and 42 or 43 }
         end
         local two = edited({ max_clusters = 2 })
         local patterns = distill_with(two, samples, { metric = 3 })
         for i = 2, 3 do
            local p = patterns[i]
            assert.near(1, math.sqrt(p.centroid[1] ^ 2 + p.centroid[2] ^ 2), 1e-5)
            assert.same({ p.centroid[1] > p.centroid[2] and 42 or 43 }, p.entry_points)
            assert.is_true(p.radius > 0 and p.radius < 0.5)
         end
         two:destroy()
      end)

      it("under every metric", function()
         for metric = 1, 4 do
            local patterns = distill(two_regions(400), { metric = metric })
            assert.is_true(#patterns > 2)
         end
      end)
   end)

   it("gives equal patterns for equal samples", function()
      local samples = searches(500)
      assert.same(distill(samples), distill(samples))
   end)

   it("takes 10,000 samples within its budget", function()
      local patterns = distill(searches(10000))
      assert.is_true(#patterns > 10 and #patterns <= 17)
   end)
end)
