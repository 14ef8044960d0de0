-- Advice on the parameters of an index.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local NONE, GRAPH, LISTS = 0, 1, 2

-- A large graph that does well, with some facts changed; the advice by parameter.
local function advise(changes)
   local facts, out = ffi.new("rv_index_facts"), ffi.new("rv_advice[8]")
   local fields = { kind = GRAPH, rows = 100000, dim = 128, memory_bytes = 2 ^ 30, index_bytes = 1e8,
      learning = true, storage = "float32", m = 16, ef_construction = 64, lists = -1, probes = -1,
      target_recall = 0.95, judged = 1000, mean_recall = 0.955, out_of_reach = 0.01 }
   for name, value in pairs(changes or {}) do fields[name] = value end
   for name, value in pairs(fields) do
      if value ~= "unknown" then facts[name] = value end
   end
   local advice = {}
   for i = 0, lib.rv_advise(facts, out) - 1 do
      advice[ffi.string(out[i].parameter)] = {
         current = ffi.string(out[i].current), recommended = ffi.string(out[i].recommended),
         reason = ffi.string(out[i].reason), evidence = ffi.string(out[i].evidence),
      }
   end
   return advice
end

describe("advice", function()
   it("is to leave alone what does well", function()
      local advice = advise()
      for parameter, row in pairs(advice) do
         assert.equal(row.current, row.recommended, parameter)
         assert.is_true(#row.reason > 10 and #row.evidence > 3, parameter)
      end
      assert.is_truthy(advice.m and advice.ef_construction and advice.storage and advice.target_recall)
      assert.is_nil(advice.lists)
   end)

   it("is a denser graph where targets are out of reach", function()
      local advice = advise({ out_of_reach = 0.12, mean_recall = 0.9 })
      assert.equal("32", advice.m.recommended)
      assert.equal("128", advice.ef_construction.recommended)
      assert.matches("12.0%% out of reach", advice.m.evidence)
      assert.equal("0.95", advice.target_recall.recommended)
   end)

   it("needs enough measured searches for that", function()
      assert.equal("16", advise({ out_of_reach = 0.5, judged = 99 }).m.recommended)
   end)

   it("is a lower target where no denser graph is worth it", function()
      local advice = advise({ m = 64, ef_construction = 256, out_of_reach = 0.2, mean_recall = 0.907 })
      assert.equal("64", advice.m.recommended)
      assert.equal("0.9", advice.target_recall.recommended)
   end)

   it("is no index for few rows, and lists where a graph is far larger than the memory", function()
      assert.equal("none", advise({ rows = 5000 })["index type"].recommended)
      assert.equal("ruhnsw", advise({ rows = 10000 })["index type"].recommended)
      assert.equal("ruivfflat", advise({ rows = 1e7 })["index type"].recommended)
   end)

   it("is half precision for an index larger than the memory, and back where recall suffers", function()
      assert.equal("float16", advise({ index_bytes = 2e9 }).storage.recommended)
      assert.equal("fixed32", advise({ storage = "int8", mean_recall = 0.8 }).storage.recommended)
      assert.equal("fixed24", advise({ storage = "int8", mean_recall = 0.8, dim = 2000 }).storage.recommended)
      assert.equal("int8", advise({ storage = "int8" }).storage.recommended)
   end)

   it("is a number of lists that fits the rows", function()
      local function lists(rows, present)
         return tonumber(advise({ kind = LISTS, rows = rows, lists = present, probes = 1 }).lists.recommended)
      end
      assert.equal(100, lists(100000, 10))
      assert.equal(60, lists(100000, 60))
      assert.equal(3000, lists(9e6, 9000))
      assert.equal("10", advise({ kind = LISTS, lists = 100, probes = 1 }).probes.recommended)
      assert.equal("7", advise({ kind = LISTS, lists = 100, probes = 7 }).probes.recommended)
      assert.is_nil(advise({ kind = LISTS, lists = 100, probes = 1 }).m)
   end)

   it("covers both kinds where there is no index yet", function()
      local advice = advise({ kind = NONE, m = -1, ef_construction = -1, storage = "unknown", judged = 0,
         mean_recall = -1, out_of_reach = -1, index_bytes = -1 })
      assert.equal("", advice["index type"].current)
      assert.equal("16", advice.m.recommended)
      assert.equal("64", advice.ef_construction.recommended)
      assert.equal("auto", advice.storage.recommended)
      assert.equal("100", advice.lists.recommended)
      assert.is_nil(advice.target_recall)
   end)

   it("is to learn", function()
      assert.equal("on", advise({ learning = false }).learning.recommended)
      assert.equal("off", advise({ learning = false }).learning.current)
   end)
end)
