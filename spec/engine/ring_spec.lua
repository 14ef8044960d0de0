-- ring_spec.lua - the trajectory ring, seen by one thread: what goes in comes out, in order, and
-- every record is counted exactly once. spec/engine/ring_threads.c covers concurrency.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

-- A writer that dies in the middle of a push: a child process whose record lies partly on a page
-- that it must not touch.
ffi.cdef [[
   void *mmap(void *address, size_t length, int protection, int flags, int file, long offset);
   int munmap(void *address, size_t length);
   int mprotect(void *address, size_t length, int protection);
   int fork(void);
   int waitpid(int pid, int *status, int options);
   void _exit(int status);
   void (*signal(int number, void (*handler)(int)))(int);
]]
local PROT_NONE, PROT_READ_WRITE = 0, 3
local MAP_SHARED, MAP_ANONYMOUS = 1, 0x20
local SIGSEGV, PAGE = 11, 4096

local function map_shared(size)
   local memory = ffi.C.mmap(nil, size, PROT_READ_WRITE, MAP_SHARED + MAP_ANONYMOUS, -1, 0)
   assert(ffi.cast("intptr_t", memory) ~= -1)
   return ffi.gc(memory, function(m) ffi.C.munmap(m, size) end)
end

local function new_ring(cells)
   local size = tonumber(lib.rv_ring_size(cells))
   local memory = map_shared(size) -- page-aligned
   local out, err = ffi.new("rv_ring *[1]"), engine.error_buffer()
   engine.check(lib.rv_ring_init(memory, size, cells, out, err), err)
   return { ring = out[0], memory = memory, cells = cells }
end

