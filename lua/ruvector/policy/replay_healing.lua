-- replay_healing.lua - when two healing policies would have let rounds of links run.
--
-- The recorded searches are gone through in the order in which they came, and the time between them in
-- steps. What is recorded is what the worker traces; the searches that ask for links are drawn beside
-- them, ASKING for each. The gain of a round is not known, so no policy is told one.

local engine = require("ruvector.engine")
local policy_host = require("ruvector.policy_host")
local report = require("ruvector.policy.report")

local ffi, lib = engine.ffi, engine.lib
local M = {}

local ASKING = 2 -- searches that ask for links, for one that is recorded
local RECORDED = 0.29 -- share of all searches that is recorded
local LOAD_SECONDS = 10
local STEP = 60 -- seconds between two looks while nobody searches
local MOST_STEPS = 24 * 60 -- of one pause: a day
local QUERIES = 8192
local EXAMPLES = 8

-- Days since 1970 of a date of the Gregorian calendar.
local function days(year, month, day)
   if month <= 2 then year, month = year - 1, month + 12 end
   return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
      + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

-- Seconds since 1970 and hours that the server's clock is before UTC, of a timestamp in JSON.
local function moment(text)
   local year, month, day, hour, minute, second = text:match("^(%d+)-(%d+)-(%d+)T(%d+):(%d+):([%d.]+)")
   if not year then error(("%q is no time of a search"):format(text), 0) end
   local sign, zone_hour, zone_minute = text:match("([+-])(%d%d):?(%d*)$")
   local zone = sign and tonumber(zone_hour) + (tonumber(zone_minute) or 0) / 60 or 0
   if sign == "-" then zone = -zone end
   return days(tonumber(year), tonumber(month), tonumber(day)) * 86400 + hour * 3600 + minute * 60
      + tonumber(second) - zone * 3600, zone
end

local function in_order(searches)
   local list = {}
   for _, search in ipairs(searches) do
      if type(search.searched_at) == "string" then
         local at, zone = moment(search.searched_at)
         list[#list + 1] = { at = at, zone = zone, latency_us = tonumber(search.latency_us) or 0 }
      end
   end
   table.sort(list, function(a, b) return a.at < b.at end)
   return list
end

-- The worker's state as one policy would have left it.
local function begin(policy, first)
   local self = { policy = policy, waiting = 0, used = 0, held_out = 0, rounds = {} }
   self.searches, self.seconds = ffi.new("rv_rate[1]"), ffi.new("rv_rate[1]")
   lib.rv_rate_start(self.searches, first * 1e6, LOAD_SECONDS)
   lib.rv_rate_start(self.seconds, first * 1e6, LOAD_SECONDS)
   return self
end

local function look(self, index, now, zone, last_search)
   local hour = (now / 3600 + zone) % 24
   local load = lib.rv_rate_read(self.seconds, now * 1e6) / RECORDED
   local answer, cause, failure = self.policy.host:heal(policy_host.situation({
      hour = hour, weekday = (math.floor((now / 3600 + zone) / 24) + 3) % 7 + 1,
      load = load, searches_per_second = lib.rv_rate_read(self.searches, now * 1e6) / RECORDED,
      idle_s = now - last_search, waiting = self.waiting, used = self.used, held_out = self.held_out,
      min_samples = index.min_samples or 100, rows = index.rows or -1, room = index.room or 8,
      since_round_s = self.ended and now - self.ended or -1, round_s = self.ended and 1 or -1,
   }))
   if cause ~= "ok" and cause ~= "missing" then
      error(("%s, line %d: %s"):format(failure.file, failure.line, failure.reason), 0)
   end
   if not answer.run or self.waiting == 0 then return end
   local asking = math.min(self.waiting, answer.queries)
   self.rounds[#self.rounds + 1] = { at = now, hour = hour, load = load, queries = asking }
   self.waiting, self.used, self.ended = self.waiting - asking, self.used + asking, now
end

local function walk(index, searches, policy)
   local self = begin(policy, searches[1].at)
   for i, search in ipairs(searches) do
      lib.rv_rate_add(self.searches, search.at * 1e6, 1)
      lib.rv_rate_add(self.seconds, search.at * 1e6, search.latency_us / 1e6)
      self.waiting, self.held_out = math.min(self.waiting + ASKING, QUERIES), self.held_out + 1
      look(self, index, search.at, search.zone, search.at)
      local following, now = searches[i + 1], search.at
      for _ = 1, MOST_STEPS do
         now = now + STEP
         if following and now >= following.at then break end
         look(self, index, now, search.zone, search.at)
      end
   end
   return self
end

local function describe(lines, name, self)
   local load, queries = 0, 0
   for _, round in ipairs(self.rounds) do load, queries = load + round.load, queries + round.queries end
   lines[#lines + 1] = ("  %-9s  %6d  %7d  %19.3f  %7d"):format(name, #self.rounds, queries,
      #self.rounds > 0 and load / #self.rounds or 0, self.waiting)
end

local function examples(lines, name, self)
   for i = 1, math.min(#self.rounds, EXAMPLES) do
      local round = self.rounds[i]
      lines[#lines + 1] = ("  %s: a round of %d queries at %02d:%02d, load %.3f"):format(name, round.queries,
         math.floor(round.hour), math.floor(round.hour % 1 * 60), round.load)
   end
   if #self.rounds > EXAMPLES then
      lines[#lines + 1] = ("  %s: and %d more"):format(name, #self.rounds - EXAMPLES)
   end
end

--- Rounds of one index by both policies, over its recorded searches and the day that follows.
function M.index(lines, index, active, other)
   local searches = in_order(index.searches)
   if index.method == "ruivfflat" or #searches == 0 then
      report.heading(lines, index, index.method == "ruivfflat" and "lists have no links to learn"
         or "no search with the time when it was")
      return
   end
   report.heading(lines, index, ("%d searches in %.1f hours"):format(#searches,
      (searches[#searches].at - searches[1].at) / 3600))
   local before, after = walk(index, searches, active), walk(index, searches, other)
   lines[#lines + 1] = "  policy     rounds  queries  load at their start  waiting"
   describe(lines, "active", before)
   describe(lines, "candidate", after)
   examples(lines, "active", before)
   examples(lines, "candidate", after)
end

return M
