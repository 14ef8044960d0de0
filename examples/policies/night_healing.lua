-- night_healing.lua - links are learned at night, or when nobody searches.
--
-- A round of links takes processor time and writes to the index, and checkpoints and standbys follow.
-- Where the day belongs to the application, let the rounds wait: for the hours from `from_hour` to
-- `to_hour` where the server is, or until no search came for `idle_minutes` and those of other tables
-- take next to nothing. The queries of the day wait meanwhile; when there are more than a round takes,
-- an even draw of them.
--
-- Nights are few, so a round is content with fewer queries than by default, and it must gain something
-- to stay. That somebody waits for what can be learned (ruvector_extract_patterns) is no reason to run
-- by day.

local lib = require("ruvector.policy")

local policy = {
   name = "night_healing",
   kind = "healing",
   version = "1.0.0",
   contract = 1,
   describe = "Rounds of links between 1 and 5 o'clock, or when the server idles.",
   defaults = {
      from_hour = 1, -- 22 to 4 is a night, too
      to_hour = 5,
      idle_minutes = 5,
      idle_load = 0.02, -- share of a core that other searches may take meanwhile
      first_round = 2, -- times min_samples that must wait
      growth = 0.25, -- or this share of what all rounds before used
      spread = 10, -- times its processor time that pass between two rounds
      min_gain = 0.01,
   },
}

local config = policy.defaults

local function is_night(hour)
   if config.from_hour <= config.to_hour then return hour >= config.from_hour and hour < config.to_hour end
   return hour >= config.from_hour or hour < config.to_hour
end

local function is_idle(situation)
   return situation.idle_s ~= nil and situation.idle_s >= 60 * config.idle_minutes
      and situation.load ~= nil and situation.load <= config.idle_load
end

function policy.heal(situation)
   local wanted = math.max(config.first_round * situation.min_samples, config.growth * situation.used)
   local enough = situation.waiting >= math.min(wanted, 8192) and situation.held_out >= situation.min_samples
   local rested = not (situation.since_round_s and situation.round_s)
      or situation.since_round_s >= config.spread * situation.round_s
   return {
      run = enough and rested and (is_night(situation.hour) or is_idle(situation)),
      queries = 8192,
      rows_per_query = 48,
      links_per_node = lib.clamp(situation.room, 1, 32),
      min_requests = 1,
      min_gain = config.min_gain,
   }
end

function policy.self_test(self)
   local function runs(hour, idle_s)
      return self.heal({ hour = hour, idle_s = idle_s, load = 0, waiting = 1000, used = 0, held_out = 100,
         min_samples = 100, room = 8 }).run
   end
   if runs(12, 0) then return "nothing may run by day" end
   if not runs(3, 0) then return "the night is the time for links" end
   if not runs(12, 3600) then return "an idle server is as good as a night" end
   return true
end

return policy
