-- The curve from effort to work: what a deep trace says a search costs is what the search costs.

local engine = require("ruvector.engine")
local proximity = require("support.proximity")
local ffi, lib = engine.ffi, engine.lib

local K = 8
local SLACKS = ffi.sizeof(ffi.new("rv_work").slack) / 4
local EFS = ffi.sizeof(ffi.new("rv_work").ef) / 4
local UNKNOWN = 0xFFFFFFFF

local function truth_of(graph, k)
   local all = {}
   for node = 0, graph.count - 1 do
      if not graph.dead[node] then all[#all + 1] = graph.distances[node] end
   end
   table.sort(all)
   return { unpack(all, 1, k) }
end

-- The work of one trace; goal as rv_trace_limits has it.
local function traced(beam, graph, work_slack, work_ef, max_distances)
   local work = ffi.new("rv_work")
   local limits = {
      k = K, max_slack = 100, max_ef = 10000, max_distances = max_distances or 0,
      work = work, work_slack = work_slack, work_ef = work_ef,
   }
   assert(beam:trace(limits, graph.entry, graph.entry_level, truth_of(graph, K)))
   return work
end

local function work_of(beam, graph, rule)
   assert.equal(lib.RV_OK, beam:start(rule, graph.entry, graph.entry_level))
   beam:window()
   return tonumber(beam:stats().distances)
end

-- Calls check(graph, beam, where) for several graphs and queries.
local function each_query(check)
   for seed = 1, 8 do
      local graph = proximity.random { count = 400, dim = 4, degree = 4, seed = seed, levels = seed % 3 }
      local beam = proximity.beam(proximity.interface(graph), proximity.map(graph))
      for query = 1, 4 do
         beam:set_map(proximity.map(graph))
         check(graph, beam, ("graph %d, query %d"):format(seed, query))
         proximity.random_query(graph)
      end
   end
end

describe("the work of a deep trace", function()
   it("is what a search of each slack of the grid computes", function()
      local grid, compared = lib.rv_work_slack_grid(), 0
      each_query(function(graph, beam, where)
         local work = traced(beam, graph, 100, 10000)
         for i = 0, SLACKS - 1 do
            assert.are_not.equal(UNKNOWN, work.slack[i])
            local spent = work_of(beam, graph, { window = K, slack = grid[i] })
            assert.equal(spent, work.slack[i], ("%s, slack %g"):format(where, grid[i]))
            compared = compared + (work.slack[i] > work.slack[0] and 1 or 0)
         end
      end)
      assert.is_true(compared > 50, "the graphs are too small: all slacks cost the same")
   end)

   it("is what a static search of each ef of the grid computes, from the window on", function()
      local grid, compared = lib.rv_work_ef_grid(), 0
      each_query(function(graph, beam, where)
         local work = traced(beam, graph, 100, 10000)
         for i = 0, EFS - 1 do
            if grid[i] >= K then
               local spent = work_of(beam, graph, { window = grid[i], slack = 0 })
               assert.equal(spent, work.ef[i], ("%s, ef %d"):format(where, grid[i]))
               compared = compared + 1
            else
               assert.equal(work.ef[0], work.ef[i])
            end
         end
      end)
      assert.is_true(compared > 100)
   end)

   it("is known up to the goals, and not beyond what the trace saw", function()
      local unknown = 0
      each_query(function(graph, beam)
         local work = traced(beam, graph, 0.05, 16)
         local slacks, efs = lib.rv_work_slack_grid(), lib.rv_work_ef_grid()
         for i = 0, SLACKS - 1 do
            if slacks[i] <= 0.05 then assert.are_not.equal(UNKNOWN, work.slack[i]) end
            if work.slack[i] == UNKNOWN then unknown = unknown + 1 end
         end
         for i = 0, EFS - 1 do
            if efs[i] <= 16 then assert.are_not.equal(UNKNOWN, work.ef[i]) end
         end
      end)
      assert.is_true(unknown > 0, "every trace saw everything")
   end)

   it("keeps to the limit on distances", function()
      each_query(function(graph, beam)
         local work = traced(beam, graph, 100, 10000, 40)
         assert.equal(UNKNOWN, work.slack[SLACKS - 1])
         for i = 0, SLACKS - 1 do
            assert.is_true(work.slack[i] == UNKNOWN or work.slack[i] <= 40 + 2 * 8)
         end
      end)
   end)
end)

describe("reading a curve of work", function()
   local work

   before_each(function()
      work = ffi.new("rv_work")
      lib.rv_work_clear(work)
   end)

   it("knows nothing of an empty one", function()
      assert.is_true(lib.rv_work_at_slack(work, 0.1) < 0)
      assert.is_true(lib.rv_work_at_ef(work, 40) < 0)
   end)

   it("is exact on the grid, linear between, and flat below it", function()
      for i = 0, EFS - 1 do work.ef[i] = 100 * lib.rv_work_ef_grid()[i] end
      for i = 0, EFS - 1 do
         local ef = lib.rv_work_ef_grid()[i]
         assert.near(100 * ef, lib.rv_work_at_ef(work, ef), 1e-9)
      end
      assert.near(5000, lib.rv_work_at_ef(work, 50), 1e-9)
      assert.near(100, lib.rv_work_at_ef(work, 0.5), 1e-9)
   end)

   it("never costs less than the window without slack", function()
      for i = 0, EFS - 1 do work.ef[i] = 100 * lib.rv_work_ef_grid()[i] end
      work.slack[0] = 1500
      assert.equal(1500, lib.rv_work_at_ef(work, 14))
      assert.near(2000, lib.rv_work_at_ef(work, 20), 500)
   end)

   it("goes on beyond the last known point as the curve ended", function()
      local grid = lib.rv_work_slack_grid()
      for i = 0, 20 do work.slack[i] = math.floor(1000 * grid[i] / grid[20]) end
      assert.near(2000, lib.rv_work_at_slack(work, 2 * grid[20]), 60)
      -- a curve that has become flat stays flat
      for i = 0, 20 do work.slack[i] = 700 end
      assert.near(700, lib.rv_work_at_slack(work, 1), 1e-6)
   end)

   it("adds a lookup to what is known only", function()
      work.slack[0], work.slack[1] = 100, 200
      lib.rv_work_add(work, 30)
      assert.equal(130, work.slack[0])
      assert.equal(230, work.slack[1])
      assert.equal(UNKNOWN, work.slack[2])
   end)
end)
