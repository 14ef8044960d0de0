-- The plan: each way calibrated, compared at equal recall, and taken only where it pays.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local STATIC, SLACK, MEMORY = lib.RV_WAY_STATIC, lib.RV_WAY_SLACK, lib.RV_WAY_MEMORY
local K, SAMPLES = 10, 200
local grid = lib.rv_target_grid()
local WHICH = 6 -- the level of 0.95
local TARGETS = 12 -- levels of the grid

-- Samples with needed efforts spread evenly: slack s finds the share s of all neighbours, ef e finds
-- e / 200. cost: distances per unit of each way, flat beyond.
local function make_samples(cost, out_of_reach)
   local kept, samples = {}, ffi.new("rv_traced[?]", SAMPLES)
   for i = 0, SAMPLES - 1 do
      local efforts, memory = ffi.new("rv_effort[?]", K), ffi.new("rv_effort[?]", K)
      local work, memory_work = ffi.new("rv_work"), ffi.new("rv_work")
      for j = 0, K - 1 do
         local share = (j * SAMPLES + i + 1) / (K * SAMPLES)
         local lost = out_of_reach and share > 1 - out_of_reach
         efforts[j].slack, memory[j].slack = share, share / 2
         efforts[j].ef = math.ceil(200 * share)
         if lost then
            efforts[j].slack, memory[j].slack, efforts[j].ef = math.huge, math.huge, 0xFFFFFFFF
         end
      end
      for p = 0, ffi.sizeof(work.slack) / 4 - 1 do
         local slack = lib.rv_work_slack_grid()[p]
         work.slack[p] = cost.slack * slack
         memory_work.slack[p] = cost.memory * 2 * slack + (cost.lookup or 0)
      end
      for p = 0, ffi.sizeof(work.ef) / 4 - 1 do work.ef[p] = cost.static * lib.rv_work_ef_grid()[p] / 200 end
      local s = samples[i]
      s.efforts, s.work, s.count, s.weight = efforts, work, K, 1
      if cost.memory > 0 then s.memory_efforts, s.memory_work = memory, memory_work end
      for _, part in ipairs { efforts, memory, work, memory_work } do kept[#kept + 1] = part end
   end
   return { array = samples, kept = kept }
end

local function make(samples, changes, former)
   local options = ffi.new("rv_plan_options", {
      index_epoch = 7, now_us = 1, k = K, safety = 0, miss_ratio = 1, truth_recall = 1, region_work = 1,
      gain = 0.01, regret = 0.02,
   })
   for name, value in pairs(changes or {}) do options[name] = value end
   local plan, err = ffi.new("rv_plan"), engine.error_buffer()
   engine.check(lib.rv_plan_make(engine.allocator, samples.array, SAMPLES, options, former, plan, err), err)
   assert.equal(lib.RV_OK, tonumber(lib.rv_plan_check(plan, err)))
   return plan
end

local function choose(plan, target)
   local choice = ffi.new("rv_plan_choice")
   lib.rv_plan_choose(plan, target, choice)
   return choice
end

-- Searches of which a share is hard: they take `times` the distances for the same slack.
local function make_tailed(share, times)
   local made = make_samples { static = 2000, slack = 1000, memory = 0 }
   for i = 0, SAMPLES - 1 do
      local s = made.array[i]
      local factor = i % math.floor(1 / share) == 0 and times or 1
      local efforts, work = ffi.cast("rv_effort *", s.efforts), ffi.cast("rv_work *", s.work)
      for j = 0, K - 1 do efforts[j].distances = 1000 * factor * efforts[j].slack end
      for p = 0, ffi.sizeof(work.slack) / 4 - 1 do work.slack[p] = work.slack[p] * factor end
   end
   return made
end

local function mean_recall(samples, step)
   local sum = 0
   for i = 0, SAMPLES - 1 do
      sum = sum + lib.rv_traced_recall(samples.array[i], SLACK, step.effort, step.limit)
   end
   return sum / SAMPLES
end

describe("the limit on distances", function()
   it("ends the hardest searches, and the slack makes up for what they lose", function()
      local tailed = make_tailed(0.05, 8)
      local step = make(tailed).levels[WHICH].steps[SLACK]
      local even = make(make_tailed(0.05, 1)).levels[WHICH].steps[SLACK]
      assert.is_true(step.limit > 0 and step.limit < 8 * 1000 * grid[WHICH])
      assert.is_true(step.effort > even.effort)
      assert.is_true(mean_recall(tailed, step) >= grid[WHICH] - 1e-9)
      -- the mean without a limit: 0.95 of the searches take 1, the others 8 times as much
      assert.is_true(step.work <= 1.02 * 1000 * grid[WHICH] * (0.95 + 0.05 * 8))
   end)

   it("changes no slack where no search is far from the mean", function()
      local samples = make_tailed(0.05, 1)
      for i = 0, TARGETS - 1 do
         local step = make(samples).levels[i].steps[SLACK]
         assert.near(grid[i], step.effort, 0.006)
         assert.is_true(step.limit >= 2.4 * step.work)
      end
   end)

   it("is not set where a recall is out of reach under it, nor for one effort for all", function()
      local plan = make(make_tailed(0.02, 1000))
      assert.equal(0, plan.levels[TARGETS - 1].steps[SLACK].limit)
      assert.equal(0, plan.levels[WHICH].steps[STATIC].limit)
   end)

   it("lies between those of the levels around a target", function()
      local plan = make(make_tailed(0.05, 8))
      local low, high = plan.levels[WHICH - 1].steps[SLACK].limit, plan.levels[WHICH].steps[SLACK].limit
      local between = choose(plan, (grid[WHICH - 1] + grid[WHICH]) / 2).limit
      assert.is_true(low < between and between < high)
      assert.near(high, choose(plan, grid[WHICH]).limit, 1e-3)
   end)
end)

describe("plans for several numbers of rows", function()
   local ks = { 10, 100, 1, 30 } -- the most common first
   local set = ffi.new("rv_plan[4]")
   for i, k in ipairs(ks) do
      set[i - 1] = make(make_samples { static = 100 * k, slack = 90 * k, memory = 0 }, { k = k })
   end

   local function choose_rows(plans, count, rows)
      local choice, window = ffi.new("rv_plan_choice"), ffi.new("uint32_t[1]")
      local plan = lib.rv_plan_choose_rows(plans, count, rows, 0.95, choice, window)
      return plan.k, choice, window[0]
   end

   it("serve each its own, and a number between two as the larger", function()
      local cases = { [1] = 1, [2] = 10, [10] = 10, [11] = 30, [30] = 30, [31] = 100, [100] = 100 }
      for rows, expected in pairs(cases) do
         local k, choice, window = choose_rows(set, 4, rows)
         assert.equal(expected, k)
         assert.equal(expected, window)
         local own = choose(set[k == 10 and 0 or k == 100 and 1 or k == 1 and 2 or 3], 0.95)
         for _, field in ipairs { "effort", "slack", "static_ef", "static_work" } do
            assert.equal(own[field], choice[field], field)
         end
      end
   end)

   it("stretch the largest beyond it, ef and bounds with the rows, the slack as it is", function()
      local own = choose(set[1], 0.95)
      for _, case in ipairs { { 150, 1.5 }, { 800, 8 }, { 100000, 8 }, { 0xFFFFFFFF, 8 } } do
         local k, choice, window = choose_rows(set, 4, case[1])
         assert.equal(100, k)
         assert.equal(100 * case[2], window)
         assert.equal(own.way, choice.way)
         assert.equal(own.slack, choice.slack)
         assert.near(own.effort, choice.effort, 1e-9)
         assert.near(case[2] * own.static_ef, choice.static_ef, 1e-6)
         assert.near(case[2] * own.static_work, choice.static_work, 1e-6)
      end
      local static = ffi.new("rv_plan[1]", make(make_samples { static = 100, slack = 900, memory = 0 }))
      local _, choice, window = choose_rows(static, 1, 25)
      assert.equal(STATIC, tonumber(choice.way))
      assert.near(2.5 * choose(static[0], 0.95).effort, choice.effort, 1e-6)
      assert.equal(25, window)
   end)
end)

describe("the calibration of a plan", function()
   local plan = make(make_samples { static = 1000, slack = 900, memory = 800 })

   it("finds for each way the effort that reaches each target of the grid", function()
      for i = 0, 11 do
         local steps = plan.levels[i].steps
         assert.near(grid[i], steps[SLACK].effort, 1e-3)
         assert.near(grid[i] / 2, steps[MEMORY].effort, 1e-3)
         assert.near(math.ceil(200 * grid[i]), steps[STATIC].effort, 1)
         for way = 0, 2 do assert.near(grid[i], steps[way].recall, 6e-3) end
      end
   end)

   it("measures the work of each way at equal recall", function()
      for i = 0, 11 do
         local steps = plan.levels[i].steps
         assert.near(1000 * grid[i], steps[STATIC].work, 8)
         assert.near(900 * grid[i], steps[SLACK].work, 5)
         assert.near(800 * grid[i], steps[MEMORY].work, 5)
      end
   end)

   it("compares whole efforts at the recall itself, which lies between two", function()
      -- Five efforts only, as of an index with few lists: 0.95 lies at three quarters of the last step.
      local samples = make_samples { static = 1000, slack = 900, memory = 800 }
      for i = 0, SAMPLES - 1 do
         for j = 0, K - 1 do
            local effort = samples.array[i].efforts + j
            ffi.cast("rv_effort *", effort).ef = math.ceil(5 * effort.slack)
         end
         local work = ffi.cast("rv_work *", samples.array[i].work)
         for p = 0, ffi.sizeof(work.ef) / 4 - 1 do work.ef[p] = 200 * lib.rv_work_ef_grid()[p] end
      end
      local step = make(samples).levels[WHICH].steps[STATIC]
      assert.equal(5, step.effort)
      assert.near(200 * 4.75, step.work, 2)
   end)

   it("aims above a target by the error of the mean, and by the misses that traces do not see", function()
      local samples = make_samples { static = 1000, slack = 900, memory = 800 }
      local safe = make(samples, { safety = 2 })
      local missing = make(samples, { miss_ratio = 2 })
      local step, plain = safe.levels[WHICH].steps[SLACK], plan.levels[WHICH].steps[SLACK]
      assert.is_true(step.effort > plain.effort and step.effort < 0.975 + 1e-3)
      assert.near(0.975, missing.levels[WHICH].steps[SLACK].effort, 2e-3)
      assert.near(200 * 0.95, missing.levels[WHICH].steps[STATIC].effort, 1) -- ranks by exact distances
      -- what is promised is what will be served: of the misses that traces predict, miss_ratio
      assert.near(0.95, missing.levels[WHICH].steps[SLACK].recall, 6e-3)
      local found_more = make(samples, { miss_ratio = 0.5 })
      assert.near(0.90, found_more.levels[WHICH].steps[SLACK].effort, 2e-3)
      assert.near(0.95, found_more.levels[WHICH].steps[SLACK].recall, 6e-3)
      -- what is served more safely is still compared at the target itself
      assert.equal(plain.work, step.work)
      assert.equal(plain.work, missing.levels[WHICH].steps[SLACK].work)
   end)

   it("aims above a target by what the samples' truth is known to miss", function()
      local samples = make_samples { static = 1000, slack = 900, memory = 800 }
      local step = make(samples, { truth_recall = 0.98 }).levels[WHICH].steps
      local exact = make(samples, { truth_recall = 1 }).levels[WHICH].steps
      assert.near(0.95 / 0.98, step[SLACK].effort, 2e-3)
      assert.near(200 * 0.95 / 0.98, step[STATIC].effort, 1)
      assert.near(0.95, step[SLACK].recall, 6e-3)
      assert.near(0.95 / 0.98, step[SLACK].work / exact[SLACK].work * 0.95, 6e-3)
      -- a neighbour that the truth does not know of cannot be traced
      local beyond = make(samples, { truth_recall = 0.94 }).levels[WHICH].steps[SLACK]
      assert.equal(0, beyond.in_reach)
      assert.near(1, beyond.effort, 2e-3)
      assert.near(0.94, beyond.recall, 2e-3)
   end)

   it("refuses a recall of the truth that is none", function()
      local samples, err = make_samples { static = 1000, slack = 900, memory = 800 }, engine.error_buffer()
      for _, recall in ipairs { 0, -1, 1.01, 0 / 0 } do
         local options = ffi.new("rv_plan_options", { k = K, miss_ratio = 1, truth_recall = recall })
         assert.equal(lib.RV_ERR_INVALID, tonumber(lib.rv_plan_make(engine.allocator, samples.array, SAMPLES,
            options, nil, ffi.new("rv_plan"), err)))
         assert.matches("^recall of the truth is .*, not in %(0, 1%]$", engine.message(err))
      end
   end)

   it("takes the largest effort that found anything where a target is out of reach, and says so", function()
      local lost = make(make_samples({ static = 1000, slack = 900, memory = 800 }, 0.04))
      assert.equal(1, lost.levels[4].steps[SLACK].in_reach) -- 0.90
      local step = lost.levels[8].steps[SLACK] -- 0.98
      assert.equal(0, step.in_reach)
      assert.near(0.96, step.effort, 1e-3)
      assert.near(0.96, step.recall, 6e-3)
      assert.is_false(choose(lost, 0.98).in_reach)
   end)

   it("refuses to make a plan of nothing", function()
      local plan_of_none, err = ffi.new("rv_plan"), engine.error_buffer()
      local options = ffi.new("rv_plan_options", { k = K, miss_ratio = 1, truth_recall = 1, region_work = 1 })
      assert.equal(lib.RV_ERR_INVALID,
         tonumber(lib.rv_plan_make(engine.allocator, nil, 0, options, nil, plan_of_none, err)))
   end)

   it("gives all memory back when an allocation fails", function()
      local samples = make_samples { static = 1000, slack = 900, memory = 800 }
      local options = ffi.new("rv_plan_options", { k = K, miss_ratio = 1, truth_recall = 1, region_work = 1 })
      local made, err = ffi.new("rv_plan"), engine.error_buffer()
      for fail_at = 1, 3 do
         local test = ffi.new("rv_test_allocator")
         lib.rv_test_allocator_init(test, fail_at)
         local status = lib.rv_plan_make(test.allocator, samples.array, SAMPLES, options, nil, made, err)
         assert.equal(lib.RV_ERR_NOMEM, tonumber(status))
         assert.equal(0, tonumber(test.live))
      end
   end)
end)

describe("the way of a plan", function()
   local function way(cost, former, changes)
      return tonumber(make(make_samples(cost), changes, former).levels[WHICH].way)
   end

   it("is the one with the least work at equal recall", function()
      assert.equal(MEMORY, way { static = 1000, slack = 900, memory = 800 })
      assert.equal(SLACK, way { static = 1000, slack = 900, memory = 950 })
      assert.equal(STATIC, way { static = 800, slack = 900, memory = 950 })
   end)

   it("counts the lookup that a way needs", function()
      assert.equal(SLACK, way { static = 1000, slack = 900, memory = 800, lookup = 120 })
   end)

   it("is a simpler one unless the gain is worth it", function()
      assert.equal(STATIC, way { static = 1000, slack = 996, memory = 994 })
   end)

   it("stays what it was until another saves more than the regret", function()
      local former = make(make_samples { static = 1000, slack = 900, memory = 800 })
      assert.equal(MEMORY, way({ static = 790, slack = 900, memory = 800 }, former))
      assert.equal(STATIC, way({ static = 770, slack = 900, memory = 800 }, former))
      -- back and forth by a hair changes nothing
      local static = make(make_samples { static = 770, slack = 900, memory = 800 })
      assert.equal(STATIC, way({ static = 805, slack = 900, memory = 800 }, static))
   end)

   it("is adaptive without remembered entry points when nobody traced with them", function()
      local plan = make(make_samples { static = 1000, slack = 900, memory = 0 })
      assert.equal(SLACK, tonumber(plan.levels[WHICH].way))
      assert.equal(-1, plan.levels[WHICH].steps[MEMORY].effort)
   end)

   it("corrects by region only where that pays", function()
      local samples = make_samples { static = 1000, slack = 900, memory = 800 }
      assert.equal(0, make(samples, { region_work = 0.995 }).use_regions)
      local on = make(samples, { region_work = 0.98 })
      assert.equal(1, on.use_regions)
      assert.equal(1, make(samples, { region_work = 0.995 }, on).use_regions)
      assert.equal(0, make(samples, { region_work = 1.001 }, on).use_regions)
   end)
end)

describe("choosing by a plan", function()
   local plan = make(make_samples { static = 1000, slack = 900, memory = 800 })

   it("gives a target of the grid what was calibrated for it", function()
      local choice = choose(plan, 0.95)
      assert.equal(MEMORY, tonumber(choice.way))
      assert.equal(plan.levels[WHICH].steps[MEMORY].effort, choice.effort)
      assert.equal(plan.levels[WHICH].steps[SLACK].effort, choice.slack)
      assert.near(190, choice.static_ef, 1)
      assert.near(950, choice.static_work, 8)
      assert.is_true(choice.in_reach)
   end)

   it("lies between its neighbours for any other target, and stays at the ends of the grid", function()
      local below, between, above = choose(plan, 0.95), choose(plan, 0.96), choose(plan, 0.97)
      assert.is_true(below.effort < between.effort and between.effort < above.effort)
      assert.equal(choose(plan, 0.5).effort, choose(plan, 0.1).effort)
      assert.equal(choose(plan, 0.999).effort, choose(plan, 1).effort)
   end)
end)

describe("checking a plan", function()
   it("takes a target that went through a float for that of the level", function()
      local plan = make(make_samples { static = 2000, slack = 1000, memory = 0 })
      for i = 0, TARGETS - 2 do
         -- ways that alternate, so that the level above would show
         plan.levels[i].way = i % 2
         plan.levels[i + 1].way = (i + 1) % 2
         local exact, rounded = choose(plan, grid[i]), choose(plan, ffi.new("float[1]", grid[i])[0])
         assert.equal(i % 2, tonumber(rounded.way))
         assert.near(exact.effort, rounded.effort, 1e-3 * math.max(exact.effort, 1))
      end
   end)

   it("finds any changed byte", function()
      local plan = make(make_samples { static = 1000, slack = 900, memory = 800 })
      local bytes, err = ffi.cast("uint8_t *", plan), engine.error_buffer()
      for at = 0, ffi.sizeof("rv_plan") - 1, 7 do
         local former = bytes[at]
         bytes[at] = (former + 1) % 256
         assert.are_not.equal(lib.RV_OK, tonumber(lib.rv_plan_check(plan, err)), "byte " .. at)
         bytes[at] = former
      end
      assert.equal(lib.RV_OK, tonumber(lib.rv_plan_check(plan, err)))
   end)
end)
