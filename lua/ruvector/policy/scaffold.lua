-- scaffold.lua - the first draft of a policy and of its spec: complete, loadable, right and plain.

local policy_host = require("ruvector.policy_host")

local M = {}

local HEAD = [[
-- NAME.lua - say here what this policy decides, and for whom.
--
-- The full contract of KIND policies, every field with its range, is in ruvector's lua/README.md.

local lib = require("ruvector.policy") -- clamp, mix, mean, quantile, ewma, decay, logistic, lookup

local policy = {
   name = "NAME",
   kind = "KIND",
   version = "0.1.0",
   contract = CONTRACT,
   describe = "Say in one sentence what it does.",
   defaults = {
]]

local BODIES = {
   verdict = [[
      tolerance = 0.05, -- recall below the target that is forgiven
   },
}

local config = policy.defaults

-- trajectory: k, returned; latency_us; distances, hops, pages (work done); ef_search, slack, adaptive
-- (true or false); target_recall, expected_recall, recall (measured), diversity (0 to 1); score;
-- needed_distances; feedback = { relevant, irrelevant, missed_near, missed_far }.
-- context, of the index: judged, latency_p50_us, latency_p95_us, mean_distances, mean_recall.
-- What is not known is nil.
function policy.judge(trajectory, _)
   local recall = trajectory.recall or trajectory.expected_recall
   if not recall then return { success = true, confidence = 0, scores = {}, recommendations = {} } end
   local score = lib.clamp(1 - (trajectory.target_recall - recall) / config.tolerance, 0, 1)
   return {
      success = score > 0,
      confidence = trajectory.recall and 1 or 0.5, -- 0 to 1
      scores = { recall = score }, -- of latency, recall, diversity, feedback; 0 to 1
      recommendations = {}, -- up to 4 short texts that a person can act on
   }
end

function policy.self_test(self)
   local met = self.judge({ target_recall = 0.95, recall = 0.97 }, {})
   if not met.success then return "a search above its target must succeed" end
   local missed = self.judge({ target_recall = 0.95, recall = 0.5 }, {})
   if missed.success then return "a search far below its target must fail" end
   return true
end
]],
   interpolation = [[
      weight = 1, -- of a near pattern, beside the index-wide one
   },
}

local config = policy.defaults

-- query: k, target_recall. patterns: 0 to 8, nearest first, each with similarity and confidence (0 to
-- 1), slack, ef_search, probes, expected_recall, samples. defaults: the same of the whole index.
-- Every adaptive search calls this: keep it short.
function policy.interpolate(_, patterns, defaults)
   local nearest = patterns[1]
   if not nearest then
      return { slack = defaults.slack, ef_search = defaults.ef_search, probes = defaults.probes }
   end
   local own = config.weight * nearest.similarity * nearest.confidence
   local share = own / (own + 1)
   return {
      slack = lib.clamp(lib.mix(defaults.slack, nearest.slack, share), 0, 10),
      ef_search = lib.clamp(math.max(nearest.ef_search, defaults.ef_search), 1, 100000), -- a hard bound
      probes = lib.clamp(math.max(nearest.probes, defaults.probes), 1, 100000),
   }
end

function policy.self_test(self)
   local defaults = { similarity = 1, slack = 0.2, ef_search = 80, probes = 4, confidence = 1 }
   local alone = self.interpolate({ k = 10, target_recall = 0.95 }, {}, defaults)
   if alone.slack ~= 0.2 then return "without patterns the answer must be the defaults" end
   return true
end
]],
   distillation = [[
      margin = 0.002, -- recall added to every target
   },
}

-- batch: count, k, dim, metric, target_recall, min_samples, learning_rate, targets (the 12 recalls of
-- the tables), and per sample recall, confidence, age_s, success.
-- kernels: weigh, kmeans, sizes, slack_quantile, ef_quantile, highest_slack, highest_ef, recall_at,
-- recall_by_cluster, distances_at, isotonic.
function policy.distill(batch, kernels, config)
   if batch.count < math.max(batch.min_samples, 1) then return {} end
   local slacks, efs, recalls = {}, {}, {}
   for i, target in ipairs(batch.targets) do
      local wanted = math.min(target + config.margin, 1)
      local slack, ef = kernels.slack_quantile(wanted), kernels.ef_quantile(wanted)
      if slack == math.huge then slack = kernels.highest_slack() end
      if ef == math.huge then ef = kernels.highest_ef() end
      slacks[i] = lib.clamp(slack, slacks[i - 1] or 0, 10)
      efs[i] = lib.clamp(ef, efs[i - 1] or batch.k, 100000)
      recalls[i] = math.max(kernels.recall_at(slacks[i]), recalls[i - 1] or 0)
   end
   return {
      {
         cluster = 0, -- the whole index
         confidence = batch.count / (batch.count + 100), probes = 1, entry_points = 8,
         table_slack = slacks, table_ef = efs, table_recall = recalls,
      },
   }
