-- healing.lua - when links are learned from recorded searches, and how many.
--
-- Asked by the worker whenever queries wait that could ask for links. A round of links takes processor
-- time of the worker and writes to the index; searches that take less work pay it back, the more the
-- sooner it runs.
--
--   enough   a round waits for `first_round` times as many queries as learning needs to begin, and for
--            `growth` times as many as all rounds before have used, so that each sees as much anew as is
--            known already; `growth_paused` when no search came for `pause_s`, or somebody waits for
--            what can be learned. Queries that judge the round must be there, too
--   spread   between two rounds pass `spread` times the processor time that the last one took, unless
--            somebody waits
--   size     each query joins its `rows_per_query` nearest rows; a node takes as many links as it has
--            room for
--   keep     a round stays if the queries that judge it take less work, by more than `min_gain`

local max, min = math.max, math.min

local policy = {
   name = "healing",
   contract = 1,
   version = "1.0.0",
   describe = "A round of links once as many queries wait as all rounds before used, half of that while no "
      .. "searches come; kept if it makes held-out queries cheaper.",
   defaults = {
      first_round = 4,
      growth = 1.0,
      growth_paused = 0.5,
      pause_s = 0.2,
      spread = 2,
      queries = 8192,
      rows_per_query = 48,
      min_requests = 1,
      min_gain = 0,
   },
}

local config = policy.defaults

local function enough(situation)
   local paused = situation.asked or not situation.idle_s or situation.idle_s > config.pause_s
   local growth = paused and config.growth_paused or config.growth
   local wanted = max(config.first_round * situation.min_samples, growth * situation.used)
   return situation.waiting >= min(wanted, config.queries) and situation.held_out >= situation.min_samples
end

local function rested(situation)
   if situation.asked or not (situation.since_round_s and situation.round_s) then return true end
   return situation.since_round_s >= config.spread * situation.round_s
end

function policy.heal(situation)
   return {
      run = enough(situation) and rested(situation),
      queries = config.queries,
      rows_per_query = config.rows_per_query,
      links_per_node = min(max(situation.room, 1), 32),
      min_requests = config.min_requests,
      min_gain = config.min_gain,
   }
end

function policy.self_test(self)
   local function runs(changes)
      local situation = { hour = 12, weekday = 1, load = 0.1, searches_per_second = 10, idle_s = 0,
         asked = false, waiting = 1000, used = 1000, held_out = 200, min_samples = 100, rows = 10000,
         room = 8, budget = 0.1 }
      for name, value in pairs(changes) do situation[name] = value end
      return self.heal(situation).run
   end
   if not runs({}) then return "as many queries as were used before are enough" end
   if runs({ waiting = 999 }) then return "fewer must wait while searches come" end
   if not runs({ waiting = 500, idle_s = 1 }) then return "half of them are enough when searches pause" end
   if runs({ held_out = 99 }) then return "nothing may run that nobody can judge" end
   if runs({ since_round_s = 9, round_s = 5 }) then return "rounds must be spread" end
   return true
end

return policy
