-- Loading: build new, self-test, swap; the old policies survive every failure.

local policy_host = require("support.policy_host")
local lfs = require("lfs")
local policy, VALID, call = policy_host.policy, policy_host.VALID, policy_host.call

describe("loading a directory of policies", function()
   local host, directory
   before_each(function()
      host = policy_host.new()
      directory = policy_host.directory()
   end)
   after_each(function()
      host:destroy()
      policy_host.clean()
   end)

   local function load_verdict(text)
      policy_host.write(directory, "verdict", text)
      return host:load(directory)
   end

   it("serves the shipped policies", function()
      assert.equal("ok", (host:load("policies")))
      for kind in pairs(policy_host.KINDS) do
         local info = host:info(kind)
         assert.equal(kind, info.name)
         assert.match("^%d+%.%d+%.%d+$", info.version)
         assert.equal("policies/" .. kind .. ".lua", info.file)
         assert.is_true(#info.describe > 20)
      end
   end)

   it("serves the built-in where a file is missing, which is no failure", function()
      policy_host.write(directory, "verdict", policy("verdict", VALID.verdict))
      assert.equal("ok", (host:load(directory)))
      assert.equal("spec", host:info("verdict").name)
      assert.equal("built-in", host:info("interpolation").name)
      assert.equal("", host:info("interpolation").file)
      local _, cause = call(host, "interpolation")
      assert.equal("missing", cause)
      assert.equal(0, host:info("interpolation").failures)
      assert.equal(1, host:info("interpolation").calls)
   end)

   it("serves built-ins from the directory of the options only after the first load", function()
      host:destroy()
      host = policy_host.new({ directory = "policies" })
      assert.equal("built-in", host:info("verdict").name)
      assert.equal("ok", (host:load(nil)))
      assert.equal("verdict", host:info("verdict").name)
   end)

   it("goes back to built-ins when a file was removed", function()
      assert.equal("ok", (load_verdict(policy("verdict", VALID.verdict))))
      os.remove(directory .. "/verdict.lua")
      assert.equal("ok", (host:load(directory)))
      assert.equal("built-in", host:info("verdict").name)
   end)

   it("names a directory that cannot be read", function()
      local cause, failure = host:load("/nonexistent/policies")
      assert.equal("io", cause)
      assert.equal("/nonexistent/policies", failure.file)
      assert.truthy(failure.reason:find("No such file", 1, true))
      cause, failure = host:load("policies/verdict.lua")
      assert.equal("io", cause)
      assert.truthy(failure.reason:find("not a directory", 1, true))
   end)

   it("refuses what is no regular file, and a file that is too large", function()
      lfs.mkdir(directory .. "/verdict.lua")
      local cause, failure = host:load(directory)
      assert.equal("io", cause)
      assert.truthy(failure.reason:find("not a regular file", 1, true))
      lfs.rmdir(directory .. "/verdict.lua")
      cause, failure = load_verdict("-- " .. ("x"):rep(300000))
      assert.equal("io", cause)
      assert.truthy(failure.reason:find("larger than 262144 bytes", 1, true))
   end)

   it("refuses bytecode, also behind a mark or a first line", function()
      local code = string.dump(function() return {} end)
      for _, start in ipairs({ "", "\239\187\191", "#!luajit\n" }) do
         local cause = load_verdict(start .. code)
         assert.equal("syntax", cause)
      end
      local _, failure = load_verdict(code)
      assert.truthy(failure.reason:find("bytecode", 1, true))
   end)

   it("names file and line of a syntax error", function()
      local cause, failure = load_verdict("local a = 1\nlocal b = = 2\n")
      assert.equal("syntax", cause)
      assert.equal("verdict", failure.kind)
      assert.equal(directory .. "/verdict.lua", failure.file)
      assert.equal(2, failure.line)
      assert.truthy(failure.reason:find("near '='", 1, true))
   end)

   it("names file and line of an error while the file runs", function()
      local cause, failure = load_verdict("\n\nlocal x = nil + 1\n")
      assert.equal("error", cause)
      assert.equal(3, failure.line)
      assert.truthy(failure.reason:find("arithmetic", 1, true))
   end)

   it("refuses an empty file and a file that returns no table", function()
      for _, text in ipairs({ "", "return 1", "return nil", "return function() end", "return 'x', {}" }) do
         local cause, failure = load_verdict(text)
         assert.equal("shape", cause, text)
         assert.truthy(failure.reason:find("must return a table", 1, true))
      end
   end)

   it("names the field that is missing or of a wrong kind", function()
      local fields = {
         name = "'v'", version = "'1'", describe = "'d'", defaults = "{}", judge = "function() end",
      }
      local function text(changed, value)
         local parts = {}
         for field, default in pairs(fields) do
            parts[#parts + 1] = field .. " = " .. (field == changed and value or default)
         end
         return "return { " .. table.concat(parts, ", ") .. " }"
      end
      assert.equal("ok", (load_verdict(text())))
      local wrong = {
         name = { "nil", "7", "''", "string.rep('n', 64)", "'a\\1'" },
         version = { "nil", "1.5", "string.rep('1', 32)" },
         describe = { "nil", "{}", "string.rep('d', 512)" },
         defaults = { "nil", "3", "{ 1 }", "{ a = 'text' }", "{ a = {} }" },
         judge = { "nil", "{}", "math.floor" },
      }
      for field, values in pairs(wrong) do
         for _, value in ipairs(values) do
            local cause, failure = load_verdict(text(field, value))
            assert.equal("shape", cause, field .. " = " .. value)
            assert.truthy(failure.reason:find(field, 1, true), failure.reason)
         end
      end
   end)

   it("asks retention for both of its functions", function()
      policy_host.write(directory, "retention",
         "return { name = 'r', version = '1', describe = 'd', defaults = {}, merge = function() end }")
      local cause, failure = host:load(directory)
      assert.equal("shape", cause)
      assert.equal("retention", failure.kind)
      assert.truthy(failure.reason:find("'keep'", 1, true))
   end)

   it("runs the self-test with the policy, and takes nothing but true for a pass", function()
      local function with(test) return policy("verdict", VALID.verdict, "self_test = " .. test) end
      assert.equal("ok", (load_verdict(with("function(self) return self.name == 'spec' end"))))
      for _, result in ipairs({ "", "return false", "return nil", "return 1", "return {}" }) do
         local cause, failure = load_verdict(with("function() " .. result .. " end"))
         assert.equal("self_test", cause, result)
         assert.equal(2, failure.line)
      end
      local cause, failure = load_verdict(with("function() return 'the threshold is off' end"))
      assert.equal("self_test", cause)
      assert.equal("self_test: the threshold is off", failure.reason)
      cause, failure = load_verdict(with("function() error('boom') end"))
      assert.equal("error", cause)
      assert.equal("boom", failure.reason)
      assert.equal("shape", (load_verdict(with("3"))))
   end)

   it("keeps the old policies through every kind of failure, and takes the mended file", function()
      assert.equal("ok", (load_verdict(policy("verdict", VALID.verdict))))
      local broken = {
         "syntax error here", "while true do end", "return {}", "error('x')",
         policy("verdict", VALID.verdict, "self_test = function() return 'no' end"),
      }
      for _, text in ipairs(broken) do
         assert.not_equal("ok", (load_verdict(text)))
         local result, cause = call(host, "verdict")
         assert.equal("ok", cause)
         assert.equal(0.25, result.confidence)
      end
      assert.equal("ok", (load_verdict(policy("verdict", (VALID.verdict:gsub("0.25", "0.75"))))))
      assert.equal(0.75, call(host, "verdict").confidence)
   end)

   it("takes all files or none", function()
      policy_host.write(directory, "verdict", policy("verdict", VALID.verdict))
      policy_host.write(directory, "interpolation", "return nonsense(")
      local cause, failure = host:load(directory)
      assert.equal("syntax", cause)
      assert.equal("interpolation", failure.kind)
      assert.equal("built-in", host:info("verdict").name)
   end)

   it("keeps no state of the former load", function()
      local counting = policy("verdict",
         "n = n + 1 return { success = true, confidence = n / 10, scores = {}, recommendations = {} }", nil,
         "local n = 0")
      load_verdict(counting)
      call(host, "verdict")
      assert.near(0.2, call(host, "verdict").confidence, 1e-9)
      load_verdict(counting)
      assert.near(0.1, call(host, "verdict").confidence, 1e-9)
   end)
end)
