-- The sandbox: what a policy sees, and what stops it.

local policy_host = require("support.policy_host")
local serving, call = policy_host.serving, policy_host.call
local VALID = policy_host.VALID

-- Every name of LuaJIT's standard library, and whether a policy may see it.
local NAMES = {
   visible = {
      "assert", "error", "ipairs", "next", "pairs", "select", "unpack", "tonumber", "tostring", "type",
      "require", "math", "string", "table",
      "math.abs", "math.acos", "math.asin", "math.atan", "math.atan2", "math.ceil", "math.cos", "math.cosh",
      "math.deg", "math.exp", "math.floor", "math.fmod", "math.frexp", "math.huge", "math.ldexp", "math.log",
      "math.log10", "math.max", "math.min", "math.modf", "math.pi", "math.pow", "math.rad", "math.sin",
      "math.sinh", "math.sqrt", "math.tan", "math.tanh",
      "string.byte", "string.char", "string.format", "string.len", "string.lower", "string.rep",
      "string.reverse", "string.sub", "string.upper",
      "table.concat", "table.insert", "table.maxn", "table.remove", "table.sort",
   },
   hidden = {
      "_G", "_VERSION", "arg", "bit", "collectgarbage", "coroutine", "debug", "dofile", "ffi", "gcinfo",
      "getfenv", "getmetatable", "io", "jit", "load", "loadfile", "loadstring", "module", "newproxy", "os",
      "package", "pcall", "print", "rawequal", "rawget", "rawlen", "rawset", "setfenv", "setmetatable",
      "xpcall",
      "math.random", "math.randomseed", "math.mod",
      "string.dump", "string.find", "string.gfind", "string.gmatch", "string.gsub", "string.match",
      "table.foreach", "table.foreachi", "table.getn", "table.setn", "table.new", "table.clear", "table.move",
      "table.pack", "table.unpack",
   },
}

describe("the environment of a policy", function()
   local host
   after_each(function()
      if host then host:destroy() end
      host = nil
      policy_host.clean()
   end)

   local function run(body, before) -- the body may raise; a valid result follows it
      host = serving("verdict", body .. " " .. VALID.verdict, nil, nil, before)
      local _, cause, failure = call(host, "verdict")
      return cause, failure
   end

   it("lists every name of the standard library as visible or hidden", function()
      local listed = {}
      for _, group in pairs(NAMES) do
         for _, name in ipairs(group) do listed[name] = true end
      end
      local program = [[
         for name, value in pairs(_G) do
            print(name)
            if type(value) == 'table' and (name == 'math' or name == 'string' or name == 'table') then
               for field in pairs(value) do print(name .. '.' .. field) end
            end
         end]]
      local pipe = assert(io.popen('luajit -e "' .. program:gsub("\n", " ") .. '"'))
      local seen = 0
      for name in pipe:lines() do
         seen = seen + 1
         assert.is_true(listed[name] or false, name .. " of LuaJIT's library is in neither list")
      end
      pipe:close()
      assert.is_true(seen > 80)
   end)

   it("shows the harmless names", function()
      for _, name in ipairs(NAMES.visible) do
         local cause, failure = run("if " .. name .. " == nil then error('nil') end")
         assert.equal("ok", cause, name .. ": " .. failure.reason)
         host:destroy()
         host = nil
      end
   end)

   it("hides every other name, and says which one was asked for", function()
      for _, name in ipairs(NAMES.hidden) do
         local cause, failure = run("local x = " .. name)
         assert.equal("error", cause, name)
         assert.equal(("'%s' is not defined or not available to policies"):format(name), failure.reason)
         assert.equal(2, failure.line)
         host:destroy()
         host = nil
      end
   end)

   it("refuses to set a global, and names it", function()
      local cause, failure = run("counter = 1")
      assert.equal("error", cause)
      assert.equal("assignment to global 'counter'; declare it local", failure.reason)
      assert.equal(2, failure.line)
   end)

   it("refuses to replace what it offers", function()
      for _, body in ipairs({ "math = {}", "assert = nil" }) do
         local cause, failure = run(body)
         assert.equal("error", cause)
         assert.truthy(failure.reason:find("assignment to global", 1, true))
         host:destroy()
      end
      local cause, failure = run("math.floor = nil")
      assert.equal("error", cause)
      assert.equal("assignment to read-only 'math.floor'", failure.reason)
   end)

   it("inserts and sorts as Lua does", function()
      local cause, failure = run([[
         local t = { 3, 1 }
         table.insert(t, 2)
         table.insert(t, 1, 5)
         table.insert(t, 5, 4)
         assert(table.concat(t, ' ') == '5 3 1 2 4')
         table.sort(t)
         assert(table.concat(t, ' ') == '1 2 3 4 5')
         table.sort(t, function(a, b) return a > b end)
         assert(table.concat(t, ' ') == '5 4 3 2 1')]])
      assert.equal("ok", cause, failure.reason)
      host:destroy()
      cause, failure = run("table.sort({ 1, {} })")
      assert.equal("error", cause)
      assert.truthy(failure.reason:find("attempt to compare", 1, true))
      assert.equal(2, failure.line)
   end)

   it("gives strings no methods", function()
      assert.equal("error", (run("local x = ('a'):rep(3)")))
   end)

   it("lets nothing out that shows an address", function()
      for _, body in ipairs({ "tostring({})", "tostring(error)", "string.format('%s', {})",
         "string.format('%p', 'text')", "string.format('%-10.3p', 1)" }) do
         local cause = run("local x = " .. body)
         assert.equal("error", cause, body)
         host:destroy()
      end
      local cause, failure = run("assert(string.format('%d%% %s %5.1f', 3, 'a', 2.5) == '3% a   2.5')")
      assert.equal("ok", cause, failure.reason)
      host:destroy()
      cause, failure = run("assert(tostring(1) .. tostring(true) .. tostring(nil) == '1truenil')")
      assert.equal("ok", cause, failure.reason)
   end)

   it("keeps two policies apart", function()
      host = policy_host.new()
      local directory = policy_host.directory({
         verdict = policy_host.policy("verdict", "return shared", nil, "local shared = {}"),
         interpolation = policy_host.policy("interpolation", "local x = shared " .. VALID.interpolation),
      })
      assert.equal("ok", (host:load(directory)))
      local _, cause, failure = call(host, "interpolation")
      assert.equal("error", cause)
      assert.truthy(failure.reason:find("'shared' is not defined", 1, true))
   end)

   it("has wide integers of the language only as dead weight: they are no numbers", function()
      host = serving("interpolation", "return { slack = 1LL, ef_search = 50, probes = 2 }")
      local _, cause = call(host, "interpolation")
      assert.equal("shape", cause)
   end)
end)

