-- Which links the nearest rows of a query lack, and which of the requests are granted.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local MAX_NODES = 128 -- RV_LINKS_MAX_NODES

local function create(options)
   options = options or {}
   local out, err = ffi.new("rv_links *[1]"), engine.error_buffer()
   local status = tonumber(lib.rv_links_create(options.allocator or engine.allocator,
      options.metric or lib.RV_METRIC_L2, options.unit or false, options.dim or 1, options.limit or 100000,
      out, err))
   if status ~= lib.RV_OK then return nil, status, engine.message(err) end
   return ffi.gc(out[0], lib.rv_links_destroy)
end

-- Asks for a query whose nearest rows are {number = {at, links...}}: a place on a line and who is linked.
local function ask(links, rows)
   local count, keep = 0, {}
   local numbers = {}
   for number in pairs(rows) do numbers[#numbers + 1] = number end
   table.sort(numbers)
   local nodes = ffi.new("rv_link_node[?]", math.max(#numbers, 1))
   for _, number in ipairs(numbers) do
      local row = rows[number]
      local vector, out = ffi.new("float[1]", row[1]), ffi.new("rv_node[?]", math.max(#row - 1, 1))
      for i = 2, #row do out[i - 2] = row[i] end
      keep[#keep + 1], keep[#keep + 2] = vector, out
      nodes[count].node, nodes[count].vector = number, vector
      nodes[count].links, nodes[count].link_count = out, #row - 1
      count = count + 1
   end
   local err = engine.error_buffer()
   local status = tonumber(lib.rv_links_ask(links, nodes, count, err))
   assert(#keep == 2 * count) -- the arrays live until here
   return status, engine.message(err)
end

-- What is chosen, as "from>to xrequests", in the order given.
local function choose(links, min_requests, per_node, capacity)
   local room = capacity or lib.rv_links_count(links)
   local out, count = ffi.new("rv_link[?]", math.max(room, 1)), ffi.new("uint32_t[1]")
   engine.check(tonumber(lib.rv_links_choose(links, min_requests or 1, per_node or 8, out, room, count, nil)))
   local list = {}
   for i = 0, count[0] - 1 do
      list[i + 1] = ("%d>%d x%d"):format(tonumber(out[i].from), tonumber(out[i].to), out[i].requests)
   end
   return list
end

describe("the links that the nearest rows of a query lack", function()
   it("are those of the shortest way among them, both ways", function()
      local links = create()
      assert.equal(lib.RV_OK, (ask(links, { [1] = { 0 }, [2] = { 10 }, [3] = { 11 } })))
      assert.same({ "1>2 x1", "2>3 x1", "2>1 x1", "3>2 x1" }, choose(links))
   end)

   it("are none where a way of mutual links joins all of them", function()
      local links = create()
      ask(links, { [1] = { 0, 2 }, [2] = { 10, 1, 3 }, [3] = { 11, 2 } })
      assert.same({}, choose(links))
   end)

   it("complete a link that goes one way only", function()
      local links = create()
      ask(links, { [1] = { 0, 2 }, [2] = { 1 } })
      assert.same({ "2>1 x1" }, choose(links))
   end)

   it("join groups by their nearest ends, whatever links go elsewhere", function()
      local links = create()
      ask(links, { [1] = { 0, 2, 77 }, [2] = { 1, 1 }, [3] = { 5, 4 }, [4] = { 6, 3, 99 } })
      assert.same({ "2>3 x1", "3>2 x1" }, choose(links))
   end)

   it("are none for less than two rows", function()
      local links = create()
      assert.equal(lib.RV_OK, (ask(links, {})))
      assert.equal(lib.RV_OK, (ask(links, { [5] = { 1 } })))
      assert.same({}, choose(links))
   end)

   it("join as many rows as there may be into one group, with two links for each but one", function()
      local links, rows = create(), {}
      for i = 1, MAX_NODES do rows[i] = { (i * 37) % MAX_NODES } end
      assert.equal(lib.RV_OK, (ask(links, rows)))
      local out = choose(links, 1, MAX_NODES)
      assert.equal(2 * (MAX_NODES - 1), #out)
      -- On a line the shortest way goes from each to the next.
      local at = {}
      for number, row in pairs(rows) do at[number] = row[1] end
      for _, link in ipairs(out) do
         local from, to = link:match("(%d+)>(%d+)")
         assert.equal(1, math.abs(at[tonumber(from)] - at[tonumber(to)]))
      end
   end)

   it("leave out rows whose distance is no number", function()
      local links = create()
      ask(links, { [1] = { 0 }, [2] = { 1 }, [3] = { 0 / 0 } })
      assert.same({ "1>2 x1", "2>1 x1" }, choose(links))
   end)

   it("refuse too many rows, and a row that is there twice", function()
      local links = create()
      local rows = {}
      for i = 1, MAX_NODES + 1 do rows[i] = { i } end
      local status, message = ask(links, rows)
      assert.equal(lib.RV_ERR_RANGE, status)
      assert.truthy(message:find("129 nodes", 1, true))
      local nodes = ffi.new("rv_link_node[2]")
      local vector = ffi.new("float[1]", 1)
      nodes[0].node, nodes[1].node = 7, 7
      nodes[0].vector, nodes[1].vector = vector, vector
      assert.equal(lib.RV_ERR_INVALID, tonumber(lib.rv_links_ask(links, nodes, 2, nil)))
      assert.same({}, choose(links))
   end)
end)

describe("requests for links", function()
   it("add up over queries, and one may be asked for by itself", function()
      local links = create()
      for _ = 1, 3 do ask(links, { [1] = { 0 }, [2] = { 1 } }) end
      lib.rv_links_ask_for(links, 9, 1, nil)
      lib.rv_links_ask_for(links, 4, 4, nil)
      assert.equal(3, lib.rv_links_count(links))
      assert.same({ "1>2 x3", "2>1 x3", "9>1 x1" }, choose(links))
   end)

   it("are granted to the most requested of a node first, then to the shorter", function()
      local links = create()
      ask(links, { [1] = { 0 }, [2] = { 5 } })
      ask(links, { [1] = { 0 }, [3] = { 2 } })
      ask(links, { [1] = { 0 }, [4] = { 9 } })
      ask(links, { [1] = { 0 }, [4] = { 9 } })
      assert.same({ "1>4 x2", "1>3 x1", "2>1 x1", "3>1 x1", "4>1 x2" }, choose(links, 1, 2))
   end)

   it("are granted only when enough queries made them", function()
      local links = create()
      ask(links, { [1] = { 0 }, [2] = { 5 } })
      ask(links, { [1] = { 0 }, [2] = { 5 }, [3] = { 6 } })
      assert.same({ "1>2 x2", "2>1 x2" }, choose(links, 2))
   end)

   it("give way to more wanted ones when there is no room for all", function()
      local links = create()
      for i = 1, 20 do
         for _ = 1, i do lib.rv_links_ask_for(links, i, 100, nil) end
      end
      assert.same({ "18>100 x18", "19>100 x19", "20>100 x20" }, choose(links, 1, 8, 3))
   end)

   it("beyond the limit are counted and left out, known ones still add up", function()
      local links = create { limit = 2 }
      ask(links, { [1] = { 0 }, [2] = { 1 } })
      ask(links, { [1] = { 0 }, [2] = { 1 }, [3] = { 2 } })
      assert.equal(2, lib.rv_links_count(links))
      assert.equal(2, tonumber(lib.rv_links_left_out(links)))
      assert.same({ "1>2 x2", "2>1 x2" }, choose(links))
   end)

   it("begin from none after they were granted", function()
      local links = create()
      ask(links, { [1] = { 0 }, [2] = { 1 } })
      assert.equal(2, #choose(links))
      assert.same({}, choose(links))
      ask(links, { [1] = { 0 }, [2] = { 1 } })
      assert.same({ "1>2 x1", "2>1 x1" }, choose(links))
   end)

   it("do not depend on how many there are", function()
      local links, want = create(), {}
      for i = 1, 5000 do
         lib.rv_links_ask_for(links, i, i + 1, nil)
         want[i] = ("%d>%d x1"):format(i, i + 1)
      end
      assert.same(want, choose(links))
   end)

   it("fail cleanly at every allocation, leak nothing, and stay usable", function()
      local failed = 0
      for fail_at = 1, 20 do
         local tester = ffi.new("rv_test_allocator")
         lib.rv_test_allocator_init(tester, fail_at)
         local links = create { allocator = tester.allocator }
         if links then
            for i = 1, 1500 do
               local status = tonumber(lib.rv_links_ask_for(links, i, i + 1, nil))
               if status ~= lib.RV_OK then
                  assert.equal(lib.RV_ERR_NOMEM, status)
                  failed = failed + 1
               end
            end
            local status = ask(links, { [1] = { 0 }, [3] = { 1 } })
            assert.is_true(status == lib.RV_OK or status == lib.RV_ERR_NOMEM)
            choose(links)
            lib.rv_links_destroy(ffi.gc(links, nil))
         end
         assert.equal(0, tonumber(tester.live))
      end
      assert.is_true(failed >= 2, "no allocation failed in the middle")
   end)

   it("want a sensible start", function()
      local function refused(options) return select(2, create(options)) end
      assert.equal(lib.RV_ERR_DIMENSION, refused { dim = 0 })
      assert.equal(lib.RV_ERR_INVALID, refused { metric = 9 })
      assert.equal(lib.RV_ERR_RANGE, refused { limit = 0 })
      local count = ffi.new("uint32_t[1]")
      assert.equal(lib.RV_ERR_RANGE, tonumber(lib.rv_links_choose(create(), 1, 0, nil, 0, count, nil)))
   end)
end)
