-- recorded.lua - searches that a server has recorded, for trying policies on.
--
-- From a server (the view ruvector_trajectories, as its owner or a superuser) or from a file that
-- `ruvector-policy replay --dump` wrote: one JSON object a line, {"index": ...} for an index with its
-- metric and patterns, {"search": ...} for each of its searches. The deep trace of a search says for
-- each true neighbour the least slack that finds it and the work done by then, so what any other
-- effort would have cost is known and not guessed.

local cjson = require("cjson") -- Debian: lua-cjson
local kinds = require("ruvector.policy.kinds")
local policy_host = require("ruvector.policy_host")

local M = {}

local METRICS = { l2 = 1, inner_product = 2, cosine = 3, l1 = 4 }

-- ---- reading -------------------------------------------------------------------------------

local INDEXES = [[
SELECT i.indexrelid AS oid, i.indexrelid::regclass::text AS name, i.indrelid::regclass::text AS table_name,
   a.amname AS method, t.reltuples::float8 AS rows,
   coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)
      WHERE option_name = 'learned_links'), 8) AS room,
   CASE WHEN o.opcname LIKE '%cosine%' THEN 'cosine' WHEN o.opcname LIKE '%\_ip\_%' THEN 'inner_product'
        WHEN o.opcname LIKE '%l1%' THEN 'l1' ELSE 'l2' END AS metric
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
JOIN pg_opclass o ON o.oid = i.indclass[0] JOIN pg_class t ON t.oid = i.indrelid
WHERE a.amname IN ('ruhnsw', 'ruivfflat')
AND ($1::text IS NULL OR i.indrelid = to_regclass($1)) ORDER BY 1]]

local SEARCHES = [[
SELECT row_to_json(t)::text AS json FROM ruvector_trajectories t WHERE t.index = $1::oid::regclass
ORDER BY t.searched_at DESC LIMIT $2]]

local PATTERNS = "SELECT row_to_json(p)::text AS json FROM ruvector_patterns p WHERE index_oid = $1"

local function decode(text)
   local ok, value = pcall(cjson.decode, text)
   if not ok then return nil, value end
   return value
end

-- Patterns can be read by those who may read the extension's tables: superusers.
local function patterns_of(db, oid)
   local allowed = db:value("SELECT has_table_privilege('ruvector_patterns', 'SELECT')")
   local patterns = {}
   if allowed then
      local rows = db:exec(PATTERNS, oid)
      for i, row in ipairs(rows) do patterns[i] = decode(row.json) end
   end
   return patterns
end

-- Likewise; nil where it is not known.
local function min_samples_of(db, table_name)
   if not db:value("SELECT has_table_privilege('ruvector_learning', 'SELECT')") then return nil end
   return db:value("SELECT min_samples FROM ruvector_learning WHERE table_id = $1::text::regclass",
      table_name)
end

--- Everything recorded for the indexes of a database, or of one of its tables.
function M.from_server(conninfo, table_name, limit)
   local db = require("ruvector.pg").connect(conninfo)
   local indexes = {}
   for _, found in ipairs(db:exec(INDEXES, table_name)) do
      local index = { name = found.name, table_name = found.table_name, metric = found.metric, searches = {},
         method = found.method, rows = found.rows, room = found.room, patterns = patterns_of(db, found.oid),
         min_samples = min_samples_of(db, found.table_name) }
      for i, row in ipairs(db:exec(SEARCHES, found.oid, limit)) do index.searches[i] = decode(row.json) end
      if #index.searches > 0 then indexes[#indexes + 1] = index end
   end
   db:close()
   return indexes
end

