-- hnsw_model.lua - construction as the paper writes it, with every step done the long way.
--
-- Takes its levels and its distances from the engine, so that a graph built by the engine must be
-- equal to the model's link by link.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local M = {}

-- Nearest first; ties by node.
local function before(a, b)
   if a.distance ~= b.distance then return a.distance < b.distance end
   return a.node < b.node
end

--- The selection heuristic: kept candidates first, then those that fill up, both nearest first.
--- between(a, b) is the raw distance of two nodes. Returns the list and how many were kept.
function M.select(candidates, limit, between)
   local sorted = { unpack(candidates) }
   table.sort(sorted, before)
   local kept, passed_over = {}, {}
   for _, candidate in ipairs(sorted) do
      local keep = #kept < limit
      for _, other in ipairs(kept) do
         if candidate.distance >= between(candidate.node, other.node) then keep = false end
      end
      table.insert(keep and kept or passed_over, candidate)
   end
   local chosen = { unpack(kept) }
   for _, candidate in ipairs(passed_over) do
      if #chosen < limit then chosen[#chosen + 1] = candidate end
   end
   return chosen, #kept
end

local function search_level(graph, query, entries, ef, level)
   local visited, seen = {}, {}
   local function add(node)
      if not seen[node] then
         seen[node] = true
         visited[#visited + 1] = { node = node, distance = graph.between(query, node) }
      end
   end
   for _, entry in ipairs(entries) do add(entry.node) end
   while true do
      table.sort(visited, before)
      local candidate
      for at, entry in ipairs(visited) do
         if not entry.expanded and at <= ef then
            candidate = entry
            break
         end
      end
      if not candidate then
         local found = {}
         for at = 1, math.min(ef, #visited) do found[at] = visited[at] end
         return found
      end
      candidate.expanded = true
      for _, link in ipairs(graph.nodes[candidate.node].links[level]) do add(link.node) end
   end
end

--- Builds a graph of rows (float rows of options.dim, count of them) with the engine's options.
--- nodes[i].links[level] is a list of { node, distance }, nearest first.
function M.build(rows, count, options)
   local distance = options.unit and lib.rv_raw_distance_unit or lib.rv_raw_distance
   local rng = ffi.new("rv_prng")
   lib.rv_prng_seed(rng, options.seed)
   local graph = { nodes = {}, entry_level = -1 }
   function graph.between(a, b)
      return distance(options.metric, rows + a * options.dim, rows + b * options.dim, options.dim)
   end
   for node = 0, count - 1 do
      local level = lib.rv_hnsw_draw_level(rng, options.m)
      local links = {}
      for l = 0, level do links[l] = {} end
      graph.nodes[node] = { level = level, links = links }
      local entries = { { node = graph.entry } }
      for l = graph.entry_level, 0, -1 do
         entries = search_level(graph, node, entries, l > level and 1 or options.ef_construction, l)
         if l <= level then
            links[l] = M.select(entries, options.m, graph.between)
            table.sort(links[l], before)
         end
      end
      for l = 0, math.min(level, graph.entry_level) do
         for _, link in ipairs(links[l]) do
            local theirs = graph.nodes[link.node].links
            local all = { { node = node, distance = link.distance }, unpack(theirs[l]) }
            theirs[l] = M.select(all, l == 0 and 2 * options.m or options.m, graph.between)
            table.sort(theirs[l], before)
         end
      end
      if level > graph.entry_level then graph.entry, graph.entry_level = node, level end
   end
   return graph
end

return M
