-- distillation.lua - what the recorded searches teach.
--
-- The worker re-runs a sample of real searches to a large effort (a deep trace) and so knows for
-- each true neighbour the least slack, and the least ef, that would have found it. This policy
-- turns such a batch into patterns: tables that say which slack reaches which recall.
--
--   1. Pool the needed slacks of all samples. The slack that finds a share r of the true
--      neighbours, the r-quantile of the pool, is the slack for a mean recall of r. Failures and
--      successes count alike, and so does a sample of any confidence: leaving out the searches that
--      went badly would promise a recall that the hard queries then miss.
--   2. Aim a little above the target (`safety` standard errors of the measured mean recall), so
--      that unseen queries reach the target rather than just miss it.
--   3. Cluster the queries. Each cluster has a table of its own, shrunk towards the index-wide one:
--      clusters alone are known to gain little, and a small cluster knows little.
--   4. Cross-check: tables made from one half of the samples are tried on the other half, and all
--      regions move together until the mean recall of the other half is what was promised. What its
--      searches then cost, over what one slack for all costs at the same recall, is `region_work`:
--      the worker uses regions only where they pay.

local log, exp, huge = math.log, math.exp, math.huge
local max, min, floor = math.max, math.min, math.floor

local policy = {
   name = "distillation",
   contract = 1,
   version = "1.0.0",
   describe = "Calibrates the slack for each recall target from deep traces: one table for the whole index, "
      .. "and a shrunken correction for each region of the query space.",
   defaults = {
      safety = 0.9, -- standard errors of the mean recall added to a target
      half_life_days = 14, -- a sample of this age counts half
      samples_per_cluster = 100,
      max_clusters = 16, -- every search compares with every region: more cost more than they gain
      min_cluster_samples = 30, -- smaller clusters give no pattern
      kmeans_iterations = 12,
      shrink = 400, -- a cluster of this many samples is believed half
      confidence_half = 100, -- samples for a confidence of one half
      entry_points = 8, -- kept per pattern, at most 8
      max_shift = 0.3, -- the cross-check moves log(1 + slack) at most this far
   },
}

-- The limits that the host sets.
local MAX_SLACK, MAX_EF = 10, 100000

-- Weight of every sample: halved with every half-life. keep(i), if given, picks those that count.
local function weights_by_age(batch, config, keep)
   local weights = {}
   for i = 1, batch.count do
      local age_days = max(batch.age_s[i], 0) / 86400
      local counts = keep == nil or keep(i)
      weights[i] = counts and 2 ^ (-age_days / config.half_life_days) or 0
   end
   return weights
end

-- A target and its margin, never more than half the way from the target to a recall of 1.
local function safe_recall(target, kernels, config)
   local slack = kernels.slack_quantile(target)
   if slack == huge then return target end
   local _, standard_error = kernels.recall_at(slack)
   return min(target + config.safety * standard_error, (1 + target) / 2)
end

-- The least effort for a recall; where no traced effort reached it, the highest that found anything.
local function slack_for(recall, kernels, cluster)
   local slack = kernels.slack_quantile(recall, cluster)
   if slack == huge then slack = kernels.highest_slack(cluster) end
   return min(slack, MAX_SLACK)
end

local function ef_for(recall, kernels, cluster)
   local ef = kernels.ef_quantile(recall, cluster)
   if ef == huge then ef = kernels.highest_ef(cluster) end
   return min(ef, MAX_EF)
end

-- More recall never takes less effort: every entry at least the one before, and at least floor_value.
local function rising(values, floor_value)
   local least = floor_value
   for i = 1, #values do
      least = max(least, values[i])
      values[i] = least
   end
   return values
end

local function recalls_at(slacks, kernels, cluster)
   local recalls = {}
   for i = 1, #slacks do
      recalls[i] = kernels.recall_at(slacks[i], cluster)
   end
   return recalls
end

-- The tables that hold everywhere, and the recalls that were aimed at.
local function index_tables(batch, kernels, config)
   local tables = { safe = {}, slack = {}, ef = {} }
   for i, target in ipairs(batch.targets) do
      local safe = safe_recall(target, kernels, config)
      tables.safe[i] = safe
      tables.slack[i] = slack_for(safe, kernels)
      tables.ef[i] = ef_for(safe, kernels)
   end
   rising(tables.slack, 0)
   rising(tables.ef, batch.k)
   return tables
end

-- How much a cluster of this size is believed.
local function trust(size, config) return size / (size + config.shrink) end

-- Between two values on a logarithmic scale.
local function blend(share, own, common) return exp(share * log(own) + (1 - share) * log(common)) end

-- The slack of one cluster for target number i, between its own and the index-wide one.
local function region_slack(i, cluster, size, index, kernels, config)
   local own = size > 0 and slack_for(index.safe[i], kernels, cluster) or index.slack[i]
   return blend(trust(size, config), 1 + own, 1 + index.slack[i]) - 1
end

local function shifted(slack, shift) return min(max((1 + slack) * exp(shift) - 1, 0), MAX_SLACK) end

-- The common shift that brings the samples that count now to the recall wanted, each one searched
-- with its cluster's slack. Bisection: recall only grows with the shift.
local function shift_for(slacks, wanted, kernels, config)
   local low, high = -config.max_shift, config.max_shift
   for _ = 1, 12 do
      local middle, moved = (low + high) / 2, {}
      for c = 1, #slacks do
         moved[c] = shifted(slacks[c], middle)
      end
      if kernels.recall_by_cluster(moved) >= wanted then
         high = middle
      else
         low = middle
      end
   end
   return high
