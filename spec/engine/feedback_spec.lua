-- What is made of users' judgements: index miss or embedding miss, the refined query, the limits.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

describe("the place of a row", function()
   local RETURNED, NEAR, FAR = lib.RV_ROW_RETURNED, lib.RV_ROW_MISSED_NEAR, lib.RV_ROW_MISSED_FAR
   local hits = ffi.new("rv_hit[3]")
   for i, distance in ipairs { 1, 2, 4 } do
      hits[i - 1].id, hits[i - 1].distance = 100 + i, distance
   end
   local function place(id, distance, count) return lib.rv_feedback_place(hits, count or 3, id, distance) end

   it("is among the results by its position, wherever it lies now", function()
      assert.equal(RETURNED, place(102, 2))
      assert.equal(RETURNED, place(102, 77))
   end)

   it("is near before the last result and far behind it", function()
      assert.equal(NEAR, place(7, 0.5))
      assert.equal(NEAR, place(7, 3.99))
      assert.equal(FAR, place(7, 4.01))
      assert.equal(FAR, place(7, 1e30))
   end)

   it("is as good as returned when a result is just as far, to rounding", function()
      for _, distance in ipairs { 1, 2, 4, 4 * (1 + 5e-6), 2 * (1 - 5e-6) } do
         assert.equal(RETURNED, place(7, distance))
      end
      assert.equal(NEAR, place(7, 4 * (1 - 3e-5)))
      assert.equal(FAR, place(7, 4 * (1 + 3e-5)))
   end)

   it("goes by the farthest result, whatever their order", function()
      hits[0].distance, hits[2].distance = 4, 1
      assert.equal(NEAR, place(7, 3))
      hits[0].distance, hits[2].distance = 1, 4
   end)

   it("holds for negative distances, as inner products have", function()
      hits[0].distance, hits[1].distance, hits[2].distance = -9, -7, -5
      assert.equal(RETURNED, place(7, -7))
      assert.equal(NEAR, place(7, -6))
      assert.equal(FAR, place(7, -4))
      hits[0].distance, hits[1].distance, hits[2].distance = 1, 2, 4
   end)

   it("is near when there are no results at all", function() assert.equal(NEAR, place(101, 5, 0)) end)
end)