local function push(r, ...)
   local parts = { ... }
   local spans = ffi.new("rv_span[?]", math.max(#parts, 1))
   for i, part in ipairs(parts) do
      spans[i - 1].data, spans[i - 1].size = ffi.cast("const char *", part), #part
   end
   return lib.rv_ring_push(r.ring, spans, #parts)
end

local buffer = ffi.new("char[?]", 4 * 1024 * 1024)
local size_out = ffi.new("size_t[1]")

--- The next record as a string, or nil and the status.
local function pop(r, capacity)
   local status = lib.rv_ring_pop(r.ring, buffer, capacity or ffi.sizeof(buffer), size_out)
   if status == lib.RV_OK then return ffi.string(buffer, size_out[0]) end
   return nil, status
end

local function counters(r)
   local c = lib.rv_ring_read_counters(r.ring)
   return {
      written = tonumber(c.written), dropped = tonumber(c.dropped), lost = tonumber(c.lost),
      torn = tonumber(c.torn), read = tonumber(c.read), stalled = tonumber(c.stalled),
   }
end

local function max_record(r) return tonumber(lib.rv_ring_max_record(r.ring)) end

-- A cell holds 126 words of data; the first of a record gives two of them to its header.
local function cells_for(size) return math.ceil((math.ceil(size / 8) + 2) / 126) end

-- A record of a given size whose every byte follows from its number.
local function record(number, size)
   local bytes = ffi.new("uint8_t[?]", size)
   for i = 0, size - 1 do bytes[i] = number * 31 + i * 7 + i / 251 end
   return ffi.string(bytes, size)
end

--- Pushes in a child process that dies once it has copied survives bytes of the record. False when
--- the ring dropped the record before that.
local function push_and_die(r, survives, size)
   local pages = math.ceil(survives / PAGE)
   local area = map_shared((pages + math.ceil(size / PAGE) + 1) * PAGE)
   local forbidden = ffi.cast("char *", area) + pages * PAGE
   local spans = ffi.new("rv_span[1]")
   spans[0].data, spans[0].size = forbidden - survives, size
   local pid = ffi.C.fork()
   if pid == 0 then
      ffi.C.signal(SIGSEGV, nil)
      ffi.C.mprotect(forbidden, PAGE, PROT_NONE)
      lib.rv_ring_push(r.ring, spans, 1)
      ffi.C._exit(0)
   end
   local status = ffi.new("int[1]")
   assert.equal(pid, ffi.C.waitpid(pid, status, 0))
   return status[0] ~= 0
end

describe("the trajectory ring", function()
   describe("when it is laid out", function()
      it("takes 16 to 2^24 cells, in a multiple of 64 bytes", function()
         assert.equal(0, tonumber(lib.rv_ring_size(15)))
         assert.equal(0, tonumber(lib.rv_ring_size(2 ^ 24 + 1)))
         for _, cells in ipairs { 16, 17, 1000, 2 ^ 24 } do
            local size = tonumber(lib.rv_ring_size(cells))
            assert.is_true(size >= cells * engine.RING_CELL_BYTES)
            assert.equal(0, size % 64)
         end
      end)

      it("refuses memory that is too small or not aligned, and says what it needs", function()
         local memory, out = map_shared(PAGE * 8), ffi.new("rv_ring *[1]")
         local err = engine.error_buffer()
         local need = tonumber(lib.rv_ring_size(16))
         assert.equal(lib.RV_ERR_INVALID, lib.rv_ring_init(memory, need - 1, 16, out, err))
         assert.matches("16 cells need " .. need .. " bytes", engine.message(err), 1, true)
         local askew = ffi.cast("char *", memory) + 8
         assert.equal(lib.RV_ERR_INVALID, lib.rv_ring_init(askew, need, 16, out, err))
         assert.matches("64 bytes", engine.message(err), 1, true)
         assert.equal(lib.RV_ERR_RANGE, lib.rv_ring_init(memory, need, 3, out, err))
         assert.matches("3 cells", engine.message(err), 1, true)
      end)

      it("is empty", function()
         local r = new_ring(16)
         local data, status = pop(r)
         assert.is_nil(data)
         assert.equal(lib.RV_ERR_NOTFOUND, status)
         assert.equal(0, tonumber(lib.rv_ring_backlog(r.ring)))
      end)
   end)

   describe("with one record", function()
      it("gives back every size from empty to the largest, bit for bit", function()
         local r = new_ring(64)
         local largest = max_record(r)
         local sizes = { 0, 1, 7, 8, 9, 991, 992, 993, 2000, 2001, largest - 1, largest }
         for number, size in ipairs(sizes) do
            assert.is_true(push(r, record(number, size)))
            assert.equal(cells_for(size), tonumber(lib.rv_ring_backlog(r.ring)))
            assert.equal(record(number, size), pop(r))
            assert.equal(0, tonumber(lib.rv_ring_backlog(r.ring)))
         end
         assert.same({ written = #sizes, read = #sizes, dropped = 0, lost = 0, torn = 0, stalled = 0 },
            counters(r))
      end)

      it("offers a quarter of the window to the largest record, and drops a larger one", function()
         local r = new_ring(64)
         assert.equal(16, cells_for(max_record(r)))
         assert.equal(17, cells_for(max_record(r) + 1))
         assert.is_false(push(r, record(1, max_record(r) + 1)))
         assert.equal(1, counters(r).dropped)
         assert.is_nil(pop(r))
         assert.equal(0, tonumber(lib.rv_ring_backlog(r.ring)))
      end)

      it("drops a record whose spans add up beyond what size_t holds", function()
         local r = new_ring(64)
         local spans = ffi.new("rv_span[2]")
         spans[0].data, spans[0].size = buffer, 16
         spans[1].data, spans[1].size = buffer, ffi.cast("size_t", -8)
         assert.is_false(lib.rv_ring_push(r.ring, spans, 2))
         assert.equal(1, counters(r).dropped)
      end)

      it("gathers it from spans of any size and alignment", function()
         local r = new_ring(64)
         local whole = record(3, 3000)
         for _, cut in ipairs { 1, 3, 5, 8, 991, 992, 1000, 2999 } do
            local middle = cut + math.floor((3000 - cut) / 2)
            assert.is_true(push(r, whole:sub(1, cut), "", whole:sub(cut + 1, middle), whole:sub(middle + 1),
               ""))
            assert.equal(whole, pop(r))
         end
      end)

      it("keeps it when the reader's buffer is too small, and tells the need", function()
         local r = new_ring(64)
         push(r, record(1, 2500))
         local data, status = pop(r, 2499)
         assert.is_nil(data)
         assert.equal(lib.RV_ERR_FULL, status)
         assert.equal(2500, tonumber(size_out[0]))
         assert.equal(record(1, 2500), pop(r, 2500))
         assert.equal(1, counters(r).read)
      end)
   end)

   describe("with one writer and one reader taking turns", function()
      -- The model: a queue of what was pushed. A record is lost at the moment its first cell is
      -- reserved again, one window later; nothing else loses one.
      local function run(seed, cells, steps, push_share)
         local rng = ffi.new("rv_prng")
         lib.rv_prng_seed(rng, seed)
         local r = new_ring(cells)
         local largest = max_record(r)
         local queue, first, last = {}, 1, 0
         local head, number = 0, 0
         local model = { written = 0, read = 0, lost = 0, dropped = 0, torn = 0, stalled = 0 }
         for _ = 1, steps do
            if lib.rv_prng_uniform(rng) < push_share then
               number = number + 1
               local size = tonumber(lib.rv_prng_below(rng, 4) == 0 and lib.rv_prng_below(rng, largest + 200)
                  or lib.rv_prng_below(rng, 1500))
               local data = record(number, size)
               if push(r, data) ~= (size <= largest) then error("push of " .. size .. " bytes") end
               if size > largest then
                  model.dropped = model.dropped + 1
               else
                  last = last + 1
                  queue[last] = { at = head, data = data }
                  head = head + cells_for(size)
                  model.written = model.written + 1
                  while queue[first] and queue[first].at + cells < head do
                     queue[first] = nil
                     first, model.lost = first + 1, model.lost + 1
                  end
               end
            else
               local data, status = pop(r)
               if first > last then
                  assert.is_nil(data)
                  assert.equal(lib.RV_ERR_NOTFOUND, status)
               else
                  if queue[first].data ~= data then assert.equal(queue[first].data, data) end
                  queue[first] = nil
                  first, model.read = first + 1, model.read + 1
               end
            end
            for name, value in pairs(counters(r)) do
               if value ~= model[name] then assert.same(model, counters(r)) end
            end
         end
         assert.equal(model.written, model.read + model.lost + (last - first + 1))
         return model
      end

      it("agrees with the model step by step while the reader keeps up", function()
         for seed = 1, 12 do
            local model = run(seed, 64 + seed, 2000, 0.5)
            assert.is_true(model.read > 500)
         end
      end)

      it("agrees with the model while it overruns the reader again and again", function()
         for seed = 101, 112 do
            local model = run(seed, 16 + 5 * (seed - 101), 2000, 0.85)
            assert.is_true(model.lost > 100 and model.read > 100)
         end
      end)

      it("goes round the window thousands of times", function()
         local r = new_ring(16)
         for number = 1, 20000 do
            assert.is_true(push(r, "record " .. number))
            assert.equal("record " .. number, pop(r))
         end
         assert.same({ written = 20000, read = 20000, dropped = 0, lost = 0, torn = 0, stalled = 0 },
            counters(r))
      end)

      it("leaves the newest window to a reader that comes late", function()
         local r = new_ring(16)
         for number = 1, 1000 do push(r, "record " .. number) end
         assert.equal(1000, tonumber(lib.rv_ring_backlog(r.ring)))
         for number = 985, 1000 do assert.equal("record " .. number, pop(r)) end
         assert.is_nil(pop(r))
         assert.same({ written = 1000, read = 16, dropped = 0, lost = 984, torn = 0, stalled = 0 },
            counters(r))
      end)
   end)

   describe("looked back into", function()
      local words = ffi.new("uint64_t[3]")

      --- The newest record that begins with these bytes (whole words), or nil and the status.
      local function find(r, prefix, capacity)
         ffi.copy(words, prefix, #prefix)
         local status = lib.rv_ring_find(r.ring, words, #prefix / 8, buffer,
            capacity or ffi.sizeof(buffer), size_out)
         if status == lib.RV_OK then return ffi.string(buffer, size_out[0]) end
         return nil, status
      end

      local function name(number) return ("name%04d"):format(number) end
      local function named(number, size) return name(number) .. record(number, size or 8) end

      it("finds a record before and after it was read, and takes nothing away", function()
         local r = new_ring(64)
         for number = 1, 5 do push(r, named(number, 700 * number)) end
         local before = counters(r)
         for number = 1, 5 do assert.equal(named(number, 700 * number), find(r, name(number))) end
         assert.same(before, counters(r))
         for number = 1, 5 do assert.equal(named(number, 700 * number), pop(r)) end
         for number = 1, 5 do assert.equal(named(number, 700 * number), find(r, name(number))) end
      end)

      it("gives the newest of several, and tells longer names apart", function()
         local r = new_ring(64)
         push(r, "name0001", "aaaaaaaa", "older")
         push(r, "name0001", "aaaaaaaa", "newer")
         push(r, "name0001", "bbbbbbbb", "other")
         assert.equal("name0001aaaaaaaanewer", find(r, "name0001aaaaaaaa"))
         assert.equal("name0001bbbbbbbbother", find(r, "name0001"))
      end)

      it("finds nothing that was not pushed, is shorter than its name, or was pushed out", function()
         local r = new_ring(16)
         assert.equal(lib.RV_ERR_NOTFOUND, select(2, find(r, "name0001")))
         assert.equal(lib.RV_ERR_NOTFOUND, lib.rv_ring_find(r.ring, words, 0, buffer, 100, size_out))
         for number = 1, 40 do push(r, named(number)) end
         for number = 1, 40 do
            local found = find(r, name(number))
            if number > 24 then assert.equal(named(number), found) else assert.is_nil(found) end
         end
         push(r, "short")
         assert.equal(lib.RV_ERR_NOTFOUND, select(2, find(r, "short\0\0\0" .. "12345678")))
      end)

      it("tells the need when the buffer is too small", function()
         local r = new_ring(64)
         push(r, named(1, 2492))
         assert.equal(lib.RV_ERR_FULL, select(2, find(r, "name0001", 2499)))
         assert.equal(2500, tonumber(size_out[0]))
         assert.equal(named(1, 2492), find(r, "name0001", 2500))
      end)

      it("does not show a record that is damaged, or not written to its end", function()
         local r = new_ring(64)
         push(r, named(1, 2600))
         local first_cell = ffi.cast("uint8_t *", r.memory) + 256
         first_cell[1500] = bit.bxor(first_cell[1500], 0x40)
         assert.is_nil(find(r, "name0001"))
         assert.is_true(push_and_die(r, 1500, 5000))
         assert.is_nil(find(r, "\0\0\0\0\0\0\0\0"))
      end)
   end)

   it("works at a second address of the same memory", function()
      local r = new_ring(64)
      push(r, record(1, 3000))
      local size = tonumber(lib.rv_ring_size(64))
      local copy = map_shared(size)
      ffi.copy(copy, r.memory, size)
      local moved = { ring = ffi.cast("rv_ring *", copy), memory = copy }
      assert.equal(record(1, 3000), pop(moved))
      assert.is_true(push(moved, "after the move"))
      assert.equal("after the move", pop(moved))
   end)

   it("rejects a record whose data changed after it was stored, counts it torn and goes on", function()
      for _, at in ipairs { 16, 24, 32, 500, 1040, 2500 } do -- size, checksum and data words
         local r = new_ring(64)
         push(r, record(1, 2600))
         push(r, record(2, 100))
         local first_cell = ffi.cast("uint8_t *", r.memory) + 256 -- head and tail start at a whole lap
         first_cell[at] = bit.bxor(first_cell[at], 0x40)
         assert.equal(record(2, 100), pop(r))
         assert.same({ written = 2, read = 1, dropped = 0, lost = 0, torn = 1, stalled = 0 }, counters(r))
      end
   end)

   describe("when a writer dies in the middle of a push", function()
      it("shows its half-written record as not yet there", function()
         local r = new_ring(64)
         assert.is_true(push_and_die(r, 1500, 5000))
         push(r, "newer")
         local data, status = pop(r)
         assert.is_nil(data)
         assert.equal(lib.RV_ERR_NOTFOUND, status)
      end)

      it("lets the reader past once a whole window has gone by, and counts the record as stalled", function()
         for _, survives in ipairs { 0, 10, 991, 993, 1500, 4900 } do
            local r = new_ring(64)
            push(r, "before")
            assert.is_true(push_and_die(r, survives, 5000))
            assert.equal("before", pop(r))
            local pushed, stored = 0, 0
            while not pop(r) do
               pushed = pushed + 1
               assert.is_true(pushed <= 80)
               if push(r, "record " .. pushed) then stored = stored + 1 end
            end
            while pop(r) do end -- luacheck: ignore 542
            local c = counters(r)
            assert.equal(1, c.stalled)
            assert.equal(1, c.torn)
            assert.equal(stored + 1, c.written)
            assert.equal(pushed - stored, c.dropped)
            assert.equal(c.written, c.read + c.lost)
            -- and it left no cell behind that would cost a record at every lap
            for number = 1, 200 do
               assert.is_true(push(r, record(number, 1500)))
               assert.equal(record(number, 1500), pop(r))
            end
            assert.equal(c.dropped, counters(r).dropped)
         end
      end)

      it("survives many deaths in many places, with exact accounts", function()
         local rng = ffi.new("rv_prng")
         for seed = 1, 4 do
            lib.rv_prng_seed(rng, seed)
            local r = new_ring(32)
            local attempts, expected_number, last_seen = 0, 0, 0
            local function drain()
               for data in function() return pop(r) end do
                  local number = tonumber(data:match("^(%d+):"))
                  assert.is_true(number > last_seen, "records come in order, each once")
                  assert.equal(data, number .. ":" .. record(number, #data - #(number .. ":")))
                  last_seen = number
               end
            end
            for _ = 1, 300 do
               local dice = tonumber(lib.rv_prng_below(rng, 20))
               attempts = attempts + 1
               if dice == 0 then
                  local size = 1 + tonumber(lib.rv_prng_below(rng, 6000))
                  push_and_die(r, tonumber(lib.rv_prng_below(rng, size)), size)
               else
                  expected_number = expected_number + 1
                  push(r, expected_number .. ":", record(expected_number, tonumber(lib.rv_prng_below(rng,
                     4000))))
               end
               if dice > 12 then drain() end
            end
            for _ = 1, 100 do -- more than a window of small records: nobody alive is writing
               attempts, expected_number = attempts + 1, expected_number + 1
               push(r, expected_number .. ":")
               drain()
            end
            local c = counters(r)
            assert.equal(attempts, c.written + c.dropped + c.stalled)
            assert.equal(c.written, c.read + c.lost + c.torn - c.stalled)
            assert.is_true(c.stalled > 3)
         end
      end)
   end)
end)
