-- selection.lua - which of two indexes on the same column a query should use.
--
-- Asked while a query is planned, where a column has both a ruhnsw and a ruivfflat index. Returns what
-- the search costs by either; only the ratio matters. Whether an index is used at all stays with the
-- planner, which prices the cheaper one as the cheaper of its own two estimates.
--
--   measured   when at least `min_searches` searches for about as many rows were measured on both
--              indexes, their mean latency decides. Rows are those that the index has to give, so a
--              condition that leaves one row in ten is a search for ten times the limit
--   otherwise  the planner's estimates decide, which follow the settings and the size of the table
--   recall     an index that falls short of the declared recall gives less for its time: every
--              `shortfall_step` it lacks multiplies its cost by `shortfall_factor`

local max = math.max

local policy = {
   name = "selection",
   contract = 1,
   version = "1.0.0",
   describe = "Measured latency of searches for as many rows, else the planner's cost; "
      .. "missing recall counts as cost.",
   defaults = {
      min_searches = 20,
      shortfall_step = 0.01,
      shortfall_factor = 1.3,
   },
}

local config = policy.defaults

local function measured(index)
   return (index.searches or 0) >= config.min_searches and (index.latency_us or 0) > 0
end

function policy.predict(features)
   local hnsw, ivfflat = features.hnsw, features.ivfflat
   local by_time = measured(hnsw) and measured(ivfflat)
   local by_recall = hnsw.recall and ivfflat.recall

   local function predicted(index)
      local cost = by_time and index.latency_us or index.cost
      local shortfall = by_recall and max(features.target_recall - index.recall, 0) or 0
      cost = cost * config.shortfall_factor ^ (shortfall / config.shortfall_step)
      return math.min(max(cost, 1e-9), 1e18)
   end

   return { hnsw = predicted(hnsw), ivfflat = predicted(ivfflat) }
end

function policy.self_test(self)
   local function predict(hnsw, ivfflat)
      return self.predict { k = 10, limit = 10, rows = 1000, selectivity = 1, target_recall = 0.95,
         hnsw = hnsw, ivfflat = ivfflat }
   end
   local unmeasured = predict({ cost = 10 }, { cost = 20 })
   if unmeasured.hnsw >= unmeasured.ivfflat then return "without measurements the estimate decides" end
   local by_time = predict({ cost = 10, searches = 100, latency_us = 300 },
      { cost = 20, searches = 100, latency_us = 100 })
   if by_time.hnsw <= by_time.ivfflat then return "with measurements the latency decides" end
   local short = predict({ cost = 10, recall = 0.5 }, { cost = 20, recall = 0.95 })
   if short.hnsw <= short.ivfflat then return "recall that is missing must count" end
   return true
end

return policy
