-- The block in which one host hands what it loaded to others.

local engine = require("ruvector.engine")
local policy_host = require("support.policy_host")
local policy, VALID, call = policy_host.policy, policy_host.VALID, policy_host.call
local ffi, lib = engine.ffi, engine.lib

describe("a block of loaded policies", function()
   local from, to, directory
   before_each(function()
      from, to = policy_host.new(), policy_host.new()
      directory = policy_host.directory()
   end)
   after_each(function()
      from:destroy()
      to:destroy()
      policy_host.clean()
   end)

   local function ids(host)
      local list = {}
      for i, one in ipairs(host:policies()) do
         list[i] = { one.id, one.kind, one.file, one.name, one.version, one.source }
      end
      return list
   end

   it("makes another host serve the same, whatever became of the files", function()
      policy_host.write(directory, "verdict", policy("verdict", VALID.verdict))
      policy_host.write(directory, "a_strict", policy("verdict", VALID.verdict, "kind = 'verdict'"))
      policy_host.write(directory, "healing", policy("healing", VALID.healing))
      assert.equal("ok", (from:load(directory)))
      local block = from:export()
      for _, name in ipairs { "verdict", "a_strict", "healing" } do
         os.remove(directory .. "/" .. name .. ".lua")
      end
      assert.equal("ok", (to:import(block)))
      assert.equal(3, #to:policies())
      assert.same(ids(from), ids(to))
      assert.equal(directory .. "/verdict.lua", to:info("verdict").file)
      assert.equal(0.25, call(to, "verdict").confidence)
      assert.equal("ok", to:use("verdict", "a_strict"))
      assert.equal(block, to:export())
   end)

   it("holds the shipped policies", function()
      assert.equal("ok", (from:load("policies")))
      assert.equal("ok", (to:import(from:export())))
      assert.same(ids(from), ids(to))
   end)

   it("may be empty: the built-in policies serve", function()
      assert.equal("ok", (to:load("policies")))
      assert.equal("ok", (to:import(from:export())))
      assert.equal("built-in", to:info("verdict").name)
      assert.equal("ok", (from:load(directory)))
      assert.equal("ok", (to:import(from:export())))
      assert.equal(0, #to:policies())
   end)

   it("is within its limit with as many and as large files as there may be", function()
      local text = policy("verdict", VALID.verdict, "kind = 'verdict'")
      text = text .. "--" .. ("x"):rep(256 * 1024 - #text - 2)
      for i = 1, 64 do policy_host.write(directory, ("v%02d"):format(i), text) end
      assert.equal("ok", (from:load(directory)))
      local block = from:export()
      assert.is_true(#block <= tonumber(engine.host().rv_host_export_limit()))
      assert.equal("ok", (to:import(block)))
      assert.equal(64, #to:policies())
   end)

   it("says how large it is where there is no room", function()
      assert.equal("ok", (from:load("policies")))
      local size, err = ffi.new("size_t[1]"), engine.error_buffer()
      local room = ffi.new("char[200]")
      ffi.fill(room, 200, 7)
      assert.equal(lib.RV_ERR_FULL, engine.host().rv_host_export(from.c, room, 100, size, err))
      assert.equal(#from:export(), tonumber(size[0]))
      for i = 0, 199 do assert.equal(7, room[i]) end
   end)

   it("is tested like files: what fails leaves the former policies", function()
      policy_host.write(directory, "verdict", policy("verdict", VALID.verdict, [[self_test = function()
         for _ = 1, 100000 do end return true end]]))
      assert.equal("ok", (from:load(directory)))
      to:destroy()
      to = policy_host.new({ fuel = 10000 })
      local cause, failure = to:import(from:export())
      assert.equal("fuel", cause)
      assert.equal(directory .. "/verdict.lua", failure.file)
      assert.equal("built-in", to:info("verdict").name)
   end)

   local function refused(block)
      local cause, failure = to:import(block)
      assert.equal("io", cause)
      assert.match("the block of loaded policies is damaged", failure.reason, 1, true)
      assert.equal("verdict", to:info("verdict").name)
   end

   it("is refused when it is cut, longer, or any byte of it is another", function()
      policy_host.write(directory, "verdict", policy("verdict", VALID.verdict))
      policy_host.write(directory, "healing", policy("healing", VALID.healing))
      assert.equal("ok", (from:load(directory)))
      assert.equal("ok", (to:load("policies")))
      local block = from:export()
      for size = 0, #block - 1 do refused(block:sub(1, size)) end
      refused(block .. "x")
      for at = 1, #block do
         refused(block:sub(1, at - 1) .. string.char((block:byte(at) + 1) % 256) .. block:sub(at + 1))
      end
   end)

   -- A block with the checksum that belongs to it, changed by a function of its bytes.
   local function forged(change)
      local block = from:export()
      local bytes = ffi.new("uint8_t[?]", #block)
      ffi.copy(bytes, block, #block)
      change(bytes)
      local hash = 14695981039346656037ULL
      for i = 32, #block - 1 do
         local low = bit.bxor(tonumber(hash % 256), bytes[i])
         hash = (hash - hash % 256 + low) * 1099511628211ULL
      end
      ffi.cast("uint64_t *", bytes + 16)[0] = hash
      return ffi.string(bytes, #block)
   end

   it("is refused when it contradicts itself, though its checksum is right", function()
      policy_host.write(directory, "verdict", policy("verdict", VALID.verdict))
      policy_host.write(directory, "healing", policy("healing", VALID.healing))
      assert.equal("ok", (from:load(directory)))
      assert.equal("ok", (to:load("policies")))
      local entry, file, source = 32, 32 + 64, 32 + 68
      local function set(at, value)
         return function(bytes) ffi.cast("uint32_t *", bytes + at)[0] = value end
      end
      assert.equal(from:export(), forged(function() end))
      for _, change in ipairs {
         set(24, 1), set(24, 3), set(24, 65), set(24, 0xffffffff), -- policies
         set(file, 0), set(file, 4097), set(file, 0xffffffff),
         set(source, 256 * 1024 + 1), set(source, 0xffffffff), set(source, 256 * 1024),
         function(bytes) bytes[entry] = 0 end,
         function(bytes) bytes[entry] = ("/"):byte() end,
         function(bytes) ffi.fill(bytes + entry, 64, ("a"):byte()) end,
         function(bytes) ffi.copy(bytes + entry, "zz") end, -- behind healing
         function(bytes) bytes[entry + 72] = 0 end,         -- in the file's name
      } do
         refused(forged(change))
      end
   end)

   it("may find no memory at any point, and leaks nothing", function()
      assert.equal("ok", (from:load("policies")))
      local block = from:export()
      local a = ffi.new("rv_test_allocator[1]")
      local function import(fail_at)
         lib.rv_test_allocator_init(a, fail_at)
         local options, out = ffi.new("rv_host_options[1]"), ffi.new("rv_host *[1]")
         options[0].allocator = a[0].allocator
         local status = engine.host().rv_host_create(options, out, engine.error_buffer())
         if status ~= lib.RV_OK then return "memory" end
         local host = policy_host.wrap(out[0], a[0].allocator)
         local cause = host:import(block)
         host:destroy()
         assert.equal(0, tonumber(a[0].live))
         return cause
      end
      assert.equal("ok", import(0))
      for fail_at = 1, 20 do assert.equal("memory", import(fail_at)) end
   end)
end)
