-- trajectory_spec.lua - one search as a ring record: packed without a copy, looked at in place.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local function new_ring(cells)
   local size = tonumber(lib.rv_ring_size(cells))
   local block = ffi.new("char[?]", size + 64)
   local address = ffi.cast("uintptr_t", block)
   local out, err = ffi.new("rv_ring *[1]"), engine.error_buffer()
   local aligned = ffi.cast("char *", block) + tonumber((64 - address % 64) % 64)
   engine.check(lib.rv_ring_init(aligned, size, cells, out, err), err)
   return out[0], block
end

local function search(dim, hits, seed)
   local head = ffi.new("rv_trajectory")
   head.query_id[0], head.query_id[1] = 0x0123456789abcdefULL, seed
   head.dim, head.result_count, head.k = dim, hits, hits
   head.index_epoch, head.distances, head.latency_us = seed * 3, seed * 5, seed / 2
   local query = ffi.new("float[?]", dim)
   for i = 0, dim - 1 do query[i] = i / 7 - seed end
   local found = ffi.new("rv_hit[?]", math.max(hits, 1))
   for i = 0, hits - 1 do
      found[i].id, found[i].node, found[i].distance = seed * 1000ULL + i, seed * 77ULL + i, i / 3
   end
   return head, query, found
end

local record = ffi.new("uint64_t[?]", 10000)
local size = ffi.new("size_t[1]")
local head_out, query_out = ffi.new("const rv_trajectory *[1]"), ffi.new("const float *[1]")
local hits_out, err = ffi.new("const rv_hit *[1]"), engine.error_buffer()

local function view(bytes)
   return lib.rv_trajectory_view(record, bytes or size[0], head_out, query_out, hits_out, err)
end

describe("a trajectory", function()
   it("is the header, the query padded to 8 bytes, and the hits", function()
      assert.equal(104, ffi.sizeof("rv_trajectory"))
      assert.equal(104 + 8, tonumber(lib.rv_trajectory_size(1, 0)))
      assert.equal(104 + 8 + 24, tonumber(lib.rv_trajectory_size(2, 1)))
      assert.equal(104 + 512 + 240, tonumber(lib.rv_trajectory_size(128, 10)))
      assert.equal(104 + 64000 + 3072, tonumber(lib.rv_trajectory_size(16000, 128)))
   end)

   it("has no size beyond its limits", function()
      assert.equal(0, tonumber(lib.rv_trajectory_size(0, 1)))
      assert.equal(0, tonumber(lib.rv_trajectory_size(16001, 1)))
      assert.equal(0, tonumber(lib.rv_trajectory_size(1, 129)))
   end)

   it("of 128 dimensions and ten results fits one cell", function()
      local ring, _anchor = new_ring(512)
      assert.is_true(lib.rv_trajectory_push(ring, search(128, 10, 1)))
      assert.equal(1, tonumber(lib.rv_ring_backlog(ring)))
      assert.truthy(_anchor)
   end)

   it("comes out as it went in, for any dimension up to 16,000 and any number of hits", function()
      local ring, _anchor = new_ring(512)
      for seed, shape in ipairs { { 1, 0 }, { 1, 1 }, { 2, 3 }, { 3, 128 }, { 127, 10 }, { 384, 10 }, { 1537,
         40 },
         { 15999, 128 }, { 16000, 128 } } do
         local head, query, hits = search(shape[1], shape[2], seed)
         assert.is_true(lib.rv_trajectory_push(ring, head, query, hits))
         assert.equal(lib.RV_OK, lib.rv_ring_pop(ring, record, ffi.sizeof(record), size))
         engine.check(view(), err)
         assert.equal(ffi.string(head, ffi.sizeof(head)), ffi.string(head_out[0], ffi.sizeof(head)))
         assert.equal(ffi.string(query, 4 * shape[1]), ffi.string(query_out[0], 4 * shape[1]))
         assert.equal(ffi.string(hits, 24 * shape[2]), ffi.string(hits_out[0], 24 * shape[2]))
      end
      assert.truthy(_anchor)
   end)

   it("is refused by push when its counts are beyond the limits, without touching the ring", function()
      local ring, _anchor = new_ring(512)
      for _, shape in ipairs { { 0, 1 }, { 16001, 1 }, { 4, 129 } } do
         local head, query, hits = search(16001, 129, 1)
         head.dim, head.result_count = shape[1], shape[2]
         assert.is_false(lib.rv_trajectory_push(ring, head, query, hits))
      end
      assert.equal(0, tonumber(lib.rv_ring_backlog(ring)))
      assert.truthy(_anchor)
   end)

   it("is counted as dropped when it is larger than a small ring allows", function()
      local ring, _anchor = new_ring(16)
      assert.is_false(lib.rv_trajectory_push(ring, search(16000, 10, 1)))
      assert.equal(1, tonumber(lib.rv_ring_read_counters(ring).dropped))
      assert.truthy(_anchor)
   end)

   describe("looked at in a record that is not one", function()
      local function store(dim, hits)
         ffi.fill(record, 4096)
         local head = ffi.cast("rv_trajectory *", record)
         head.dim, head.result_count = dim, hits
      end

      it("is refused when the record is shorter than its header", function()
         store(4, 1)
         assert.equal(lib.RV_ERR_FORMAT, view(103))
         assert.matches("103 bytes", engine.message(err), 1, true)
      end)

      it("is refused when the counts are beyond the limits", function()
         for _, shape in ipairs { { 0, 1 }, { 16001, 1 }, { 0xffffffff, 0xffffffff }, { 4, 129 } } do
            store(shape[1], shape[2])
            assert.equal(lib.RV_ERR_FORMAT, view(4096))
            assert.matches("must be 1 to 16000 and at most 128", engine.message(err), 1, true)
         end
      end)

      it("is refused when the record is longer or shorter than its counts say", function()
         store(4, 1)
         for _, bytes in ipairs { 104, 143, 145, 4096 } do
            assert.equal(lib.RV_ERR_FORMAT, view(bytes))
            assert.matches(bytes .. " bytes; dim 4 with result_count 1 takes 144", engine.message(err), 1,
               true)
         end
         assert.equal(lib.RV_OK, view(144))
      end)

      it("is refused at an odd address", function()
         store(4, 1)
         local askew = ffi.cast("char *", record) + 4
         assert.equal(lib.RV_ERR_INVALID, lib.rv_trajectory_view(askew, 128, head_out, query_out, hits_out,
            err))
      end)
   end)
end)
