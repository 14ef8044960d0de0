-- The kernels that a distillation policy may call, through the policy's eyes.

local policy_host = require("support.policy_host")

describe("a kernel", function()
   local host
   after_each(function()
      if host then host:destroy() end
      host = nil
      policy_host.clean()
   end)

   local SAMPLES = {}
   for i = 1, 20 do
      SAMPLES[i] = {
         query = { i <= 10 and -1 or 1, i / 100 }, slacks = { 0.01 * i, 0.02 * i }, efs = { i, 2 * i },
         distances = { 10 * i, 20 * i },
      }
   end

   -- Runs statements inside distill; they may raise, and may assert.
   local function run(body)
      host = policy_host.serving("distillation", body .. " return {}")
      local _, cause, failure = host:distill(policy_host.batch(SAMPLES))
      host:destroy()
      host = nil
      return cause, failure
   end
   local function assert_runs(body)
      local cause, failure = run(body)
      assert.equal("ok", cause, failure.reason)
   end

   it("slack_quantile and ef_quantile give the effort for a recall", function()
      assert_runs([[
         assert(kernels.slack_quantile(0) > 0.0099 and kernels.slack_quantile(0) < 0.0101)
         assert(kernels.ef_quantile(0.5) == 14)
         assert(kernels.ef_quantile(1) == 40)
         assert(kernels.highest_ef() == 40)
         assert(kernels.highest_slack() > 0.399 and kernels.highest_slack() < 0.401)]])
   end)

   it("recall_at and distances_at tell what a slack gets and costs", function()
      assert_runs([[
         local recall, standard_error = kernels.recall_at(10)
         assert(recall == 1 and standard_error == 0)
         recall, standard_error = kernels.recall_at(0.2000001)
         assert(math.abs(recall - 30 / 40) < 1e-9)
         local variance = (10 * 0.25 ^ 2 + 10 * 0.25 ^ 2) / 20 ^ 2
         assert(math.abs(standard_error - math.sqrt(variance)) < 1e-9)
         assert(kernels.distances_at(10) == 210)
         assert(kernels.distances_at(0) == 0)]])
   end)

   it("weigh changes what counts", function()
      assert_runs([[
         local weights = {}
         for i = 1, batch.count do weights[i] = i <= 10 and 1 or 0 end
         kernels.weigh(weights)
         assert(kernels.highest_ef() == 20)
         for i = 1, batch.count do weights[i] = 0 end
         kernels.weigh(weights)
         assert(kernels.slack_quantile(0.5) == math.huge)
         assert(kernels.highest_ef() == 0)
         assert(kernels.recall_at(1) == 0)]])
   end)

   it("kmeans splits the samples, and the others then take a cluster's number", function()
      assert_runs([[
         local sizes = kernels.kmeans(2, 20)
         assert(#sizes == 2 and sizes[1] == 10 and sizes[2] == 10)
         local low, high = kernels.highest_ef(1), kernels.highest_ef(2)
         assert(math.min(low, high) == 20 and math.max(low, high) == 40)
         local recall = kernels.recall_by_cluster({ 10, 10 })
         assert(recall == 1)
         recall = kernels.recall_by_cluster({ 0, 10 })
         assert(recall == 0.5)
         local weights = {}
         for i = 1, batch.count do weights[i] = i == 1 and 1 or 0 end
         kernels.weigh(weights)
         sizes = kernels.sizes()
         assert(sizes[1] + sizes[2] == 1)]])
   end)

   it("isotonic gives the nearest values that never fall", function()
      assert_runs([[
         local fit = kernels.isotonic({ 1, 3, 2, 4 })
         assert(fit[1] == 1 and fit[2] == 2.5 and fit[3] == 2.5 and fit[4] == 4)
         assert(#kernels.isotonic({}) == 0)]])
   end)

   it("refuses bad arguments with the line of the policy that passed them", function()
      for call, reason in pairs({
         ["slack_quantile()"] = "number expected", ["slack_quantile('0.5')"] = "number expected",
         ["slack_quantile(1.5)"] = "1.5 is not from 0 to 1",
         ["slack_quantile(0/0)"] = "nan is not from 0 to 1",
         ["ef_quantile(0.5, 1)"] = "not from 1 to 0", ["recall_at(-1)"] = "-1 is not from 0",
         ["recall_at(1, 0)"] = "not from 1", ["recall_by_cluster({})"] = "needs kmeans",
         ["weigh({ 1 })"] = "1 entries; 20 are expected", ["weigh(7)"] = "table expected",
         ["weigh({1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,-1})"] = "entry 20 must be a number",
         ["kmeans(0, 5)"] = "0 is not from 1 to 256", ["kmeans(257, 5)"] = "257 is not from 1 to 256",
         ["kmeans(2, 101)"] = "101 is not from 1 to 100", ["isotonic({ 0/0 })"] = "entry 1 must be",
         ["unknown()"] = "'kernels.unknown' is not defined",
      }) do
         local cause, failure = run("\n\nkernels." .. call)
         assert.equal("error", cause, call)
         assert.truthy(failure.reason:find(reason, 1, true), call .. ": " .. failure.reason)
         assert.equal(4, failure.line)
      end
      local cause, failure = run("kernels.kmeans(2, 5)\n kernels.recall_at(1, 1.5)")
      assert.equal("error", cause)
      assert.truthy(failure.reason:find("whole", 1, true))
      cause = run("kernels.slack_quantile = nil")
      assert.equal("error", cause)
   end)

   it("that a policy kept works on the samples of the distillation that runs", function()
      host = policy_host.serving("distillation", [[
         kept.kernels = kept.kernels or kernels
         if kept.kernels.highest_ef() ~= 10 * batch.count then error('samples of another call') end
         return {}]], nil, nil, "local kept = {}")
      for count = 1, 3 do
         local samples = {}
         for i = 1, count do samples[i] = { query = { 0 }, slacks = { 0.1 }, efs = { 10 * i } } end
         local _, cause, failure = host:distill(policy_host.batch(samples))
         assert.equal("ok", cause, failure.reason)
      end
   end)
end)