describe("a policy that does not end", function()
   local host
   after_each(function()
      if host then host:destroy() end
      host = nil
      policy_host.clean()
   end)

   local function assert_stopped(kind, body, before)
      host = serving(kind, body, { fuel = 100000 }, nil, before)
      local _, cause, failure = call(host, kind)
      assert.equal("fuel", cause)
      assert.truthy(failure.reason:find("instruction budget of", 1, true))
      assert.is_true(failure.line > 0)
      host:destroy()
      host = nil
   end

   it("is stopped in a plain loop", function() assert_stopped("verdict", "while true do end") end)

   it("is stopped in loops without a body, with goto, and in endless iteration", function()
      assert_stopped("verdict", "repeat until false")
      assert_stopped("verdict", "::again:: goto again")
      assert_stopped("verdict", "for i = 1, math.huge do end")
      assert_stopped("verdict", "for _ in function() return 1 end do end")
   end)

   it("is stopped in a tail call", function()
      assert_stopped("verdict", "return f()", "local f f = function() return f() end")
   end)

   it("is stopped in the comparator of a sort", function()
      assert_stopped("verdict", "table.sort({ 3, 2, 1 }, function() while true do end end)")
   end)

   it("is stopped in a sort whose order makes it quadratic", function()
      -- the killer of quicksort by median of three (Musser, 1997)
      assert_stopped("verdict", [[
         local n, t = 60000, {}
         for i = 1, n / 2 do
            if i % 2 == 1 then t[i], t[i + 1] = i, n / 2 + i end
            t[n / 2 + i] = 2 * i
         end
         table.sort(t)]])
   end)

   it("cannot hide in a C function that takes its time", function()
      host = serving("verdict", "table.insert({}, -2147483648, 1)")
      local _, cause, failure = call(host, "verdict")
      assert.equal("error", cause)
      assert.truthy(failure.reason:find("position out of bounds", 1, true))
      host:destroy()
      host = serving("verdict", "table.sort({ 3, 2, 1 }, assert)")
      _, cause, failure = call(host, "verdict")
      assert.equal("error", cause)
      assert.truthy(failure.reason:find("comparator", 1, true))
      host:destroy()
      host = serving("verdict", "local s = string.rep('', 2147483647) " .. VALID.verdict)
      _, cause, failure = call(host, "verdict")
      assert.equal("ok", cause, failure.reason)
   end)

   it("is stopped while it distils, at a hundred times the budget", function()
      host = serving("distillation", "while true do end", { fuel = 10000 })
      local _, cause, failure = call(host, "distillation")
      assert.equal("fuel", cause)
      assert.truthy(failure.reason:find("1000000", 1, true))
   end)

   it("is stopped while it loads, and in its self-test", function()
      host = policy_host.new({ fuel = 100000 })
      local cause, failure = host:load(policy_host.directory({ verdict = "\n\nwhile true do end" }))
      assert.equal("fuel", cause)
      assert.equal(3, failure.line)
      cause, failure = host:load(policy_host.directory({
         verdict = policy_host.policy("verdict", VALID.verdict,
            "self_test = function() while true do end end"),
      }))
      assert.equal("fuel", cause)
      assert.equal(2, failure.line)
      assert.truthy(failure.file:find("/verdict.lua", 1, true))
   end)

   it("gets the same budget in every call, whatever the calls before used", function()
      local body = "local n = 0 for i = 1, 10000 do n = n + i end " .. VALID.verdict
      host = serving("verdict", body, { fuel = 100000 })
      for _ = 1, 200 do
         local _, cause = call(host, "verdict")
         assert.equal("ok", cause)
      end
   end)

   it("is stopped by the clock where single instructions are long", function()
      host = serving("verdict", [[
         local a = string.rep('x', 4000000)
         local b = a .. 'y'
         local n = 0
         while true do if a < b then n = n + 1 end end]], { fuel = 1000000 })
      local _, cause, failure = call(host, "verdict")
      assert.equal("fuel", cause)
      assert.truthy(failure.reason:find("longer than", 1, true))
   end)
end)