end

-- What searches cost with the slack of their cluster, and with one slack for all, at equal recall; a
-- search with clusters compares its query with each of them first. nil when not known.
local function region_work(slacks, wanted, kernels)
   local with = kernels.work_by_cluster(slacks)
   local without = kernels.work_at(slack_for(wanted, kernels))
   if with and without and without > 0 then return { with = with + #slacks, without = without } end
end

-- The number of the first target that is at least the one declared.
local function declared(batch)
   for i, target in ipairs(batch.targets) do
      if target >= batch.target_recall - 1e-9 then return i end
   end
   return #batch.targets
end

-- For each target, the shift that one half of the samples asks of tables made from the other half;
-- and the work of that half at the declared target.
local function cross_check(batch, kernels, config, clusters, learn_from)
   kernels.weigh(weights_by_age(batch, config, function(i) return i % 2 == learn_from end))
   local index, slacks = index_tables(batch, kernels, config), {}
   local sizes = kernels.sizes()
   for i = 1, #batch.targets do
      slacks[i] = {}
      for c = 1, clusters do
         slacks[i][c] = region_slack(i, c, sizes[c], index, kernels, config)
      end
   end
   kernels.weigh(weights_by_age(batch, config, function(i) return i % 2 ~= learn_from end))
   local shifts, work = {}, nil
   for i = 1, #batch.targets do
      local reached = kernels.recall_at(MAX_SLACK)
      local wanted = min(index.safe[i], reached)
      shifts[i] = shift_for(slacks[i], wanted, kernels, config)
      if i == declared(batch) then
         local moved = {}
         for c = 1, clusters do
            moved[c] = shifted(slacks[i][c], shifts[i])
         end
         work = region_work(moved, kernels.recall_by_cluster(moved), kernels)
      end
   end
   return shifts, work
end

local function pattern_of(cluster, size, slacks, efs, kernels, config)
   return {
      cluster = cluster,
      confidence = size / (size + config.confidence_half),
      probes = 1,
      entry_points = config.entry_points,
      table_slack = slacks,
      table_ef = efs,
      table_recall = recalls_at(slacks, kernels, cluster > 0 and cluster or nil),
   }
end

local function region_patterns(batch, kernels, config, index)
   local wanted = min(floor(batch.count / config.samples_per_cluster), config.max_clusters)
   if wanted < 2 then return {} end
   local clusters = #kernels.kmeans(wanted, config.kmeans_iterations)
   local odd, odd_work = cross_check(batch, kernels, config, clusters, 1)
   local even, even_work = cross_check(batch, kernels, config, clusters, 0)
   kernels.weigh(weights_by_age(batch, config))
   local sizes, patterns = kernels.sizes(), {}
   for c = 1, clusters do
      if sizes[c] >= config.min_cluster_samples then
         local slacks, efs = {}, {}
         for i = 1, #batch.targets do
            local slack = region_slack(i, c, sizes[c], index, kernels, config)
            slacks[i] = shifted(slack, (odd[i] + even[i]) / 2)
            efs[i] = blend(trust(sizes[c], config), max(ef_for(index.safe[i], kernels, c), 1), index.ef[i])
         end
         patterns[#patterns + 1] =
            pattern_of(c, sizes[c], rising(slacks, 0), rising(efs, 1), kernels, config)
      end
   end
   local ratio = odd_work
      and even_work
      and (odd_work.with + even_work.with) / (odd_work.without + even_work.without)
   return patterns, ratio
end

function policy.distill(batch, kernels, config)
   if batch.count < max(batch.min_samples, 1) then return {} end
   kernels.weigh(weights_by_age(batch, config))
   local index = index_tables(batch, kernels, config)
   local patterns = { pattern_of(0, batch.count, index.slack, index.ef, kernels, config) }
   local regions, ratio = region_patterns(batch, kernels, config, index)
   for _, pattern in ipairs(regions) do
      patterns[#patterns + 1] = pattern
   end
   patterns[1].region_work = ratio and min(ratio, 100)
   return patterns
end

-- A batch in which slack s finds the share s of the neighbours: the table must say just that.
function policy.self_test(self)
   local kernels = {
      weigh = function() end,
      slack_quantile = function(target) return target end,
      ef_quantile = function(target) return target < 0.95 and 100 * target or huge end,
      highest_slack = function() return 1 end,
      highest_ef = function() return 200 end,
      recall_at = function(slack) return min(slack, 1), 0.01 end,
   }
   local batch = { count = 2, k = 10, min_samples = 2 }
   batch.age_s, batch.targets = { 0, 1e6 }, { 0.5, 0.9, 0.95 }
   local patterns = self.distill(batch, kernels, self.defaults)
   local index = patterns[1]
   if #patterns ~= 1 or index.cluster ~= 0 then return "two samples must give one pattern, index-wide" end
   for i, target in ipairs(batch.targets) do
      if index.table_slack[i] < target then return "the slack must reach its target" end
   end
   if index.table_ef[3] ~= 200 then return "a target out of reach must take the highest effort known" end
   batch.min_samples = 3
   if #self.distill(batch, kernels, self.defaults) ~= 0 then return "too few samples must teach nothing" end
   return true
end

return policy
