-- The policy tool, as its users run it: commands, output, exit codes.

local policy_host = require("support.policy_host")
local cjson = require("cjson")

local TOOL = "RUVECTOR_BUILD=" .. (os.getenv("RUVECTOR_BUILD") or "build") .. " lua/bin/ruvector-policy "

-- Output (both streams) and exit status.
local function run(arguments)
   local pipe = assert(io.popen(TOOL .. arguments .. " 2>&1; echo status $?"))
   local text = pipe:read("*a")
   pipe:close()
   local output, status = text:match("^(.*)status (%d+)\n$")
   return output, tonumber(status)
end

-- ---- recorded searches ---------------------------------------------------------------------

-- Searches on two clusters, the second one harder: its neighbours need more slack.
-- They came every three seconds, from two minutes before eleven in the evening on.
local function write_recorded(path, method, mode, slower)
   local file = assert(io.open(path, mode or "w"))
   local index = { name = method == "ruivfflat" and "items_lists" or "items_idx", table_name = "items",
      metric = "l2", method = method or "ruhnsw", patterns = {}, room = 8, rows = 1000, min_samples = 100 }
   file:write(cjson.encode({ index = index }), "\n")
   for i = 1, 200 do
      local hard = i % 2
      local slacks, efs, work = {}, {}, {}
      for j = 1, 10 do
         slacks[j] = (hard + 1) * 0.02 * j + 0.0001 * (i % 7)
         efs[j], work[j] = 5 * j, 100 * (hard + 1) + 30 * j
      end
      if i == 1 then slacks[10] = "Infinity" end
      file:write(cjson.encode({ search = {
         query_id = ("00000000-0000-0000-0000-%012d"):format(i), mode = "adaptive", k = 10,
         ef_search = 100, slack = 0.1, target_recall = 0.95, expected_recall = 0.96,
         distances = 400 + i, hops = 40, pages = 50,
         latency_us = (100 + i) * (slower or 1),
         searched_at = ("2026-03-01T%02d:%02d:%02d+00:00"):format(i < 40 and 22 or 23, (58 + i / 20) % 60,
            i % 20 * 3), score = cjson.null, recall = i % 10 == 0 and 0.7 or 1,
         needed_distances = 300,
         diversity = 0.5, confidence = 0.9, success = true, query = ("[%d,%g]"):format(hard * 5, i / 1000),
         effort_slack = slacks, effort_ef = efs, effort_distances = work,
      } }), "\n")
   end
   file:close()
end