end

function policy.self_test(self)
   local batch = { count = 1, min_samples = 2, k = 10, targets = { 0.9 } }
   if #self.distill(batch, {}, self.defaults) ~= 0 then return "too few samples must teach nothing" end
   return true
end
]],
   retention = [[
      max_idle_days = 30,
   },
}

local config = policy.defaults

local function means(a, b, weight)
   local merged = {}
   for i = 1, #a do merged[i] = math.max(lib.mix(a[i], b[i], weight), merged[i - 1] or 0) end
   return merged
end

-- a, b: the older and the newer pattern; weight: the newer's share, 0 to 1.
function policy.merge(a, b, weight)
   return {
      centroid_weight = weight,
      samples = math.min(a.samples + b.samples, 1e6),
      confidence = lib.clamp(lib.mix(a.confidence, b.confidence, weight), 0, 1),
      radius = math.max(lib.mix(a.radius, b.radius, weight), 0),
      mean_distances = math.max(lib.mix(a.mean_distances, b.mean_distances, weight), 0),
      probes = math.max(math.floor(lib.mix(a.probes, b.probes, weight) + 0.5), 1),
      table_slack = means(a.table_slack, b.table_slack, weight),
      table_ef = means(a.table_ef, b.table_ef, weight),
      table_recall = means(a.table_recall, b.table_recall, weight),
   }
end

-- now and pattern.updated_s: seconds on one clock.
function policy.keep(pattern, now)
   return pattern.usage > 0 or (now - pattern.updated_s) / 86400 <= config.max_idle_days
end

function policy.self_test(self)
   if self.keep({ usage = 0, updated_s = 0 }, 365 * 86400) then return "what nobody uses must go" end
   return true
end
]],
}

BODIES.tuning = [[
      recall_floor = 0.95,
   },
}

local config = policy.defaults

-- curve: the measured settings by rising effort, each with effort, recall, distances, latency_us.
-- goal: "recall", "latency" or "balanced".
function policy.choose(curve, _)
   local chosen = #curve
   for i = #curve, 1, -1 do
      if curve[i].recall >= config.recall_floor then chosen = i end
   end
   return { point = chosen, target_recall = lib.clamp(curve[chosen].recall, 0.5, 0.99) }
end

function policy.self_test(self)
   local curve = {{ effort = 10, recall = 0.9 }, { effort = 40, recall = 0.96 }, { effort = 90, recall = 1 }}
   if self.choose(curve, "recall").point ~= 2 then return "the least effort that reaches the floor" end
   return true
end
]]

BODIES.selection = [[
      min_searches = 20,
   },
}

local config = policy.defaults

-- features: k, limit, rows, selectivity, target_recall, and of both indexes hnsw and ivfflat: cost (the
-- planner's) and, where known, searches, latency_us, distances, recall. Only the ratio of the two
-- results matters.
function policy.predict(features)
   local hnsw, ivfflat = features.hnsw, features.ivfflat
   local measured = math.min(hnsw.searches or 0, ivfflat.searches or 0) >= config.min_searches
   local field = measured and "latency_us" or "cost"
   return { hnsw = lib.clamp(hnsw[field], 1e-9, 1e18), ivfflat = lib.clamp(ivfflat[field], 1e-9, 1e18) }
end

function policy.self_test(self)
   local costs = self.predict({ hnsw = { cost = 1 }, ivfflat = { cost = 2 } })
   if costs.hnsw >= costs.ivfflat then return "without measurements the estimate decides" end
   return true
end
]]

BODIES.healing = [[
      queries = 400, -- that must wait before a round
      busiest = 0.5, -- share of a core that searches may take meanwhile
   },
}

local config = policy.defaults

-- situation: hour (of the day, 0 to 24), weekday (1 Monday to 7), load (share of a core that searches
-- take), searches_per_second, idle_s (since the last search), asked (true: somebody waits); waiting,
-- used (queries), held_out (queries that judge), min_samples; since_round_s, round_s, gain (of the
-- last round); rows, links (a node has), room (for them), budget. What is not known is nil.
function policy.heal(situation)
   return {
      run = situation.waiting >= math.max(config.queries, situation.used)
         and situation.held_out >= situation.min_samples and (situation.load or 0) <= config.busiest,
      queries = 8192, -- that may ask, at most
      rows_per_query = 48, -- nearest rows that a query joins, 2 to 128
      links_per_node = lib.clamp(situation.room, 1, 32),
      min_requests = 1, -- queries that must ask for a link
      min_gain = 0, -- the round stays if it gains more, 0 to 1
   }
end

function policy.self_test(self)
   local busy = { waiting = 1000, used = 0, held_out = 100, min_samples = 100, load = 2, room = 8 }
   if self.heal(busy).run then return "nothing may run while searches take two cores" end
   return true
