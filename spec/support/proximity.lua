-- proximity.lua - small layered proximity graphs in Lua, and beams over them through callbacks.
--
-- The engine's beam sees such a graph only through rv_graph, so a spec can give it dead nodes,
-- missing nodes, failures and any numbering. Every function that may call back from C has the JIT
-- switched off: a callback cannot enter a compiled trace.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local M = {}

function M.generator(seed)
   local rng = ffi.new("rv_prng")
   lib.rv_prng_seed(rng, seed)
   return {
      uniform = function() return lib.rv_prng_uniform(rng) end,
      normal = function() return lib.rv_prng_normal(rng) end,
      below = function(n) return tonumber(lib.rv_prng_below(rng, n)) end,
   }
end

-- Raw distances in double precision.
local RAW = {
   l2 = function(a, b)
      local sum = 0
      for i = 1, #a do sum = sum + (a[i] - b[i]) ^ 2 end
      return sum
   end,
   l1 = function(a, b)
      local sum = 0
      for i = 1, #a do sum = sum + math.abs(a[i] - b[i]) end
      return sum
   end,
   ip = function(a, b)
      local sum = 0
      for i = 1, #a do sum = sum - a[i] * b[i] end
      return sum
   end,
   cosine = function(a, b)
      local dot, aa, bb = 0, 0, 0
      for i = 1, #a do dot, aa, bb = dot + a[i] * b[i], aa + a[i] * a[i], bb + b[i] * b[i] end
      return 1 - dot / math.sqrt(aa * bb)
   end,
}

local METRIC = {
   l2 = lib.RV_METRIC_L2, ip = lib.RV_METRIC_IP, cosine = lib.RV_METRIC_COSINE, l1 = lib.RV_METRIC_L1,
}
M.METRICS = { "l2", "ip", "cosine", "l1" }

local function point(random, dim)
   local p = {}
   for i = 1, dim do p[i] = random.normal() end
   return p
end

