-- Memory: everything comes from the allocator that was given, goes back to it, and may be refused
-- at any point.

local engine = require("ruvector.engine")
local policy_host = require("support.policy_host")
local ffi, lib = engine.ffi, engine.lib

local function samples(count)
   local list = {}
   for i = 1, count do
      list[i] = {
         query = { i % 4, i / count }, slacks = { 0.01 * (i % 7), 0.01 * (i % 7) + 0.1, 0.3 },
         nearest = { i % 5, 100 + i },
      }
   end
   return list
end

-- Everything a host does, once; returns the causes. Nothing in here may raise.
local function full_life(allocator)
   local out, err = ffi.new("rv_host *[1]"), engine.error_buffer()
   local options = ffi.new("rv_host_options[1]")
   options[0].allocator = allocator
   options[0].directory = "policies"
   if engine.host().rv_host_create(options, out, err) ~= lib.RV_OK then return { "create" } end
   local host = policy_host.wrap(out[0], allocator)
   local causes = { (host:load(nil)) }
   causes[2] = select(2, host:judge({ recall = 0.9, target_recall = 0.95 }))
   causes[3] = select(2, host:interpolate(policy_host.advice(), { policy_host.advice() }))
   causes[4] = select(2, host:distill(policy_host.batch(samples(250), { min_samples = 10 })))
   host:merge(policy_host.pattern(), { 1, 0 }, policy_host.pattern(), { 0, 1 }, 0.5)
   host:keep(policy_host.pattern(), 0)
   host:destroy()
   return causes
end

describe("the host's memory", function()
   it("all goes back to the allocator", function()
      local a = ffi.new("rv_test_allocator[1]")
      lib.rv_test_allocator_init(a, 0)
      assert.same({ "ok", "ok", "ok", "ok" }, full_life(a[0].allocator))
      assert.equal(0, tonumber(a[0].live))
      assert.is_true(tonumber(a[0].calls) > 1000)
   end)

   it("may be refused at any allocation: the answer comes, nothing leaks", function()
      local a = ffi.new("rv_test_allocator[1]")
      lib.rv_test_allocator_init(a, 0)
      full_life(a[0].allocator)
      local calls = tonumber(a[0].calls)
      local failed_loads, fail_at = 0, 1
      while fail_at <= calls do
         lib.rv_test_allocator_init(a, fail_at)
         local causes = full_life(a[0].allocator)
         assert.equal(0, tonumber(a[0].live), "leak when allocation " .. fail_at .. " fails")
         for _, cause in ipairs(causes) do
            local expected = { ok = true, memory = true, missing = true, create = true }
            assert.is_true(expected[cause] or false, cause)
         end
         if causes[1] == "memory" then failed_loads = failed_loads + 1 end
         fail_at = fail_at + math.max(1, math.floor(fail_at / 150))
      end
      assert.is_true(failed_loads > 50)
   end)

   it("is given back after a failing load and after reloads", function()
      local a = ffi.new("rv_test_allocator[1]")
      lib.rv_test_allocator_init(a, 0)
      local host = policy_host.new({ allocator = a[0].allocator })
      local broken = policy_host.directory({ verdict = "return {", interpolation = "error('x')" })
      host:load("policies")
      local live = tonumber(a[0].live)
      for _ = 1, 20 do
         assert.equal("syntax", (host:load(broken)))
         assert.equal(live, tonumber(a[0].live))
      end
      host:destroy()
      policy_host.clean()
      assert.equal(0, tonumber(a[0].live))
   end)
end)