describe("the refined query", function()
   local keep

   local function rows(list)
      local pointers = ffi.new("const float *[?]", math.max(#list, 1))
      for i, row in ipairs(list) do
         local floats = engine.floats(row)
         keep[#keep + 1] = floats
         pointers[i - 1] = floats
      end
      keep[#keep + 1] = pointers
      return pointers
   end

   --- The elements, or nil and the status and the message.
   local function refine(options)
      keep = {}
      local input, dim = ffi.new("rv_refine_input[1]"), #options.query
      local out, err = ffi.new("float[?]", dim), engine.error_buffer()
      local query = engine.floats(options.query)
      local relevant, irrelevant = options.relevant or {}, options.irrelevant or {}
      local c = input[0]
      c.metric, c.dim, c.query = options.metric or lib.RV_METRIC_L2, dim, query
      c.relevant, c.relevant_count = rows(relevant), #relevant
      c.irrelevant, c.irrelevant_count = rows(irrelevant), #irrelevant
      c.alpha, c.beta, c.gamma = options.alpha or 1, options.beta or 0.75, options.gamma or 0.15
      local status = lib.rv_feedback_refine(c, out, err)
      if status ~= lib.RV_OK then return nil, status, engine.message(err) end
      local list = {}
      for i = 1, dim do list[i] = out[i - 1] end
      return list
   end

   --- A list of numbers against another.
   local function near(expected, found)
      assert.equal(#expected, #found)
      for i = 1, #expected do assert.near(expected[i], found[i], 1e-6) end
   end

   it("is Rocchio's sum", function()
      near({ 1 + 0.75 * 3 - 0.15 * 2, 2 + 0.75 * 4 - 0.15 * -1 }, refine {
         query = { 1, 2 }, relevant = { { 2, 4 }, { 4, 4 } }, irrelevant = { { 2, -1 } },
         metric = lib.RV_METRIC_IP,
      })
   end)

   it("stays among the query and the rows where distances are of places", function()
      for _, metric in ipairs { lib.RV_METRIC_L2, lib.RV_METRIC_L1 } do
         near({ (1 + 0.75 * 3 - 0.15 * 2) / 1.6, (2 + 0.75 * 4 + 0.15) / 1.6 }, refine {
            query = { 1, 2 }, relevant = { { 2, 4 }, { 4, 4 } }, irrelevant = { { 2, -1 } }, metric = metric,
         })
         near({ 1, 2 }, refine { query = { 1, 2 }, metric = metric, alpha = 3 })
         near({ (2 + 3 * 3) / 5 }, refine { query = { 1 }, relevant = { { 3 } }, metric = metric,
            alpha = 2, beta = 3 })
      end
   end)

   it("is the query where nothing was judged, and the rows' mean where the query does not weigh", function()
      near({ 1, 2 }, refine { query = { 1, 2 } })
      near({ 3, 4 }, refine { query = { 1, 2 }, relevant = { { 2, 4 }, { 4, 4 } }, alpha = 0, beta = 1 })
   end)

   it("does not depend on the order of many rows", function()
      local one, other = {}, {}
      for i = 1, 500 do
         one[i] = { i % 7 == 0 and 1e6 or i * 1e-3 }
         other[501 - i] = one[i]
      end
      assert.same(refine { query = { 1 }, relevant = one }, refine { query = { 1 }, relevant = other })
   end)

   it("has unit length under cosine distance", function()
      near({ 0.6, 0.8 }, refine {
         metric = lib.RV_METRIC_COSINE, query = { 1, 0 }, relevant = { { 0, 1 } },
         alpha = 0.6, beta = 0.8,
      })
   end)

   it("is refused without a direction, beyond a float, or with weights out of range", function()
      local found, status, message = refine {
         metric = lib.RV_METRIC_COSINE, query = { 1, 0 }, relevant = { { -1, 0 } }, beta = 1,
      }
      assert.is_nil(found)
      assert.equal(lib.RV_ERR_RANGE, status)
      assert.matches("no direction", message, 1, true)
      found, status, message = refine { query = { 1 }, irrelevant = { { 2 } }, alpha = 0.5, gamma = 0.5 }
      assert.is_nil(found)
      assert.equal(lib.RV_ERR_RANGE, status)
      assert.matches("sum to 0;", message, 1, true)
      found, status, message = refine { query = { 0, 3e38 }, alpha = 2, metric = lib.RV_METRIC_IP }
      assert.is_nil(found)
      assert.equal(lib.RV_ERR_RANGE, status)
      assert.matches("element 2", message, 1, true)
      for name, value in pairs { alpha = -0.1, beta = 1001, gamma = 0 / 0 } do
         found, status, message = refine { query = { 1 }, [name] = value }
         assert.is_nil(found)
         assert.equal(lib.RV_ERR_RANGE, status)
         assert.matches(name .. " is ", message, 1, true)
         assert.matches("between 0 and 1000", message, 1, true)
      end
   end)
end)

describe("the weight of feedback", function()
   local function limit(wanted, drawn, share)
      local factors = ffi.new("double[?]", #wanted)
      lib.rv_feedback_limit(ffi.new("double[?]", #wanted, wanted), #wanted, drawn, share, factors)
      local list = {}
      for i = 1, #wanted do list[i] = factors[i - 1] end
      return list
   end

   it("is whole within a giver's share", function() assert.same({ 1, 1 }, limit({ 10, 3 }, 100, 0.1)) end)

   it("is brought down to the share, for each giver by itself", function()
      local factors = limit({ 50, 5, 20 }, 100, 0.1)
      assert.near(10, 50 * factors[1], 1e-12)
      assert.equal(1, factors[2])
      assert.near(10, 20 * factors[3], 1e-12)
   end)

   it("is brought down for all together when many give it", function()
      local wanted, sum = {}, 0
      for i = 1, 40 do wanted[i] = 100 end
      for i, factor in ipairs(limit(wanted, 100, 0.1)) do sum = sum + factor * wanted[i] end
      assert.near(50, sum, 1e-9)
   end)

   it("is nothing with a share of 0, or where nothing was drawn", function()
      assert.same({ 0 }, limit({ 5 }, 100, 0))
      assert.same({ 0 }, limit({ 5 }, 0, 0.1))
   end)
end)
