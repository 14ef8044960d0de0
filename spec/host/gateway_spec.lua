-- The gateway: whatever a policy does, the caller gets an answer and a cause.

local policy_host = require("support.policy_host")
local serving, call, policy = policy_host.serving, policy_host.call, policy_host.policy
local VALID = policy_host.VALID

describe("a failing policy", function()
   local host
   after_each(function()
      host:destroy()
      policy_host.clean()
   end)

   it("is replaced by the built-in for that call", function()
      local built_in = policy_host.new()
      local signals = { recall = 0.5, target_recall = 0.95, needed_distances = 900 }
      local expected = built_in:judge(signals)
      built_in:destroy()
      host = serving("verdict", "error('boom')")
      local result, cause, failure = host:judge(signals)
      assert.equal("error", cause)
      assert.equal("boom", failure.reason)
      assert.same(expected, result)
   end)

   it("is reported with the line where it failed", function()
      host = serving("verdict", "\n local t = nil\n return t.x")
      local _, cause, failure = call(host, "verdict")
      assert.equal("error", cause)
      assert.equal(4, failure.line)
      assert.truthy(failure.file:find("/verdict.lua$"))
   end)

   it("may raise anything", function()
      for value, reason in pairs({
         ["nil"] = "error raised with a nil value", ["{}"] = "error raised with a table value",
         ["42"] = "42", ["'text', 0"] = "text",
      }) do
         host = serving("verdict", "error(" .. value .. ")")
         local _, cause, failure = call(host, "verdict")
         assert.equal("error", cause)
         assert.equal(reason, failure.reason)
         assert.equal(2, failure.line)
         host:destroy()
      end
      host = serving("verdict", "error(string.rep('long ', 1000))")
      local _, _, failure = call(host, "verdict")
      assert.equal(511, #failure.reason)
   end)

   it("is counted by cause, over reloads, and timed", function()
      host = serving("verdict", "calls.n = calls.n + 1 if calls.n == 1 then error('x') end "
         .. "if calls.n == 2 then return 1 end " .. VALID.verdict, nil, nil, "local calls = { n = 0 }")
      for _ = 1, 4 do call(host, "verdict") end
      host:load("policies")
      call(host, "verdict")
      local info = host:info("verdict")
      assert.equal(5, info.calls)
      assert.equal(2, info.failures)
      assert.equal(1, info.by_cause.error)
      assert.equal(1, info.by_cause.shape)
      assert.equal(0, info.by_cause.fuel)
      assert.is_true(info.mean_us > 0 and info.worst_us >= info.mean_us)
      assert.equal(0, host:info("interpolation").calls)
   end)

   it("is logged once for each cause and line, and again after a reload", function()
      local directory = policy_host.directory({
         verdict = policy("verdict", "n = n + 1 if n % 2 == 0 then error('even') end\n error('odd')", nil,
            "local n = 0"),
         interpolation = policy("interpolation", "return 1"),
      })
      host = policy_host.new()
      local log = host:collect_log()
      assert.equal("ok", (host:load(directory)))
      for _ = 1, 50 do
         call(host, "verdict")
         call(host, "interpolation")
      end
      assert.equal(3, #log)
      local seen = {}
      for _, entry in ipairs(log) do seen[entry.kind .. " " .. entry.cause .. " " .. entry.line] = true end
      assert.is_true(seen["verdict error 2"] and seen["verdict error 3"] and seen["interpolation shape 2"])
      host:load(directory)
      call(host, "verdict")
      assert.equal(4, #log)
   end)

   it("does not log without end", function()
      local lines = {}
      for i = 1, 200 do lines[i] = "if n == " .. i .. " then error('x') end" end
      host = serving("verdict", "n = n + 1\n" .. table.concat(lines, "\n"), nil, nil, "local n = 0")
      local log = host:collect_log()
      for _ = 1, 200 do call(host, "verdict") end
      assert.equal(64, #log)
      assert.equal(200, host:info("verdict").failures)
   end)

   it("costs no memory, however often it fails, and good calls still work", function()
      local bodies = {
         "error('x')", "return { 1 }", "local t = nil; do return t.x end", "error({ string.rep('x', 1e5) })",
      }
      for _, body in ipairs(bodies) do
         host = serving("verdict", "n = n + 1 if n > 1000 then " .. VALID.verdict .. " end " .. body,
            { memory = 1024 * 1024 }, nil, "local n = 0")
         for _ = 1, 1000 do
            local _, cause = call(host, "verdict")
            assert.not_equal("ok", cause)
            assert.not_equal("memory", cause)
         end
         local result, cause, failure = call(host, "verdict")
         assert.equal("ok", cause, failure.reason)
         assert.equal(0.25, result.confidence)
         host:destroy()
      end
      host = policy_host.new()
   end)

   it("costs no memory when it works, either: the host's part leaves no garbage behind", function()
      host = policy_host.new({ memory = 600 * 1024 })
      assert.equal("ok", (host:load("policies")))
      for _ = 1, 20000 do
         local _, cause = call(host, "interpolation")
         assert.equal("ok", cause)
      end
      for _ = 1, 2000 do
         local _, cause = call(host, "verdict")
         assert.equal("ok", cause)
      end
   end)

   it("cannot break the argument tables for the calls that follow", function()
      host = serving("interpolation", [[
         local seen = #patterns
         for key in pairs(defaults) do defaults[key] = 'broken' end
         for key in pairs(query) do query[key] = nil end
         for i = 1, 8 do patterns[i] = patterns end
         if type(seen) == 'number' then
            return { slack = seen / 10, ef_search = 50, probes = 2 }
         end]])
      for n = 0, 8 do
         local patterns = {}
         for i = 1, n do patterns[i] = policy_host.advice() end
         local result, cause, failure = host:interpolate(policy_host.advice(), patterns)
         assert.equal("ok", cause, failure.reason)
         assert.near(n / 10, result.slack, 1e-12)
      end
   end)
end)

describe("results of a wrong shape", function()
   local host
   after_each(function()
      if host then host:destroy() end
      host = nil
      policy_host.clean()
   end)

   -- every result here is refused; the second part must be in the reason
   local function assert_refused(kind, cases)
      for _, case in ipairs(cases) do
         host = serving(kind, case[1])
         local _, cause, failure = call(host, kind)
         assert.equal("shape", cause, case[1])
         assert.truthy(failure.reason:find(case[2], 1, true), case[1] .. ": " .. failure.reason)
         assert.equal(2, failure.line)
         assert.equal(1, host:info(kind).by_cause.shape)
         host:destroy()
         host = nil
      end
   end

   it("of interpolate are named by field, value and range", function()
      local function result(slack, ef, probes, more)
         local text = "return { slack = %s, ef_search = %s, probes = %s %s }"
         return text:format(slack, ef, probes, more or "")
      end
      assert_refused("interpolation", {
         { "", "interpolation.interpolate returned nothing; a table is expected" },
         { "return 1", "returned 1; a table" },
         { "return 'slack'", "the string \"slack\"" },
         { result("nil", 1, 1), "slack = nothing; a number from 0 to 10 is expected" },
         { result("'0.5'", 1, 1), "slack = the string \"0.5\"" },
         { result("{}", 1, 1), "slack = a table" },
         { result("-0.001", 1, 1), "slack = -0.001" },
         { result("10.01", 1, 1), "slack = 10.01" },
         { result("0/0", 1, 1), "slack = " },
         { result("math.huge", 1, 1), "slack = inf" },
         { result("0.5", 0, 1), "ef_search = 0; a number from 1 to 100000" },
         { result("0.5", 100001, 1), "ef_search = 100001" },
         { result("0.5", 1, "false"), "probes = false" },
         { result("0.5", 1, 1, ", ef = 3"), "unknown field, the string \"ef\"" },
         { result("0.5", 1, 1, ", 7"), "unknown field, 1" },
      })
   end)

   it("of heal are named by field, value and range", function()
      local function result(changes)
         local fields = { run = "true", queries = "100", rows_per_query = "48", links_per_node = "8",
            min_requests = "1", min_gain = "0" }
         for name, value in pairs(changes) do fields[name] = value end
         local parts = {}
         for name, value in pairs(fields) do parts[#parts + 1] = name .. " = " .. value end
         return "return { " .. table.concat(parts, ", ") .. " }"
      end
      assert_refused("healing", {
         { "return true", "healing.heal returned true; a table is expected" },
         { result({ run = "1" }), "run = 1; true or false" },
         { result({ run = "nil" }), "run = nothing" },
         { result({ queries = "0" }), "queries = 0; a whole number from 1 to 8192" },
         { result({ queries = "8193" }), "queries = 8193" },
         { result({ queries = "2.5" }), "queries = 2.5; a whole number" },
         { result({ queries = "0/0" }), "queries = " },
         { result({ rows_per_query = "1" }), "rows_per_query = 1; a whole number from 2 to 128" },
         { result({ rows_per_query = "129" }), "rows_per_query = 129" },
         { result({ links_per_node = "0" }), "links_per_node = 0; a whole number from 1 to 32" },
         { result({ links_per_node = "math.huge" }), "links_per_node = inf" },
         { result({ min_requests = "0" }), "min_requests = 0; a whole number from 1 to 8192" },
         { result({ min_gain = "-0.1" }), "min_gain = -0.1; a number from 0 to 1" },
         { result({ min_gain = "'0.5'" }), "min_gain = the string \"0.5\"" },
         { result({ at = "3" }), "an unknown field, the string \"at\"" },
         { "local t = {} t.run = t return t", "run = a table" },
      })
   end)

   it("of judge are named by field, value and range", function()
      local function result(success, confidence, scores, recommendations)
         return ("return { success = %s, confidence = %s, scores = %s, recommendations = %s }")
            :format(success, confidence, scores, recommendations)
      end
      assert_refused("verdict", {
         { "return true", "returned true; a table" },
         { result("1", "0.5", "{}", "{}"), "success = 1; true or false" },
         { result("nil", "0.5", "{}", "{}"), "success = nothing" },
         { result("true", "1.5", "{}", "{}"), "confidence = 1.5; a number from 0 to 1" },
         { result("true", "0/0", "{}", "{}"), "confidence = " },
         { result("true", "1", "nil", "{}"), "scores = a nil" },
         { result("true", "1", "{ recall = 2 }", "{}"), "scores.recall = 2" },
         { result("true", "1", "{ speed = 1 }", "{}"), "unknown field, the string \"speed\"" },
         { result("true", "1", "{}", "'try harder'"), "recommendations = a string" },
         { result("true", "1", "{}", "{ 5 }"), "recommendations[1] = a number" },
         { result("true", "1", "{}", "{ '' }"), "recommendations[1] of 0 bytes" },
         { result("true", "1", "{}", "{ 'ok', string.rep('x', 160) }"), "recommendations[2] of 160 bytes" },
         { result("true", "1", "{}", "{ 'a\\nb' }"), "control character" },
         { result("true", "1", "{}", "{ 'a', 'b', 'c', 'd', 'e' }"), "5 recommendations; at most 4" },
         { "local t = {} for i = 1, 50000 do t[i] = 'x' end " .. result("true", "1", "{}", "t"),
            "50000 recommendations" },
         { "local t = {} for i = 1, 20000 do t['f' .. i] = i end t.success = true t.confidence = 1 "
            .. "t.scores = {} t.recommendations = {} return t", "unknown field" },
         { "local t = { success = true, confidence = 1 } t.scores = t t.recommendations = t return t",
            "scores: an unknown field" },
      })
   end)

   it("of distill are named by pattern, field, value and range", function()
      local function array(value)
         return "(function() local t = {} for i = 1, 12 do t[i] = " .. value .. " end return t end)()"
      end
      local function result(changes)
         local fields = {
            cluster = "0", confidence = "0.5", probes = "1", entry_points = "0",
            table_slack = array("i / 10"), table_ef = array("10 * i"), table_recall = array("i / 12"),
         }
         for name, value in pairs(changes) do fields[name] = value end
         local parts = {}
         for name, value in pairs(fields) do parts[#parts + 1] = name .. " = " .. value end
         return "return { { " .. table.concat(parts, ", ") .. " } }"
      end
      host = serving("distillation", result({}))
      local patterns, cause, failure = call(host, "distillation")
      assert.equal("ok", cause, failure.reason)
      assert.equal(1, #patterns)
      host:destroy()
      host = nil
      assert_refused("distillation", {
         { "return 3", "returned 3; a table" },
         { "return { 1 }", "patterns[1] = a number" },
         { result({ cluster = "nil" }), "patterns[1].cluster = nothing" },
         { result({ cluster = "1" }), "patterns[1].cluster = 1; a whole number from 0 to 0" },
         { result({ cluster = "0.5" }), "cluster = 0.5; a whole number" },
         { result({ confidence = "-1" }), "confidence = -1" },
         { result({ probes = "0" }), "probes = 0" },
         { result({ entry_points = "9" }), "entry_points = 9; a whole number from 0 to 8" },
         { result({ table_slack = "{}" }), "table_slack with 0 entries; 12 numbers" },
         { result({ table_slack = "0.5" }), "table_slack = 0.5; a table of 12 numbers" },
         { result({ table_slack = array("0/0") }), "table_slack[1] = " },
         { result({ table_slack = array("i") }), "table_slack[11] = 11; a number from 0 to 10" },
         { result({ table_slack = array("1 - i / 20") }), "table_slack[2] = 0.9, less than 0.95 before it" },
         { result({ table_ef = array("0") }), "table_ef[1] = 0" },
         { result({ table_recall = array("2") }), "table_recall[1] = 2" },
         { result({ links = "{}" }), "unknown field" },
         { "local t = {} for i = 1, 100000 do t[i] = t end return t", "100000 patterns" },
      })
   end)

   it("of merge and keep are shape failures, after which the built-in serves", function()
      host = serving("retention", "return { samples = 'many' }")
      local a, b = policy_host.pattern(), policy_host.pattern({ confidence = 0.9 })
      local merged = host:merge(a, { 1, 0 }, b, { 1, 0 }, 0.5)
      assert.near(0.7, merged.confidence, 1e-6)
      assert.is_true(host:keep(a, 0))
      assert.equal(2, host:info("retention").by_cause.shape)
   end)

   it("of merge that the bank would refuse are shape failures", function()
      host = policy_host.new()
      local text = assert(io.open("policies/retention.lua")):read("*a")
      text = text:gsub("radius = mean%b()", "radius = 3", 1)
      assert.equal("ok", (host:load(policy_host.directory({ retention = text }))))
      local a = policy_host.pattern({ scope = 0, radius = 0 })
      local merged = host:merge(a, { 0, 0 }, a, { 0, 0 }, 0.5)
      assert.equal(0, merged.radius)
      assert.equal(1, host:info("retention").by_cause.shape)
   end)
end)