-- Links every member to its nearest few, and back.
local function link(graph, level, members, degree)
   local links = {}
   for _, a in ipairs(members) do links[a] = links[a] or {} end
   local has = {}
   local function join(a, b)
      local key = a * graph.count + b
      if not has[key] then
         has[key] = true
         links[a][#links[a] + 1] = b
      end
   end
   for _, a in ipairs(members) do
      local others = {}
      for _, b in ipairs(members) do
         if b ~= a then
            local distance = RAW[graph.metric](graph.points[a], graph.points[b])
            others[#others + 1] = { node = b, distance = distance }
         end
      end
      table.sort(others, function(x, y) return x.distance < y.distance end)
      for i = 1, math.min(degree, #others) do
         join(a, others[i].node)
         join(others[i].node, a)
      end
   end
   graph.links[level] = links
end

--- A random graph. options: count, dim, degree, metric, seed; dead: the share of dead nodes;
--- missing: the share of nodes that no longer exist for distance(); levels: how many upper levels.
--- key_limit: of the visited set. Nodes are numbered from 0. The links are to near nodes and back, so
--- parts may be out of reach.
function M.random(options)
   local random = M.generator(options.seed)
   local graph = {
      count = options.count, metric = options.metric or "l2", random = random, points = {},
      dead = {}, missing = {}, links = {}, max_degree = 1, expansions = 0, measured = 0,
      key_limit = options.key_limit,
   }
   for node = 0, graph.count - 1 do
      graph.points[node] = point(random, options.dim)
      graph.dead[node] = random.uniform() < (options.dead or 0)
      graph.missing[node] = random.uniform() < (options.missing or 0)
   end
   local members = {}
   for node = 0, graph.count - 1 do members[#members + 1] = node end
   graph.entry_level = options.levels or 0
   for level = 0, graph.entry_level do
      link(graph, level, members, options.degree)
      graph.entry = members[1 + random.below(#members)]
      local next_members = {}
      for _, node in ipairs(members) do
         if node == graph.entry or random.uniform() < 0.25 then next_members[#next_members + 1] = node end
      end
      members = next_members
   end
   for _, links in pairs(graph.links) do
      for _, list in pairs(links) do graph.max_degree = math.max(graph.max_degree, #list) end
   end
   graph.query = point(random, options.dim)
   M.set_query(graph, graph.query)
   return graph
end

--- A new query: distances of all nodes to it, rounded to float as the engine sees them.
function M.set_query(graph, query)
   graph.query = query
   graph.distances = graph.distances or ffi.new("float[?]", graph.count)
   for node = 0, graph.count - 1 do graph.distances[node] = RAW[graph.metric](query, graph.points[node]) end
end

function M.random_query(graph)
   M.set_query(graph, point(graph.random, #graph.query))
end

--- The metric map of the present query.
function M.map(graph)
   if graph.metric ~= "ip" then return lib.rv_metric_map_make(METRIC[graph.metric], 0, 0) end
   local longest = 0
   for node = 0, graph.count - 1 do
      longest = math.max(longest, math.sqrt(-RAW.ip(graph.points[node], graph.points[node])))
   end
   return lib.rv_metric_map_make(METRIC.ip, longest * 1.01, math.sqrt(-RAW.ip(graph.query, graph.query)))
end

-- The graph that the callbacks serve: there is one at a time. ids: how the beam sees node numbers.
local current

local function expand(_, node, level, visited, out, capacity, count)
   local graph = current
   if graph.fail_after and graph.expansions >= graph.fail_after then return lib.RV_ERR_CORRUPT end
   graph.expansions = graph.expansions + 1
   local n = 0
   local at = graph.number and graph.number(node) or tonumber(node)
   for _, neighbour in ipairs(graph.links[level][at]) do
      local id = graph.id and graph.id(neighbour) or neighbour
      if lib.rv_visited_add(visited, id) then
         assert(n < capacity)
         out[n].node, out[n].distance = id, graph.distances[neighbour]
         out[n].flags = graph.dead[neighbour] and 1 or 0
         n = n + 1
      end
   end
   count[0] = n
   graph.measured = graph.measured + n
   return lib.RV_OK
end

local function distance(_, node, out, flags)
   local graph = current
   local at = graph.number and graph.number(node) or tonumber(node)
   if at == nil or at >= graph.count or graph.missing[at] then return lib.RV_ERR_NOTFOUND end
   graph.measured = graph.measured + 1
   out[0], flags[0] = graph.distances[at], graph.dead[at] and 1 or 0
   return lib.RV_OK
end

local function cancelled()
   return current.cancel_after ~= nil and current.expansions >= current.cancel_after
end

jit.off(expand)
jit.off(distance)
jit.off(cancelled)

local interface

--- The rv_graph of a Lua graph, which becomes the one that the callbacks serve.
function M.interface(graph)
   if not interface then
      interface = ffi.new("rv_graph")
      interface.expand, interface.distance, interface.cancelled = expand, distance, cancelled
   end
   current = graph
   interface.max_degree = graph.max_degree
   interface.key_limit = graph.key_limit or 0
   return interface
end

-- A beam with its buffers.
local Beam = {}
Beam.__index = Beam

--- A beam over a graph (rv_graph) with a metric map; freed with the Lua object or by destroy().
function M.beam(graph, map, allocator)
   local out, err = ffi.new("rv_beam *[1]"), engine.error_buffer()
   local holder = ffi.new("rv_metric_map[1]", { map })
   local status = tonumber(lib.rv_beam_create(allocator or engine.allocator, graph, holder, out, err))
   if status ~= lib.RV_OK then return nil, status end
   return setmetatable({
      handle = ffi.gc(out[0], lib.rv_beam_destroy), err = err, result = ffi.new("rv_beam_result[1]"),
   }, Beam)
end

function Beam:destroy() lib.rv_beam_destroy(ffi.gc(self.handle, nil)) end

function M.rule(fields)
   local rule = ffi.new("rv_stop_rule[1]")
   rule[0].window, rule[0].slack = fields.window or 0, fields.slack or 0
   rule[0].ef, rule[0].max_distances = fields.ef or 0, fields.max_distances or 0
   rule[0].reference = fields.reference or 0
   return rule
end

--- Status of rv_beam_start.
function Beam:start(fields, entry, level, extra)
   local nodes = ffi.new("rv_node[?]", math.max(extra and #extra or 0, 1), extra or {})
   local count = extra and #extra or 0
   return tonumber(lib.rv_beam_start(self.handle, M.rule(fields), entry, level, nodes, count, self.err))
end

--- The next result as (node, distance), or nil and the status.
function Beam:next()
   local status = tonumber(lib.rv_beam_next(self.handle, self.result, self.err))
   if status ~= lib.RV_OK then return nil, status end
   return tonumber(self.result[0].node), self.result[0].distance
end

function Beam:set_rule(fields)
   return tonumber(lib.rv_beam_set_rule(self.handle, M.rule(fields), self.err))
end

function Beam:set_map(map) lib.rv_beam_set_map(self.handle, ffi.new("rv_metric_map[1]", { map })) end

function Beam:ready() return lib.rv_beam_ready(self.handle) end

function Beam:stats() return lib.rv_beam_get_stats(self.handle) end

function Beam:message() return engine.message(self.err) end

--- One window: lists of nodes and distances, as long as results are ready.
function Beam:window()
   local nodes, distances = {}, {}
   repeat
      local node, d = self:next()
      if node == nil then return nodes, distances, d end
      nodes[#nodes + 1], distances[#distances + 1] = node, d
   until not self:ready()
   return nodes, distances
end

--- rv_beam_search_level: entries is a list of {node, distance, dead}.
function Beam:search_level(entries, ef, level)
   local from = ffi.new("rv_neighbour[?]", math.max(#entries, 1))
   for i, e in ipairs(entries) do
      from[i - 1].node, from[i - 1].distance, from[i - 1].flags = e[1], e[2], e[3] and 1 or 0
   end
   local out, count = ffi.new("rv_neighbour[?]", math.max(ef, 1)), ffi.new("uint32_t[1]")
   local status = tonumber(lib.rv_beam_search_level(self.handle, from, #entries, ef, level, out, count,
      self.err))
   if status ~= lib.RV_OK then return nil, status end
   local nodes = {}
   for i = 0, count[0] - 1 do nodes[i + 1] = tonumber(out[i].node) end
   return nodes
end

--- rv_beam_trace: truth is a list of raw distances. Efforts as a list, and the summary.
function Beam:trace(limits, entry, level, truth)
   local c_limits = ffi.new("rv_trace_limits[1]", { limits })
   local efforts, summary = ffi.new("rv_effort[?]", math.max(#truth, 1)), ffi.new("rv_trace_summary")
   local status = tonumber(lib.rv_beam_trace(self.handle, c_limits, entry, level,
      ffi.new("float[?]", math.max(#truth, 1), truth), #truth, efforts, summary, self.err))
   if status ~= lib.RV_OK then return nil, status end
   local list = {}
   for i = 1, #truth do
      local e = efforts[i - 1]
      list[i] = { slack = e.slack, ef = e.ef, distances = e.distances, found = e.slack < math.huge }
   end
   return list, summary
end

for _, method in ipairs({ "start", "next", "search_level", "trace" }) do jit.off(Beam[method]) end

return M