end
]]

local SPEC = [[
-- The specification of NAME.lua. Run it with busted from ruvector's root, or where ruvector is installed
-- (SHARE is `pg_config --sharedir`):
--   RUVECTOR_BUILD=SHARE/ruvector/lib LUA_PATH='SHARE/ruvector/lua/?.lua;;' busted --lua=/usr/bin/luajit FILE

local candidate = require("ruvector.policy.candidate")

local here = debug.getinfo(1, "S").source:match("^@(.*)/") or "."

describe("the KIND policy NAME", function()
   local policy
   setup(function() policy = assert(candidate.open(here .. "/NAME.lua")) end)
   teardown(function() policy.host:destroy() end)

EXAMPLE
end)
]]

local EXAMPLES = {
   verdict = [[
   it("fails a search that missed its target by far", function()
      local verdict, cause = policy.host:judge({ target_recall = 0.95, recall = 0.5 })
      assert.equal("ok", cause)
      assert.is_false(verdict.success)
   end)]],
   interpolation = [[
   it("gives the defaults where no pattern is near", function()
      local defaults = { similarity = 1, slack = 0.3, ef_search = 90, probes = 2, confidence = 1 }
      local plan, cause = policy.host:interpolate(defaults, {}, 0.95)
      assert.equal("ok", cause)
      assert.near(0.3, plan.slack, 1e-12)
   end)]],
   distillation = [[
   it("teaches nothing from too few samples", function()
      local policy_host = require("ruvector.policy_host")
      local batch = policy_host.batch({ { query = { 0, 1 }, slacks = { 0.1 } } }, { min_samples = 2 })
      local patterns, cause = policy.host:distill(batch)
      assert.equal("ok", cause)
      assert.equal(0, #patterns)
   end)]],
   retention = [[
   it("drops a pattern that nobody uses any more", function()
      local policy_host = require("ruvector.policy_host")
      local unused = policy_host.pattern({ usage = 0, confidence = 0.1, updated_us = 0 })
      assert.is_false(policy.host:keep(unused, 365 * 86400 * 1e6))
   end)]],
}

EXAMPLES.tuning = [[
   it("takes the least effort that reaches the floor", function()
      local curve = {
         { effort = 10, recall = 0.9, distances = 100, latency_us = 50 },
         { effort = 40, recall = 0.96, distances = 300, latency_us = 150 },
         { effort = 90, recall = 0.98, distances = 800, latency_us = 400 },
      }
      local choice, cause = policy.host:choose(curve, "recall")
      assert.equal("ok", cause)
      assert.equal(2, choice.point)
   end)]]

EXAMPLES.selection = [[
   it("goes by the estimates while little was measured", function()
      local costs, cause = policy.host:predict({ cost = 10 }, { cost = 20 })
      assert.equal("ok", cause)
      assert.is_true(costs.hnsw < costs.ivfflat)
   end)]]

EXAMPLES.healing = [[
   it("waits until there is enough to learn from", function()
      local policy_host = require("ruvector.policy_host")
      local answer, cause = policy.host:heal(policy_host.situation({ waiting = 399 }))
      assert.equal("ok", cause)
      assert.is_false(answer.run)
      assert.is_true((policy.host:heal(policy_host.situation({ waiting = 400 }))).run)
   end)]]

local function fill(text, values)
   return (text:gsub("%u%u%u%u+", values))
end

local function write(path, text)
   local existing = io.open(path, "r")
   if existing then
      existing:close()
      error(path .. " exists already; choose another name or remove it", 0)
   end
   local file, err = io.open(path, "w")
   if not file then error("cannot write " .. err, 0) end
   file:write(text)
   file:close()
end

--- Kinds that can be begun here.
function M.kinds() return BODIES end

--- Writes DIRECTORY/NAME.lua and DIRECTORY/NAME_spec.lua; returns both paths.
function M.write(name, kind, directory)
   if not name:match("^[%w_-]+$") or #name > 63 or name:match("_spec$") then
      error(("%q cannot name a policy: letters, digits, '_' and '-', at most 63, not ending in _spec")
         :format(name), 0)
   end
   if policy_host.KINDS[name] and name ~= kind then
      error(("%s.lua is the default %s policy's file; choose another name"):format(name, name), 0)
   end
   local values = { NAME = name, KIND = kind, CONTRACT = tostring(policy_host.contract(kind)),
      EXAMPLE = EXAMPLES[kind] }
   local policy_path = directory .. "/" .. name .. ".lua"
   local spec_path = directory .. "/" .. name .. "_spec.lua"
   write(policy_path, fill(HEAD, values) .. BODIES[kind] .. "\nreturn policy\n")
   write(spec_path, fill(SPEC, values))
   return policy_path, spec_path
end

return M