describe("a policy that eats memory", function()
   local host
   local MB = 1024 * 1024
   after_each(function()
      if host then host:destroy() end
      host = nil
      policy_host.clean()
   end)

   local bombs = {
      ["a growing table"] = "local t = {} for i = 1, 1e9 do t[i] = i end",
      ["a table of tables"] = "local t = {} while true do t = { t, t } t[3] = { t } end",
      ["doubling concatenation"] = "local s = 'x' while true do s = s .. s end",
      ["string.rep"] = "local s = string.rep('x', 1e9)",
      ["a list of many strings"] = "local t = {} while true do t[#t + 1] = string.rep('x', 1000) .. #t end",
      ["table.concat"] = "local t = {} for i = 1, 100 do t[i] = string.rep('x', 1e5 + i) end "
         .. "while true do t[#t + 1] = table.concat(t) end",
      ["closures"] = "local f while true do local g = f f = function() return g end end",
   }
   for name, body in pairs(bombs) do
      it("is stopped at the cap: " .. name, function()
         host = serving("verdict", body, { memory = 2 * MB, fuel = 100000000 })
         for _ = 1, 5 do
            local _, cause, failure = call(host, "verdict")
            assert.equal("memory", cause)
            assert.truthy(failure.reason:find("2097152 bytes", 1, true))
         end
      end)
   end

   it("is stopped at the cap while it loads", function()
      host = policy_host.new({ memory = 2 * MB })
      local text = "local s = 'x' while true do s = s .. s end"
      local cause = host:load(policy_host.directory({ verdict = text }))
      assert.equal("memory", cause)
   end)

   it("leaves the other policies working, even when it holds on to what it took", function()
      host = policy_host.new({ memory = 2 * MB, fuel = 100000000 })
      local directory = policy_host.directory({
         verdict = policy_host.policy("verdict",
            "if hoard then error('kept') end for i = 1, 16000 do hoard = { hoard } end "
            .. "local s = string.rep('x', 3000000)", nil, "local hoard"),
         interpolation = policy_host.policy("interpolation", VALID.interpolation),
      })
      assert.equal("ok", (host:load(directory)))
      for _ = 1, 20 do
         local _, cause = call(host, "verdict")
         assert.equal("memory", cause)
         local result
         result, cause = call(host, "interpolation")
         assert.equal("ok", cause)
         assert.equal(0.5, result.slack)
      end
      assert.equal("spec", host:info("verdict").name)
   end)

   it("recovers when what it took can be collected", function()
      host = serving("verdict", "calls.n = calls.n + 1 if calls.n % 2 == 1 then local s = 'x' "
         .. "while true do s = s .. s end end " .. VALID.verdict, { memory = 2 * MB }, nil,
         "local calls = { n = 0 }")
      for i = 1, 10 do
         local _, cause = call(host, "verdict")
         assert.equal(i % 2 == 1 and "memory" or "ok", cause)
      end
   end)

   it("cannot even start in too little memory, and says so", function()
      host = policy_host.new({ memory = 1000 })
      local cause, failure = host:load("policies")
      assert.equal("memory", cause)
      assert.truthy(failure.reason:find("policy_memory", 1, true))
      host:destroy()
      host = policy_host.new({ memory = 60000 })
      assert.equal("memory", (host:load("policies")))
   end)
end)

describe("deep recursion", function()
   local host
   after_each(function()
      host:destroy()
      policy_host.clean()
   end)

   it("is an error, not a crash", function()
      host = serving("verdict", "return 1 + f()", nil, nil, "local f f = function() return 1 + f() end")
      local _, cause, failure = call(host, "verdict")
      assert.equal("error", cause)
      assert.truthy(failure.reason:find("stack overflow", 1, true))
      assert.equal(1, failure.line)
   end)

   it("through a sort's comparator is an error, too", function()
      host = serving("verdict", "return f()", nil, nil,
         "local f f = function() table.sort({ 2, 1 }, function(a, b) f() return a < b end) end")
      local _, cause = call(host, "verdict")
      assert.equal("error", cause)
   end)

   it("in the nesting of the source is a syntax error", function()
      host = policy_host.new()
      local text = "local x = " .. ("("):rep(50000) .. "1" .. (")"):rep(50000)
      local cause = host:load(policy_host.directory({ verdict = text }))
      assert.equal("syntax", cause)
   end)
end)
