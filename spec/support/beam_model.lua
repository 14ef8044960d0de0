-- beam_model.lua - the beam's contract as the simplest program that fulfils it.
--
-- It sorts whenever it needs an order, keeps every visited node in one list, and knows nothing of
-- heaps. Specs compare the engine with it, step by step, over graphs of proximity.lua.

local M = {}
M.__index = M

local SCORE_HOPS = 8

local function metric_of(map, raw)
   if map.metric == 4 then return math.max(raw, 0) end
   return math.sqrt(math.max(map.a + map.b * raw, 0))
end

function M.new(graph, map)
   return setmetatable({ graph = graph, map = map }, M)
end

function M:add(node)
   if self.seen[node] then return end
   self.seen[node] = true
   local entry = { node = node, distance = self.graph.distances[node], dead = self.graph.dead[node] }
   self.distances_computed = self.distances_computed + 1
   -- kept sorted by distance
   local at = #self.visited + 1
   while at > 1 and self.visited[at - 1].distance > entry.distance do at = at - 1 end
   table.insert(self.visited, at, entry)
end

function M:descend(entry, level)
   local graph = self.graph
   local best, seen = entry, { [entry] = true }
   self.distances_computed = self.distances_computed + 1
   for l = level, 1, -1 do
      repeat
         local from = best
         self.hops = self.hops + 1
         for _, node in ipairs(graph.links[l][from]) do
            if not seen[node] then
               seen[node] = true
               self.distances_computed = self.distances_computed + 1
               if graph.distances[node] < graph.distances[best] then best = node end
            end
         end
      until best == from
   end
   return best
end

function M:start(rule, entry, level, extra)
   self.rule, self.visited, self.seen = rule, {}, {}
   self.distances_computed, self.hops, self.base_hops, self.handed, self.window_start = 0, 0, 0, 0, 0
   self.score = -1
   if level >= 0 and not self.graph.missing[entry] then
      self:add(self:descend(entry, level))
      self.distances_computed = self.distances_computed - 1 -- measured in the descent
   end
   for _, node in ipairs(extra or {}) do
      if self.graph.missing[node] then
         self.seen[node] = true -- known not to be there: not measured again either
      elseif node < self.graph.count then
         self:add(node)
      end
   end
end

-- The best live nodes that were not handed out, up to the window.
function M:pending()
   local list = {}
   for _, entry in ipairs(self.visited) do
      if not entry.dead and not entry.handed and #list < self.rule.window then list[#list + 1] = entry end
   end
   return list
end

function M:nearest_open()
   for _, entry in ipairs(self.visited) do
      if not entry.expanded then return entry end
   end
end

-- The reason to stop before expanding the candidate, or nil.
function M:stop(candidate, pending)
   local rule = self.rule
   if #pending == 0 then return nil end
   local ef, slack, by_window = rule.ef or 0, rule.slack or 0, "rule"
   if ef > 0 and ef <= rule.window then
      if slack > 0 then by_window = "ef" end
      slack = 0
   end
   local beyond_rule
   if #pending >= rule.window then
      local reference = rule.reference or 0
      if reference == 0 or reference > rule.window or self.handed > 0 or (ef > 0 and ef <= rule.window) then
         reference = rule.window
      end
      local kth = pending[reference].distance
      if slack == 0 then
         beyond_rule = candidate.distance > kth
      else
         beyond_rule = metric_of(self.map, candidate.distance) > (1 + slack) * metric_of(self.map, kth)
      end
   end
   local beyond_ef = false
   if ef > rule.window then
      local rank = self.visited[ef + self.handed]
      beyond_ef = rank ~= nil and candidate.distance > rank.distance
   end
   if beyond_rule and beyond_ef then return "either" end
   if beyond_rule then return by_window end
   if beyond_ef then return "ef" end
   local max = rule.max_distances or 0
   if max > 0 and self.distances_computed - self.window_start >= max then return "distances" end
end

function M:window()
   while true do
      local pending, candidate = self:pending(), self:nearest_open()
      local reason = candidate == nil and "exhausted" or self:stop(candidate, pending)
      if reason then
         local nodes = {}
         for i, entry in ipairs(pending) do
            entry.handed = true
            nodes[i] = entry.node
         end
         self.handed = self.handed + #nodes
         self.window_start = self.distances_computed
         return nodes, reason
      end
      candidate.expanded = true
      self.hops, self.base_hops = self.hops + 1, self.base_hops + 1
      for _, node in ipairs(self.graph.links[0][candidate.node]) do self:add(node) end
      if self.base_hops == SCORE_HOPS then self:note_score() end
   end
end

function M:note_score()
   local pending, open = self:pending(), self:nearest_open()
   if open == nil or #pending == 0 then return end
   self.score = metric_of(self.map, open.distance) / metric_of(self.map, pending[#pending].distance)
end

--- The classical search of one level: the ef nearest live nodes.
function M.search_level(graph, entries, ef, level)
   local visited, seen = {}, {}
   local function add(node)
      if seen[node] then return end
      seen[node] = true
      visited[#visited + 1] = { node = node, distance = graph.distances[node], dead = graph.dead[node] }
      table.sort(visited, function(a, b) return a.distance < b.distance end)
   end
   local function best()
      local list = {}
      for _, entry in ipairs(visited) do
         if not entry.dead and #list < ef then list[#list + 1] = entry end
      end
      return list
   end
   for _, node in ipairs(entries) do add(node) end
   while true do
      local found, candidate = best(), nil
      for _, entry in ipairs(visited) do
         if not entry.expanded and not candidate then candidate = entry end
      end
      if not candidate or (#found == ef and candidate.distance > found[ef].distance) then
         local nodes = {}
         for i, entry in ipairs(found) do nodes[i] = entry.node end
         return nodes
      end
      candidate.expanded = true
      for _, node in ipairs(graph.links[level][candidate.node]) do add(node) end
   end
end

return M
