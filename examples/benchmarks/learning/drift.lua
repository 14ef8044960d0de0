-- drift.lua - a new topic: rows unlike those that were learned from are inserted, and queries follow them.
--
-- The rows are clustered (k-means); one cluster and those nearest to it, a tenth of all rows, are the new
-- topic. The index is built without them and learns from queries of the other topics. Then the new
-- rows are inserted, and a stream of queries is sent at a steady pace and recorded as any others: as many
-- of the new topic as of the others, none sent before. A query is of the new topic when at least half of its
-- true neighbours are new rows. Recall is over windows of the stream, as a user would see it.

local ffi = require("ffi")
local clock = require("ruvector.clock")
local curve = require("ruvector.curve")
local engine = require("ruvector.engine")
local measure = require("demo.measure")
local common = require("benchmarks.common")
local report = require("benchmarks.learning.report")
local study = require("benchmarks.learning.study")
local twins = require("benchmarks.learning.twins")

local M = {}

local TABLE = "drift"
local CLUSTERS, ITERATIONS = 50, 10
local NEW_SHARE, MOST_NEW = 0.10, 0.11
local RATE = 100        -- queries a second: the worker has time to notice, as on a server in use
local STREAM = 3000     -- queries at most
local WINDOW, STEP = 500, 250
local RECOVERED_BY = 1000 -- queries
local MOST_BELOW, BACK_WITHIN = 0.03, 0.01

local function cluster_rows(set, seed)
   local options, err = ffi.new("rv_kmeans_options"), engine.error_buffer()
   options.metric = set.metric == "l2" and engine.lib.RV_METRIC_L2 or engine.lib.RV_METRIC_COSINE
   options.dim, options.clusters, options.seed = set.rows.dim, CLUSTERS, seed
   options.max_iterations, options.tolerance = ITERATIONS, 1e-6
   local centres = ffi.new("float[?]", CLUSTERS * set.rows.dim)
   local assignment = ffi.new("uint32_t[?]", set.rows.count)
   engine.check(engine.lib.rv_kmeans(engine.allocator, options, set.rows.data, set.rows.count, centres,
      assignment, nil, err), err)
   return options.metric, centres, assignment
end

-- Whether each row is of the new topic, by row number; and how many are.
local function new_rows(set, seed)
   local metric, centres, assignment = cluster_rows(set, seed)
   local sizes, order, chosen, count = {}, measure.range(0, CLUSTERS - 1), {}, 0
   for row = 0, set.rows.count - 1 do sizes[assignment[row]] = (sizes[assignment[row]] or 0) + 1 end
   local function from_first(c)
      return engine.lib.rv_raw_distance(metric, centres + (seed % CLUSTERS) * set.rows.dim,
         centres + c * set.rows.dim, set.rows.dim)
   end
   table.sort(order, function(a, b) return from_first(a) < from_first(b) end)
   for _, c in ipairs(order) do
      local with = count + (sizes[c] or 0)
      if count < NEW_SHARE * set.rows.count and with <= MOST_NEW * set.rows.count then
         chosen[c], count = true, with
      end
   end
   local is_new = {}
   for row = 0, set.rows.count - 1 do is_new[row] = chosen[assignment[row]] or false end
   return is_new, count
end

