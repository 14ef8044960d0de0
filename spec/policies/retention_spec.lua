-- retention.lua, run by the host as the server runs it.

local engine = require("ruvector.engine")
local policy_host = require("support.policy_host")
local pattern = policy_host.pattern

local DAY_US = 86400 * 1000000

describe("retention", function()
   local host, built_in
   setup(function()
      host, built_in = policy_host.new(), policy_host.new()
      assert.equal("ok", (host:load("policies")))
   end)
   teardown(function()
      host:destroy()
      built_in:destroy()
   end)

   local function merge(a, b, weight, a_centroid, b_centroid)
      local failures = host:info("retention").failures
      local merged, centroid = host:merge(a, a_centroid or { 1, 0 }, b, b_centroid or { 0, 1 }, weight)
      assert.equal(failures, host:info("retention").failures)
      engine.check(engine.lib.rv_pattern_check(merged, nil))
      return merged, centroid
   end

   describe("merging two patterns", function()
      local old = pattern({ samples = 100, usage = 5, confidence = 0.4, created_us = 10, updated_us = 20,
         table_slack = function(i) return 0.1 + 0.1 * i end, table_ef = function(i) return 20 + 20 * i end })
      local new = pattern({ samples = 300, usage = 7, confidence = 0.8, created_us = 30, updated_us = 40,
         table_slack = function(i) return 0.2 + 0.2 * i end, table_ef = function(i) return 40 + 40 * i end,
         target_recall = 0.98 })

      it("gives the older at weight 0 and the newer at weight 1, table by table", function()
         for weight, source in pairs({ [0] = old, [1] = new }) do
            local merged = merge(old, new, weight)
            for i = 0, engine.TARGETS - 1 do
               assert.near(source.table_slack[i], merged.table_slack[i], 1e-6)
               assert.near(source.table_ef[i], merged.table_ef[i], 1)
               assert.near(source.table_recall[i], merged.table_recall[i], 1e-6)
            end
         end
      end)

      it("averages efforts on a logarithmic scale", function()
         local merged = merge(old, new, 0.25)
         assert.near(1.1 ^ 0.75 * 1.2 ^ 0.25 - 1, merged.table_slack[0], 1e-6)
         assert.equal(math.ceil(20 ^ 0.75 * 40 ^ 0.25), merged.table_ef[0])
      end)

      it("adds samples and usage, keeps the first and the last date", function()
         local merged = merge(old, new, 0.5)
         assert.equal(400, merged.samples)
         assert.equal(12, tonumber(merged.usage))
         assert.equal(10, tonumber(merged.created_us))
         assert.equal(40, tonumber(merged.updated_us))
         assert.near(0.6, merged.confidence, 1e-6)
      end)

      it("sets the headline to the newer target, read from the merged tables", function()
         local merged = merge(old, new, 0.5)
         assert.near(0.98, merged.target_recall, 1e-6)
         assert.near(merged.table_slack[8], merged.slack, 1e-6)
         assert.equal(merged.table_ef[8], merged.optimal_ef_search)
      end)

      it("moves the centroid by the weight, and keeps unit length", function()
         local _, centroid = merge(old, new, 0.25, { 4, 0 }, { 0, 8 })
         assert.same({ 3, 2 }, centroid)
         _, centroid = merge(old, new, 0.5, { 1, 0 }, { 0, 1 })
         assert.near(math.sqrt(0.5), centroid[1], 1e-6)
         assert.near(math.sqrt(0.5), centroid[2], 1e-6)
      end)

      it("joins the entry points, the newer ones first, each once", function()
         local a, b = pattern({ entry_count = 3 }), pattern({ entry_count = 2 })
         for i, node in ipairs({ 11, 12, 13 }) do a.entry_points[i - 1] = node end
         for i, node in ipairs({ 21, 12 }) do b.entry_points[i - 1] = node end
         local merged, nodes = merge(a, b, 0.5), {}
         for i = 0, merged.entry_count - 1 do nodes[i + 1] = tonumber(merged.entry_points[i]) end
         assert.same({ 21, 11, 12, 13 }, nodes)
      end)

      it("may write over the older centroid, as the bank does", function()
         local a, b = engine.floats({ 2, 0 }), engine.floats({ 0, 2 })
         local out, err = engine.ffi.new("rv_pattern"), engine.error_buffer()
         engine.check(engine.host().rv_host_merge(host.c, old, a, new, b, 2, 0.5, out, a, err), err)
         assert.same({ 1, 1 }, { a[0], a[1] })
      end)

      it("stays valid over many merges of any patterns", function()
         math.randomseed(3)
         local current = pattern()
         for _ = 1, 500 do
            local step, ef_step = math.random() * 0.3, math.random(0, 300)
            local other = pattern({
               samples = math.random(0, 100000), confidence = math.random(),
               table_slack = function(i) return step * i end,
               table_ef = function(i) return 1 + ef_step * i end,
            })
            current = merge(current, other, math.random())
         end
         assert.is_true(current.samples <= 1000000)
      end)
   end)

   it("merges by the engine's rule when no policy is loaded", function()
      local a, b = pattern({ confidence = 0.2 }), pattern({ confidence = 0.6 })
      local mine = built_in:merge(a, { 1, 0 }, b, { 1, 0 }, 0.5)
      local out, centroid = engine.ffi.new("rv_pattern"), engine.floats({ 1, 0 })
      engine.check(engine.lib.rv_pattern_merge(nil, a, centroid, b, centroid, 2, 0.5, out, centroid, nil))
      assert.equal(out.confidence, mine.confidence)
      assert.equal(out.samples, mine.samples)
   end)

   describe("keeping a pattern", function()
      local now = 1000 * DAY_US
      local function kept(usage, confidence, idle_days)
         local p = pattern({ usage = usage, confidence = confidence, updated_us = now - idle_days * DAY_US })
         local answer = host:keep(p, now)
         assert.equal(answer, built_in:keep(p, now))
         return answer
      end

      it("drops what is unused and weak and old", function() assert.is_false(kept(0, 0.1, 31)) end)
      it("keeps what is used", function() assert.is_true(kept(2, 0.1, 31)) end)
      it("keeps what is sure", function() assert.is_true(kept(0, 0.5, 31)) end)
      it("keeps what is fresh", function() assert.is_true(kept(0, 0.1, 29)) end)
      it("draws its lines where the defaults say", function()
         assert.is_false(kept(1, 0.29, 30.1))
         assert.is_true(kept(1, 0.31, 30.1))
      end)
   end)
end)
