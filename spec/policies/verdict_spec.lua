-- verdict.lua, run by the host as the server runs it.

local policy_host = require("support.policy_host")

describe("the verdict", function()
   local host, built_in
   setup(function()
      host, built_in = policy_host.new(), policy_host.new()
      assert.equal("ok", (host:load("policies")))
   end)
   teardown(function()
      host:destroy()
      built_in:destroy()
   end)

   local function judge(signals)
      local result, cause, failure = host:judge(signals)
      assert.equal("ok", cause, failure.reason)
      return result
   end

   -- An index whose median search takes 1 ms and whose slow ones take 3 ms.
   local function with_index(signals)
      local all = { index_judged = 500, index_latency_p50_us = 1000, index_latency_p95_us = 3000,
         index_mean_distances = 400 }
      for name, value in pairs(signals) do all[name] = value end
      return all
   end

   local function advises(result, text)
      for _, recommendation in ipairs(result.recommendations) do
         if recommendation:find(text, 1, true) then return true end
      end
      return false
   end

   describe("scores recall", function()
      it("as 1 when the target is met or passed", function()
         assert.equal(1, judge({ recall = 0.95, target_recall = 0.95 }).recall)
         assert.equal(1, judge({ recall = 1, target_recall = 0.95 }).recall)
      end)
      it("falling evenly to 0 over the tolerance of 0.2", function()
         assert.near(0.5, judge({ recall = 0.85, target_recall = 0.95 }).recall, 1e-9)
         assert.near(0, judge({ recall = 0.75, target_recall = 0.95 }).recall, 1e-9)
         assert.equal(0, judge({ recall = 0.1, target_recall = 0.95 }).recall)
      end)
      it("from the promise where nothing was measured, with less confidence", function()
         local promised = judge({ expected_recall = 0.95, target_recall = 0.95 })
         local measured = judge({ recall = 0.95, target_recall = 0.95 })
         assert.equal(1, promised.recall)
         assert.is_true(promised.confidence < measured.confidence)
      end)
      it("not at all without a target or any recall", function()
         assert.equal(-1, judge({ recall = 0.9 }).recall)
         assert.equal(-1, judge({ target_recall = 0.95 }).recall)
      end)
   end)

   describe("scores latency", function()
      it("as 1 up to the index's median and 0 from twice its 95th percentile", function()
         assert.equal(1, judge(with_index({ latency_us = 10 })).latency)
         assert.equal(1, judge(with_index({ latency_us = 1000 })).latency)
         assert.near(0.5, judge(with_index({ latency_us = 3500 })).latency, 1e-9)
         assert.equal(0, judge(with_index({ latency_us = 6000 })).latency)
         assert.equal(0, judge(with_index({ latency_us = 1e9 })).latency)
      end)
      it("only when the index has judged enough searches", function()
         assert.equal(-1, judge(with_index({ latency_us = 10, index_judged = 19 })).latency)
         assert.equal(-1, judge({ latency_us = 10 }).latency)
      end)
   end)

   it("scores diversity against the half that counts as full", function()
      assert.equal(1, judge({ diversity = 0.8 }).diversity)
      assert.near(0.5, judge({ diversity = 0.25 }).diversity, 1e-9)
      assert.equal(0, judge({ diversity = 0 }).diversity)
      assert.equal(-1, judge({}).diversity)
   end)

   describe("scores feedback", function()
      it("as the share of relevant rows among those judged", function()
         assert.near(0.75, judge({ feedback_relevant = 3, feedback_irrelevant = 1 }).feedback, 1e-9)
      end)
      it("counting a missed row that was near, and not one that was far", function()
         assert.near(0.5, judge({ feedback_relevant = 2, feedback_missed_near = 2 }).feedback, 1e-9)
         assert.near(1, judge({ feedback_relevant = 2, feedback_missed_far = 9 }).feedback, 1e-9)
         assert.equal(-1, judge({ feedback_missed_far = 2 }).feedback)
      end)
   end)

   describe("calls a search", function()
      it("a success when the weighted mean reaches the threshold", function()
         assert.is_true(judge({ recall = 0.9, target_recall = 0.95 }).success) -- 0.75
         assert.is_false(judge({ recall = 0.88, target_recall = 0.95 }).success) -- 0.65
      end)
      it("a failure for missing rows however fast it was", function()
         assert.is_false(judge(with_index({ recall = 0.6, target_recall = 0.95, latency_us = 10,
            diversity = 1 })).success)
      end)
      it("a failure when a relevant row was missed that lay near", function()
         assert.is_false(judge({ recall = 1, target_recall = 0.95, feedback_relevant = 9,
            feedback_missed_near = 1 }).success)
         assert.is_true(judge({ recall = 1, target_recall = 0.95, feedback_relevant = 9,
            feedback_missed_far = 1 }).success)
      end)
      it("a success without confidence when nothing is known", function()
         local result = judge({})
         assert.is_true(result.success)
         assert.equal(0, result.confidence)
      end)
   end)

   describe("is the surer", function()
      it("the more signals are known", function()
         local signals, last = {}, 0
         for _, step in ipairs({
            { diversity = 1 }, { recall = 1, target_recall = 0.95 }, { latency_us = 10 },
            { feedback_relevant = 3 },
         }) do
            for name, value in pairs(step) do signals[name] = value end
            local confidence = judge(with_index(signals)).confidence
            assert.is_true(confidence > last)
            last = confidence
         end
         assert.near(1, last, 1e-9)
      end)
      it("the better they agree", function()
         local agreeing = judge({ recall = 1, target_recall = 0.95, feedback_relevant = 4 })
         local torn = judge({ recall = 1, target_recall = 0.95, feedback_irrelevant = 4 })
         assert.is_true(torn.confidence < 0.5 * agreeing.confidence)
      end)
   end)

   describe("recommends", function()
      it("nothing for a good search", function()
         assert.same({}, judge(with_index({ recall = 1, target_recall = 0.95, latency_us = 500, diversity = 1,
            distances = 500, needed_distances = 400 })).recommendations)
      end)
      it("more effort where more effort would have helped", function()
         local missed = { recall = 0.8, target_recall = 0.95, needed_distances = 900 }
         assert.is_true(advises(judge(with_index(missed)), "raise effort: "))
         missed.adaptive = 1
         assert.same({ "raise target" }, judge(with_index(missed)).recommendations)
      end)
      it("a finer index where effort would not have helped, or only far too much", function()
         local out_of_reach = { recall = 0.8, target_recall = 0.95, index_m = 16 }
         assert.same({ "index too coarse: rebuild with m = 32" }, judge(out_of_reach).recommendations)
         assert.same({ "index too coarse: rebuild with m = 32" }, judge(with_index({ recall = 0.8,
            target_recall = 0.95, needed_distances = 4000, index_m = 16 })).recommendations)
         out_of_reach.index_m = 80
         assert.same({ "index too coarse: rebuild with m = 100" }, judge(out_of_reach).recommendations)
         for _, m in ipairs { 100, -1 } do
            out_of_reach.index_m = m
            assert.same({ "index too coarse: rebuild with larger ef_construction" },
               judge(out_of_reach).recommendations)
         end
         out_of_reach.index_lists = 200
         assert.same({ "index too coarse: rebuild with lists = 400" }, judge(out_of_reach).recommendations)
         out_of_reach.index_lists = 32768
         assert.same({ "index too coarse: rebuild as ruhnsw" }, judge(out_of_reach).recommendations)
      end)
      it("less effort where most of a static one was wasted", function()
         local wasted = { recall = 1, target_recall = 0.95, distances = 4000, needed_distances = 300 }
         assert.is_true(advises(judge(wasted), "lower effort: "))
         wasted.adaptive = 1
         assert.same({}, judge(wasted).recommendations)
      end)
      it("what user feedback tells apart: an index miss and an embedding miss", function()
         assert.is_true(advises(judge({ feedback_missed_near = 1 }), "index miss: "))
         assert.same({ "embedding miss: effort cannot help" },
            judge({ feedback_missed_far = 1 }).recommendations)
      end)
      it("never more effort for an embedding miss", function()
         local signals = { recall = 1, target_recall = 0.95, needed_distances = 300, distances = 400,
            feedback_relevant = 2, feedback_missed_far = 3 }
         assert.same({ "embedding miss: effort cannot help" }, judge(signals).recommendations)
      end)
      it("looking at duplicate rows where the results are all alike", function()
         assert.is_true(advises(judge({ diversity = 0.01 }), "duplicate rows: "))
      end)
      it("no more than a verdict holds when everything is wrong at once", function()
         assert.equal(4, #judge({ recall = 0.1, target_recall = 0.95, diversity = 0, feedback_missed_near = 1,
            feedback_missed_far = 1 }).recommendations)
      end)
      it("in the words that the head of the policy lists", function()
         local words = {}
         for line in io.lines("policies/verdict.lua") do
            local word = line:match("^%-%-   ([%a ]-)  %s*%a")
            if word then words[word] = true end
         end
         for _, signals in ipairs {
            { recall = 0.8, target_recall = 0.95, needed_distances = 900 },
            { recall = 0.8, target_recall = 0.95, needed_distances = 900, adaptive = 1 },
            { recall = 0.8, target_recall = 0.95 },
            { recall = 1, target_recall = 0.95, distances = 4000, needed_distances = 300 },
            { feedback_missed_near = 1 }, { feedback_missed_far = 1 }, { diversity = 0 },
         } do
            local advice = judge(signals).recommendations
            assert.equal(1, #advice)
            assert.is_true(words[advice[1]:match("^[^:]+")], advice[1])
         end
      end)
   end)

   it("is the same from the built-in, for any signals", function()
      local names = { "latency_us", "distances", "adaptive", "target_recall", "expected_recall", "recall",
         "needed_distances", "diversity", "feedback_relevant", "feedback_irrelevant", "feedback_missed_near",
         "feedback_missed_far", "index_judged", "index_latency_p50_us", "index_latency_p95_us",
         "index_mean_distances", "index_m", "index_lists" }
      local scale = { latency_us = 5000, distances = 5000, needed_distances = 5000, feedback_relevant = 3,
         feedback_irrelevant = 3, feedback_missed_near = 2, feedback_missed_far = 2, index_judged = 60,
         index_latency_p50_us = 1000, index_latency_p95_us = 4000, index_mean_distances = 600,
         index_m = 130, index_lists = 40000 }
      math.randomseed(7)
      local failures = 0
      for _ = 1, 3000 do
         local signals = {}
         for _, name in ipairs(names) do
            if math.random() < 0.7 then
               local value = math.random() * (scale[name] or 1)
               local whole = name:find("^feedback") or name == "index_m" or name == "index_lists"
               signals[name] = whole and math.floor(value) or value
            end
         end
         if math.random() < 0.5 then signals.index_lists = nil end
         if signals.adaptive then signals.adaptive = signals.adaptive > 0.5 and 1 or 0 end
         local mine, theirs = judge(signals), (built_in:judge(signals))
         for _, field in ipairs({ "confidence", "latency", "recall", "diversity", "feedback" }) do
            assert.near(mine[field], theirs[field], 1e-9, field)
            mine[field], theirs[field] = nil, nil
         end
         assert.same(mine, theirs)
         if not mine.success then failures = failures + 1 end
      end
      assert.is_true(failures > 300 and failures < 2900)
   end)
end)

describe("an edited verdict", function()
   after_each(policy_host.clean)

   it("takes effect at the next load", function()
      local host = policy_host.new()
      local text = assert(io.open("policies/verdict.lua")):read("*a")
      local directory = policy_host.directory({ verdict = text })
      host:load(directory)
      local signals = { recall = 0.88, target_recall = 0.95 }
      assert.is_false(host:judge(signals).success)
      policy_host.write(directory, "verdict", (text:gsub("threshold = 0.70", "threshold = 0.60")))
      assert.equal("ok", (host:load(directory)))
      assert.is_true(host:judge(signals).success)
      host:destroy()
   end)

   it("that calls bad searches good does not pass its own self-test", function()
      local host = policy_host.new()
      local text = assert(io.open("policies/verdict.lua")):read("*a")
      text = text:gsub("success = not index_miss and", "success = true or")
      local cause, failure = host:load(policy_host.directory({ verdict = text }))
      assert.equal("self_test", cause)
      assert.truthy(failure.reason:find("must be a failure", 1, true))
      host:destroy()
   end)
end)