-- The queries of both kinds: of the new topic, and others to learn from and to mix in.
local function divide_queries(set, is_new, seed)
   local new, learn, others = {}, {}, {}
   for query = 0, set.truth.count - 1 do
      local hits = 0
      for i = 0, measure.K - 1 do
         if is_new[set.truth.ids[query * set.truth.k + i]] then hits = hits + 1 end
      end
      if hits >= measure.K / 2 then
         new[#new + 1] = query
      elseif query < set.first then
         learn[#learn + 1] = query
      else
         others[#others + 1] = query
      end
   end
   new, others = twins.shuffled(new, seed), twins.shuffled(others, seed)
   local half, stream, topic = math.min(#new, #others, STREAM / 2), {}, {}
   for i = 1, half do
      stream[2 * i - 1], stream[2 * i] = new[i], others[i]
      topic[new[i]] = true
   end
   return learn, twins.shuffled(stream, seed + 1), topic
end

-- Sends the stream at its pace; a tally in the order of the queries.
local function send(searcher, stream, target)
   local tally, started = measure.tally(), clock.now()
   searcher:set { adaptive_search = "on", target_recall = target }
   for i, query in ipairs(stream) do
      clock.pause(math.max(0, started + i / RATE - clock.now()))
      searcher:time({ query }, tally)
   end
   return tally
end

-- Recall and distances of queries first to last of the stream; of all, and of the new topic alone.
local function window_of(tally, topic, first, last)
   local all, new, distances = {}, {}, {}
   for i = first, last do
      all[#all + 1], distances[#distances + 1] = tally.recalls[i], tally.distances[i]
      if topic[tally.queries[i]] then new[#new + 1] = tally.recalls[i] end
   end
   local recall, half = curve.interval(all)
   return { first = first, last = last, recall = recall, half_width = half, new_topic = curve.mean(new),
      distances = curve.mean(distances) }
end

local function windows_of(tally, topic)
   local out, count = {}, #tally.recalls
   for first = 1, math.max(1, count - WINDOW + 1), STEP do
      out[#out + 1] = window_of(tally, topic, first, math.min(first + WINDOW - 1, count))
   end
   return out
end

--- The scenario on one data set. Returns a table of figures.
function M.run(server, set, seed, target)
   local is_new, count = new_rows(set, seed)
   local learn, stream, topic = divide_queries(set, is_new, seed)
   if #stream < WINDOW then
      return { target = target, stream = #stream, new_rows = count, windows = {} }
   end
   local old, new = {}, {}
   for _, row in ipairs(twins.shuffled(measure.range(0, set.rows.count - 1), seed)) do
      table.insert(is_new[row] and new or old, row)
   end
   local db = twins.connect(server)
   common.step("drift: the index without the new topic, and learning", function()
      twins.make(server, set, TABLE, old)
      study.enable_learning(db, TABLE, #learn + #stream)
      study.teach(server, set, TABLE, learn, { passes = 1, seed = seed })
   end)
   common.step(("drift: %d new rows inserted"):format(count), function()
      twins.insert(db, set, TABLE, new)
   end)
   local searchers = twins.searchers(server, set, TABLE, 1, true)
   local tally = common.step(("drift: %d queries, half of the new topic"):format(#stream), function()
      return send(searchers[1], stream, target)
   end)
   twins.close(searchers)
   db:exec("DROP TABLE " .. TABLE)
   db:close()
   local windows, lowest = windows_of(tally, topic), 1
   for _, window in ipairs(windows) do lowest = math.min(lowest, window.recall) end
   local out = { target = target, stream = #stream, new_rows = count, windows = windows, lowest = lowest }
   if #stream >= RECOVERED_BY + WINDOW then
      out.after = window_of(tally, topic, RECOVERED_BY + 1, #stream)
   end
   return out
end

--- Prints the windows of one run.
function M.print(drift)
   local rows = {}
   for i, w in ipairs(drift.windows) do
      rows[i] = { ("%d to %d"):format(w.first, w.last), ("%.4f ± %.4f"):format(w.recall, w.half_width),
         common.show(w.new_topic, "%.4f"), ("%.0f"):format(w.distances) }
   end
   common.markdown({ ("queries after %d rows of a new topic, target %.2f"):format(drift.new_rows,
      drift.target), "recall", "recall, new topic", "distances" }, rows)
end

--- The limits of one run, appended to criteria.
function M.judge(criteria, set, drift)
   if #drift.windows == 0 then return end
   local least, back = drift.target - MOST_BELOW, drift.target - BACK_WITHIN
   report.add(criteria, set, ("new topic: the lowest window of %d queries"):format(WINDOW),
      ("%.4f"):format(drift.lowest), (">= %.3f"):format(least), drift.lowest >= least)
   if drift.after then
      report.add(criteria, set, ("new topic: recall after %d queries"):format(RECOVERED_BY),
         ("%.4f ± %.4f"):format(drift.after.recall, drift.after.half_width), (">= %.3f"):format(back),
         drift.after.recall >= back)
   end
end

return M