--- What `write` wrote. Errors name the line.
function M.from_file(path)
   local file, err = io.open(path, "r")
   if not file then error("cannot read " .. err, 0) end
   local indexes, number = {}, 0
   for line in file:lines() do
      number = number + 1
      local value, reason = decode(line)
      if type(value) ~= "table" then error(("%s:%d: no JSON object: %s"):format(path, number, reason), 0) end
      local index = value.index
      if type(index) == "table" and METRICS[index.metric] and type(index.patterns) == "table" then
         index.searches = {}
         indexes[#indexes + 1] = index
      elseif type(value.search) == "table" and #indexes > 0 then
         table.insert(indexes[#indexes].searches, value.search)
      else
         error(("%s:%d: neither an index with its metric and patterns, nor a search that follows one; "
            .. "files are written by `ruvector-policy replay --dump`"):format(path, number), 0)
      end
   end
   file:close()
   if #indexes == 0 then error(path .. ": nothing is recorded in it", 0) end
   return indexes
end

function M.write(indexes, path)
   local file, err = io.open(path, "w")
   if not file then error("cannot write " .. err, 0) end
   for _, index in ipairs(indexes) do
      local head = { name = index.name, table_name = index.table_name, metric = index.metric,
         method = index.method, rows = index.rows, room = index.room, patterns = index.patterns,
         min_samples = index.min_samples }
      file:write(cjson.encode({ index = head }), "\n")
      for _, search in ipairs(index.searches) do file:write(cjson.encode({ search = search }), "\n") end
   end
   file:close()
end

-- ---- as inputs -----------------------------------------------------------------------------

local function known(value)
   if value == nil or value == cjson.null then return nil end
   return tonumber(value)
end

--- A vector in its text form as a table of numbers; nil where only a hash was kept.
function M.vector(text)
   if type(text) ~= "string" then return nil end
   local values = {}
   for number in text:gmatch("[^%[%],]+") do values[#values + 1] = tonumber(number) end
   return values
end

--- The deep trace of a search: a list of {slack, ef, distances}, one for each true neighbour; those
--- out of reach have an infinite slack. Nil where there is none.
function M.trace(search)
   local slacks, efs, work = search.effort_slack, search.effort_ef, search.effort_distances
   if type(slacks) ~= "table" or #slacks == 0 then return nil end
   local trace = {}
   for i, slack in ipairs(slacks) do
      local number = slack == "Infinity" and math.huge or tonumber(slack)
      trace[i] = { slack = number, ef = tonumber(efs[i]), distances = tonumber(work[i]) }
   end
   return trace
end

local function quantile(values, share)
   if #values == 0 then return nil end
   table.sort(values)
   return values[math.max(math.ceil(share * #values), 1)]
end

local function mean(values)
   local sum = 0
   for _, value in ipairs(values) do sum = sum + value end
   return #values > 0 and sum / #values or nil
end

local function collect(searches, field)
   local values = {}
   for _, search in ipairs(searches) do values[#values + 1] = known(search[field]) end
   return values
end

--- Inputs of judge, one for each search. The index's running statistics are those of the searches
--- themselves.
function M.verdict_inputs(index)
   local latencies = collect(index.searches, "latency_us")
   local context = {
      index_judged = #index.searches, index_latency_p50_us = quantile(latencies, 0.5),
      index_latency_p95_us = quantile(latencies, 0.95),
      index_mean_distances = mean(collect(index.searches, "distances")),
      index_mean_recall = mean(collect(index.searches, "recall")),
   }
   local inputs = {}
   for i, search in ipairs(index.searches) do
      local input = { adaptive = search.mode == "adaptive" and 1 or 0 }
      for name, value in pairs(context) do input[name] = value end
      for _, name in ipairs({ "k", "latency_us", "distances", "hops", "pages", "ef_search", "slack",
         "target_recall", "expected_recall", "recall", "score", "needed_distances", "diversity",
         "feedback_relevant", "feedback_irrelevant", "feedback_missed_near", "feedback_missed_far" }) do
         input[name] = known(search[name])
      end
      input.returned = input.k
      inputs[i] = input
   end
   return inputs
end

--- Samples of distill from the searches with a deep trace, and a query that was kept.
function M.samples(searches)
   local samples = {}
   for _, search in ipairs(searches) do
      local trace, query = M.trace(search), M.vector(search.query)
      if trace and query then
         local sample = { query = query, slacks = {}, efs = {}, distances = {}, trace = trace,
            recall = known(search.recall) or -1, confidence = known(search.confidence) or 0,
            k = known(search.k), target = known(search.target_recall), success = search.success == true }
         for i, effort in ipairs(trace) do
            sample.slacks[i], sample.efs[i], sample.distances[i] = effort.slack, effort.ef, effort.distances
         end
         samples[#samples + 1] = sample
      end
   end
   return samples
end

--- Inputs by kind for `check`.
function M.inputs(indexes)
   local inputs = { verdict = {}, distillation = {} }
   for _, index in ipairs(indexes) do
      for _, input in ipairs(M.verdict_inputs(index)) do table.insert(inputs.verdict, input) end
      local samples = M.samples(index.searches)
      if #samples > 0 then
         local batch = policy_host.batch(samples, { k = samples[1].k, metric = METRICS[index.metric] })
         table.insert(inputs.distillation, batch)
      end
   end
   return inputs
end

M.METRICS = METRICS
M.KINDS = kinds.names()

return M
