-- Several policies of one kind in a directory, the contract they were written for, and what a call costs.

local policy_host = require("support.policy_host")
local policy, call = policy_host.policy, policy_host.call

local function verdict(confidence, extra)
   return policy("verdict", "return { success = true, confidence = " .. confidence
      .. ", scores = {}, recommendations = {} }", extra)
end

describe("a directory with alternatives", function()
   local host, directory
   before_each(function()
      host = policy_host.new()
      directory = policy_host.directory({
         verdict = verdict(0.25),
         strict_verdict = verdict(0.5, "kind = 'verdict'"),
      })
   end)
   after_each(function()
      host:destroy()
      policy_host.clean()
   end)

   local function confidence()
      local judgement, cause = call(host, "verdict")
      assert.equal("ok", cause)
      return judgement.confidence
   end

   local function refused(id, text)
      policy_host.write(directory, id, text)
      local cause, failure = host:load(directory)
      assert.equal(directory .. "/" .. id .. ".lua", failure.file)
      return cause, failure.reason
   end

   it("loads them all, those that serve by default first", function()
      assert.equal("ok", (host:load(directory)))
      local policies = host:policies()
      assert.equal(2, #policies)
      assert.equal("verdict", policies[1].id)
      assert.equal("strict_verdict", policies[2].id)
      assert.equal("verdict", policies[2].kind)
      assert.equal(verdict(0.5, "kind = 'verdict'"), policies[2].source)
   end)

   it("serves the default one until another is asked for, and again afterwards", function()
      host:load(directory)
      assert.equal(0.25, confidence())
      assert.equal("ok", host:use("verdict", "strict_verdict"))
      assert.equal(0.5, confidence())
      assert.equal("ok", host:use("verdict", nil))
      assert.equal(0.25, confidence())
      assert.equal("ok", host:use("verdict", "verdict"))
      assert.equal(0.25, confidence())
   end)

   it("serves the default one for a name that nothing has, or something of another kind", function()
      host:load(directory)
      host:use("verdict", "strict_verdict")
      assert.equal("missing", host:use("verdict", "nothing"))
      assert.equal(0.25, confidence())
      assert.equal("missing", host:use("interpolation", "strict_verdict"))
   end)

   it("serves the built-in where there is only an alternative and none is asked for", function()
      os.remove(directory .. "/verdict.lua")
      assert.equal("ok", (host:load(directory)))
      assert.equal("built-in", host:info("verdict").name)
      local _, cause = call(host, "verdict")
      assert.equal("missing", cause)
      host:use("verdict", "strict_verdict")
      assert.equal(0.5, confidence())
   end)

   it("goes back to the default ones with every load", function()
      host:load(directory)
      host:use("verdict", "strict_verdict")
      host:load(directory)
      assert.equal(0.25, confidence())
   end)

   it("counts each one's calls and failures, and those of the kind", function()
      policy_host.write(directory, "broken", policy("verdict", "error('no')", "kind = 'verdict'"))
      host:load(directory)
      local log = host:collect_log()
      call(host, "verdict")
      host:use("verdict", "strict_verdict")
      call(host, "verdict")
      call(host, "verdict")
      host:use("verdict", "broken")
      local _, cause, failure = call(host, "verdict")
      assert.equal("error", cause)
      assert.equal(directory .. "/broken.lua", failure.file)
      local policies = host:policies()
      assert.equal(1, policies.verdict.calls)
      assert.equal(2, policies.strict_verdict.calls)
      assert.equal(0, policies.strict_verdict.failures)
      assert.equal(1, policies.broken.by_cause.error)
      assert.equal(4, host:info("verdict").calls)
      assert.equal(1, host:info("verdict").failures)
      assert.equal(1, #log)
   end)

   it("names the policy in what it returned wrong", function()
      policy_host.write(directory, "vague", policy("verdict", "return 1", "kind = 'verdict'"))
      host:load(directory)
      host:use("verdict", "vague")
      local _, cause, failure = call(host, "verdict")
      assert.equal("shape", cause)
      assert.equal("vague.judge returned 1; a table is expected", failure.reason)
   end)

   it("keeps the choice when the state had to be made anew", function()
      local hoard = "local kept = {} "
      policy_host.write(directory, "hoarder", policy("verdict",
         "for i = 1, 1e9 do kept[i] = i .. '' end", "kind = 'verdict'", hoard))
      host:destroy()
      host = policy_host.new({ memory = 1024 * 1024, fuel = 100000000 })
      assert.equal("ok", (host:load(directory)))
      host:use("verdict", "hoarder")
      local _, cause = call(host, "verdict")
      assert.equal("memory", cause)
      _, cause = call(host, "verdict")
      assert.equal("memory", cause)
      host:use("verdict", "strict_verdict")
      assert.equal(0.5, confidence())
   end)

   it("leaves out hidden files and specs", function()
      policy_host.write(directory, ".verdict", "not Lua")
      policy_host.write(directory, "strict_verdict_spec", "not Lua")
      local file = assert(io.open(directory .. "/verdict.lua~", "w"))
      file:close()
      assert.equal("ok", (host:load(directory)))
      assert.equal(2, #host:policies())
   end)

   it("takes all files or none, alternatives too", function()
      host:load(directory)
      local cause, reason = refused("other", "return")
      assert.equal("shape", cause)
      assert.match("must return a table", reason)
      assert.equal(0.25, confidence())
   end)

   it("asks an alternative what it decides", function()
      local cause, reason = refused("other", verdict(1))
      assert.equal("shape", cause)
      assert.match("field 'kind' of the policy must say what it decides, such as 'verdict', not nil", reason)
      cause, reason = refused("other", verdict(1, "kind = 'verdicts'"))
      assert.equal("shape", cause)
      assert.match("not verdicts", reason)
   end)

   it("refuses a default file of another kind", function()
      local cause, reason = refused("interpolation", verdict(1, "kind = 'verdict'"))
      assert.equal("shape", cause)
      assert.match("is 'verdict', but the file's name makes it the interpolation policy", reason, 1, true)
   end)

   it("refuses a file name that cannot name a policy", function()
      policy_host.write(directory, "strict verdict", verdict(1, "kind = 'verdict'"))
      local cause, failure = host:load(directory)
      assert.equal("io", cause)
      assert.match('"strict verdict.lua" cannot name a policy', failure.reason, 1, true)
      os.remove(directory .. "/strict verdict.lua")
      policy_host.write(directory, ("x"):rep(64), verdict(1, "kind = 'verdict'"))
      assert.equal("io", (host:load(directory)))
   end)

   it("takes up to 64 files", function()
      for i = 1, 62 do policy_host.write(directory, "v" .. i, verdict(1, "kind = 'verdict'")) end
      assert.equal("ok", (host:load(directory)))
      assert.equal(64, #host:policies())
      policy_host.write(directory, "v63", verdict(1, "kind = 'verdict'"))
      local cause, failure = host:load(directory)
      assert.equal("io", cause)
      assert.equal("more than 64 policy files", failure.reason)
   end)
end)

describe("the contract that a policy was written for", function()
   local host
   before_each(function() host = policy_host.new() end)
   after_each(function()
      host:destroy()
      policy_host.clean()
   end)

   local function load(contract)
      return host:load(policy_host.directory({ verdict = verdict(1, "contract = " .. contract) }))
   end

   it("is version 1 where it says nothing", function()
      assert.equal("ok", (host:load(policy_host.directory({ verdict = verdict(1) }))))
   end)

   it("must be the present one", function()
      local present = policy_host.contract("verdict")
      assert.equal("ok", (load(present)))
      local cause, failure = load(present + 1)
      assert.equal("shape", cause)
      local wanted = "contract " .. present + 1 .. " of verdict policies, this ruvector has"
      assert.match(wanted, failure.reason, 1, true)
      cause, failure = load("0.5")
      assert.equal("shape", cause)
      assert.match("there is no contract 0.5 of verdict policies", failure.reason, 1, true)
      cause, failure = load("'1'")
      assert.equal("shape", cause)
      assert.match("field 'contract' of the policy must be a number", failure.reason, 1, true)
   end)

   it("of every older version is refused with what changed", function()
      for kind in pairs(policy_host.KINDS) do
         for version = 1, policy_host.contract(kind) - 1 do
            local text = policy(kind, "return {}", "contract = " .. version)
            local cause, failure = host:load(policy_host.directory({ [kind] = text }))
            assert.equal("shape", cause)
            assert.match("What changed in contract " .. version + 1 .. ": .......", failure.reason)
         end
      end
   end)
end)

describe("the cost of a call", function()
   local host
   after_each(function()
      host:destroy()
      policy_host.clean()
   end)

   it("is counted to the instruction, when asked for", function()
      host = policy_host.serving("verdict", "local n = 0 for i = 1, defaultN do n = n + i end "
         .. policy_host.VALID.verdict, nil, nil, "local defaultN = 100")
      host:counting(true)
      call(host, "verdict")
      local short = host:cost()
      call(host, "verdict")
      assert.equal(short, (host:cost()))
      host:destroy()
      host = policy_host.serving("verdict", "local n = 0 for i = 1, defaultN do n = n + i end "
         .. policy_host.VALID.verdict, nil, nil, "local defaultN = 200")
      host:counting(true)
      call(host, "verdict")
      local long, bytes = host:cost()
      assert.equal(200, long - short) -- the addition and the loop, a hundred times
      assert.is_true(bytes > 0)
   end)
end)
