-- Every allocation of a whole build (create, insert_or_find, connect), failed one after the other: the
-- call says RV_ERR_NOMEM, the same call then succeeds, the graph is the same, and nothing leaks. The
-- specs of searches (hnsw), beams, traces and exact search do the same for theirs.

local engine = require("ruvector.engine")
local proximity = require("support.proximity")
local ffi, lib = engine.ffi, engine.lib

local DIM, ROWS = 4, 400

local function rows()
   local random = proximity.generator(11)
   local out = ffi.new("float[?]", DIM * ROWS)
   for i = 0, DIM * ROWS - 1 do out[i] = random.normal() end
   for i = 0, DIM - 1 do out[DIM * (ROWS - 1) + i] = out[i] end -- the last row is the first once more
   return out
end

local function options()
   local out = ffi.new("rv_hnsw_options")
   out.metric, out.dim, out.m, out.ef_construction, out.seed = lib.RV_METRIC_L2, DIM, 4, 16, 5
   return out
end

local function tester_failing(at)
   local tester = ffi.new("rv_test_allocator")
   lib.rv_test_allocator_init(tester, at)
   return tester
end

-- Builds, trying again once after each call that failed; returns how many calls failed.
local function build(data, tester)
   local failures, err = 0, engine.error_buffer()
   local function insist(call)
      local status = tonumber(call())
      if status == lib.RV_ERR_NOMEM then
         failures = failures + 1
         status = tonumber(call())
      end
      assert.equal(lib.RV_OK, status)
   end
   local out, node, duplicate = ffi.new("rv_hnsw *[1]"), ffi.new("rv_node[1]"), ffi.new("bool[1]")
   local connected, opts = ffi.new("uint64_t[1]"), options()
   insist(function() return lib.rv_hnsw_create(tester.allocator, opts, out, err) end)
   for i = 0, ROWS - 1 do
      insist(function() return lib.rv_hnsw_insert_or_find(out[0], data + i * DIM, node, duplicate, err) end)
   end
   assert.is_true(duplicate[0])
   insist(function() return lib.rv_hnsw_connect(out[0], connected, err) end)
   assert.equal(ROWS - 1, tonumber(lib.rv_hnsw_count(out[0])))
   local shape = {}
   for i = 0, ROWS - 2 do
      for level = 0, lib.rv_hnsw_level(out[0], i) do
         local count = ffi.new("uint32_t[1]")
         local links = lib.rv_hnsw_links(out[0], i, level, count)
         for l = 0, count[0] - 1 do shape[#shape + 1] = links[l] end
         shape[#shape + 1] = -1
      end
   end
   lib.rv_hnsw_destroy(out[0])
   assert.equal(0, tonumber(tester.live))
   return failures, shape
end

describe("a lack of memory", function()
   it("at any allocation of a build loses no row and no link", function()
      local data = rows()
      local tester = tester_failing(0)
      local none, links = build(data, tester)
      local calls = tonumber(tester.calls)
      assert.equal(0, none)
      assert.is_true(calls > 15, calls .. " allocations")
      for at = 1, calls do
         local failures, got = build(data, tester_failing(at))
         assert.equal(1, failures, "allocation " .. at)
         assert.same(links, got, "allocation " .. at)
      end
   end)
end)