describe("ruvector-policy", function()
   local directory
   before_each(function() directory = policy_host.directory() end)
   after_each(function() policy_host.clean() end)

   local function path(name) return directory .. "/" .. name .. ".lua" end

   it("says how it is used", function()
      local output, status = run("--help")
      assert.equal(0, status)
      for _, command in ipairs({ "new", "check", "replay", "diff", "bench" }) do
         assert.match("\n   " .. command, output, 1, true)
      end
      output, status = run("")
      assert.equal(2, status)
      assert.match("a command is required", output, 1, true)
      output, status = run("check")
      assert.equal(2, status)
      assert.match("missing argument 'file'", output, 1, true)
   end)

   describe("new", function()
      for kind in pairs(require("ruvector.policy.scaffold").kinds()) do
         it("writes a " .. kind .. " policy that passes the check, and a spec that passes", function()
            local output, status = run("new mine --kind " .. kind .. " --directory " .. directory)
            assert.equal(0, status, output)
            output, status = run("check " .. path("mine"))
            assert.equal(0, status, output)
            assert.match("passed as " .. kind .. " policy 0.1.0", output, 1, true)
            assert.not_match("advice", output)
            local spec = assert(io.popen("busted -o plainTerminal " .. directory .. "/mine_spec.lua 2>&1"))
            local report = spec:read("*a")
            spec:close()
            assert.match("1 success / 0 failures / 0 errors", report, 1, true)
         end)
      end

      it("overwrites nothing, and takes no name that would not load", function()
         run("new mine --kind verdict --directory " .. directory)
         local output, status = run("new mine --kind verdict --directory " .. directory)
         assert.equal(1, status)
         assert.match("exists already", output, 1, true)
         output, status = run("new 'my policy' --kind verdict --directory " .. directory)
         assert.equal(1, status)
         assert.match("cannot name a policy", output, 1, true)
         output, status = run("new verdict --kind retention --directory " .. directory)
         assert.equal(1, status)
         assert.match("default verdict policy's file", output, 1, true)
         status = select(2, run("new mine2 --kind nonsense --directory " .. directory))
         assert.is_true(status ~= 0)
      end)
   end)

   describe("check", function()
      local function check(kind, body, extra, before)
         policy_host.write(directory, "mine", policy_host.policy(kind, body, "kind = '" .. kind .. "'"
            .. (extra or ""), before))
         return run("check --calls 200 " .. path("mine"))
      end

      it("passes the shipped policies", function()
         local output, status = run("check --calls 100 policies/*.lua")
         assert.equal(0, status, output)
      end)

      it("names the line of an error that only some inputs reach", function()
         local output, status = check("verdict",
            "if trajectory.recall == nil then error('no recall') end " .. policy_host.VALID.verdict)
         assert.equal(1, status)
         assert.match("mine.lua:2: error: error: no recall %(%d+ times%) %[first for input %d+ of", output)
      end)

      it("names field, value and range of a result out of its contract", function()
         local output, status = check("verdict",
            "return { success = true, confidence = trajectory.recall or 2, scores = {}, "
            .. "recommendations = {} }")
         assert.equal(1, status)
         assert.match("mine.judge returned confidence = 2; a number from 0 to 1 is expected", output, 1, true)
      end)

      it("finds endless loops, syntax errors and failing self-tests", function()
         local output, status = check("verdict", "while true do end")
         assert.equal(1, status)
         assert.match("mine.lua:2: error: fuel:", output, 1, true)
         output, status = check("verdict", "return return")
         assert.equal(1, status)
         assert.match("mine.lua:2: error: syntax:", output, 1, true)
         output, status = check("verdict", policy_host.VALID.verdict,
            ", self_test = function() return 'wrong' end")
         assert.equal(1, status)
         assert.match("self_test: wrong", output, 1, true)
      end)

      it("finds a policy that keeps a state", function()
         local output, status = check("verdict", "n = n + 1 return { success = true, confidence = 1 / n, "
            .. "scores = {}, recommendations = {} }", nil, "local n = 0")
         assert.equal(1, status)
         assert.match("the policy keeps a state", output, 1, true)
      end)

      it("tries recorded searches too", function()
         local file = directory .. "/searches.jsonl"
         write_recorded(file)
         policy_host.write(directory, "mine", policy_host.policy("verdict",
            "if trajectory.distances == 503 then error('found it') end " .. policy_host.VALID.verdict,
            "kind = 'verdict'"))
         local output, status = run("check --calls 0 --trajectories " .. file .. " " .. path("mine"))
         assert.equal(1, status)
         assert.match("found it [first for input 103 of those recorded]", output, 1, true)
         os.remove(file)
      end)

      it("reports a file that is not there", function()
         local output, status = run("check " .. path("nothing"))
         assert.equal(1, status)
         assert.match("nothing.lua", output, 1, true)
      end)
   end)

   describe("diff and bench", function()
      before_each(function()
         policy_host.write(directory, "a", policy_host.policy("interpolation",
            policy_host.VALID.interpolation, "kind = 'interpolation'"))
         policy_host.write(directory, "b", policy_host.policy("interpolation",
            "return { slack = 0.5, ef_search = query.target_recall > 0.9 and 60 or 50, probes = 2 }",
            "kind = 'interpolation'"))
      end)

      it("show where two policies differ", function()
         local output, status = run("diff " .. path("a") .. " " .. path("b"))
         assert.equal(0, status)
         local differing = tonumber(output:match("(%d+) of 2000 generated inputs differ"))
         assert.is_true(differing > 200 and differing < 800)
         assert.match("ef_search 50 -> 60", output, 1, true)
         output = run("diff " .. path("a") .. " " .. path("a"))
         assert.match(" 0 of 2000 ", output, 1, true)
      end)

      it("refuse policies of two kinds", function()
         local output, status = run("diff " .. path("a") .. " policies/verdict.lua")
         assert.equal(1, status)
         assert.match("only policies of one kind can be compared", output, 1, true)
      end)

      it("show what a call costs, the same each time", function()
         local first, status = run("bench --calls 100 " .. path("b"))
         assert.equal(0, status)
         local second = run("bench --calls 100 " .. path("b"))
         assert.is_true(tonumber(first:match("(%d+) instructions a call")) > 5)
         assert.equal(first:match("%d+ instructions a call"), second:match("%d+ instructions a call"))
         assert.equal(first:match("%d+ bytes allocated"), second:match("%d+ bytes allocated"))
      end)
   end)

   describe("replay of a file", function()
      local file
      before_each(function()
         file = directory .. "/searches.jsonl"
         write_recorded(file)
      end)
      after_each(function() os.remove(file) end)

      it("shows the searches on which two verdicts disagree, with their recall and work", function()
         policy_host.write(directory, "strict", policy_host.policy("verdict",
            "return { success = trajectory.recall >= 0.9, confidence = 1, scores = {}, "
            .. "recommendations = {} }", "kind = 'verdict'"))
         policy_host.write(directory, "lax", policy_host.policy("verdict",
            "return { success = true, confidence = 1, scores = {}, recommendations = {} }",
            "kind = 'verdict'"))
         local output, status = run("replay " .. path("strict") .. " --trajectories " .. file
            .. " --active " .. path("lax"))
         assert.equal(0, status, output)
         assert.match("items_idx (l2): 200 searches judged", output, 1, true)
         assert.match("both +180 +1%.0000 ", output)
         assert.match("only the active one +20 +0%.7000 ", output)
         assert.match("only the candidate +0 ", output)
         assert.match("success true -> false", output, 1, true)
         assert.match("and 12 more", output, 1, true)
      end)

      it("tries what two distillations learned on searches that they did not see", function()
         run("new mine --kind distillation --directory " .. directory)
         local output, status = run("replay " .. path("mine") .. " --trajectories " .. file
            .. " --active policies/distillation.lua")
         assert.equal(0, status, output)
         assert.match("learned from 100 searches, tried on 100 others", output, 1, true)
         for target, recall in output:gmatch("\n  (0%.9%d) +([%d.]+) +%d+ ") do
            assert.is_true(tonumber(recall) >= tonumber(target) - 0.02, output)
         end
         assert.match("\n  0.95 ", output, 1, true)
      end)

      it("lets two tunings choose from the curve that the traces give", function()
         run("new mine --kind tuning --directory " .. directory)
         local output, status = run("replay " .. path("mine") .. " --trajectories " .. file
            .. " --active policies/tuning.lua")
         assert.equal(0, status, output)
         -- half of the searches have each neighbour at 5 ef more, all of them the last but one at 45
         assert.match("200 searches with a deep trace", output, 1, true)
         assert.match("\n  recall +50 +0%.99%d+ +%d+  0%.%d+ +50 +0%.99", output)
         assert.match("\n  latency +%d+ +0%.9%d+ +%d+  0%.%d+ +50 ", output)
      end)

      it("shows which of two indexes two selections take, and what each was measured at", function()
         policy_host.write(directory, "lists", policy_host.policy("selection",
            "return { hnsw = 2, ivfflat = 1 }", "kind = 'selection'"))
         local output, status = run("replay " .. path("lists") .. " --trajectories " .. file)
         assert.equal(0, status, output)
         assert.match("no table has recorded searches of both", output, 1, true)
         write_recorded(file, "ruivfflat", "a", 3)
         output, status = run("replay " .. path("lists") .. " --trajectories " .. file
            .. " --active policies/selection.lua")
         assert.equal(0, status, output)
         assert.match("items (l2): items_idx or items_lists", output, 1, true)
         assert.match("\n +10 +201 us, 0%.97%d+ +602 us, 0%.97%d+  hnsw +ivfflat\n", output)
      end)

      it("goes through the time of the searches, and shows when rounds of links would have run", function()
         local output, status = run("replay examples/policies/night_healing.lua --trajectories " .. file
            .. " --active policies/healing.lua")
         assert.equal(0, status, output)
         assert.match("items_idx (l2): 200 searches in 0.2 hours", output, 1, true)
         -- 400 ask for links: enough for a round by the shipped policy as the last of them come, and
         -- for one when nobody has searched for five minutes by the other
         assert.match("\n  active +1 +400 ", output)
         assert.match("\n  candidate +1 +400 +0%.000 ", output)
         assert.match("candidate: a round of 400 queries at 23:13, load 0.000", output, 1, true)
         assert.match("active: a round of 400 queries at 23:08", output, 1, true)
      end)

      it("says what is missing, and which line is wrong", function()
         local output, status = run("replay policies/interpolation.lua --trajectories " .. file)
         assert.equal(0, status)
         assert.match("nothing to plan with", output, 1, true)
         output, status = run("replay policies/verdict.lua")
         assert.equal(1, status)
         assert.match("either --connect or --trajectories", output, 1, true)
         local broken = assert(io.open(file, "a"))
         broken:write("{\n")
         broken:close()
         output, status = run("replay policies/verdict.lua --trajectories " .. file)
         assert.equal(1, status)
         assert.match("searches.jsonl:202: no JSON object", output, 1, true)
      end)
   end)
end)
