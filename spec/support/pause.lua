-- pause.lua - holding backends at the pause points of ext/src/pause.h.
--
--    local hold = pause.hold(server, "ruhnsw-insert-placed")   -- the lock, in a session of its own
--    session:exec("SET ruvector.debug_pause_points = 'ruhnsw-insert-placed'")
--    session:send("INSERT ...")
--    hold:wait_for(session)                                     -- until it stands at the point
--    ...                                                        -- the racing thing
--    hold:release()                                             -- it goes on

local clock = require("ruvector.clock")

local M = {}

local CLASS = 1381320283 -- RUV_PAUSE_CLASS
local LIMIT = "60s"

-- A session to hold a point with. Should a test fail that still holds one, the others find it free after
-- a while: what stands there would have them wait for ever.
local function holder(server)
   local session = server:connect()
   session:exec("SET lock_timeout = '" .. LIMIT .. "'; SET idle_session_timeout = '" .. LIMIT .. "'")
   return session
end

local Hold = {}
Hold.__index = Hold

--- Holds everyone who comes to the point with it listed.
function M.hold(server, point)
   local self = setmetatable({ server = server, session = holder(server), point = point }, Hold)
   self.session:exec("SELECT pg_advisory_lock($1::int, hashtext($2))", CLASS, point)
   return self
end

--- Whether the backend stands at the point.
function Hold:holds(pid)
   return self.session:value([[SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
      AND classid = $1::bigint::oid AND objid::bigint = (hashtext($2)::bigint & 4294967295) AND pid = $3]],
      CLASS, self.point, pid) > 0
end

--- Waits until the session's statement stands at the point.
function Hold:wait_for(session, limit)
   local pid = session:backend_pid()
   clock.wait_until("a backend to reach " .. self.point, limit or 60, function()
      if self:holds(pid) then return true end
      if session:ready() then
         local _, result = pcall(session.receive, session)
         error("the statement ended before " .. self.point .. ": " .. tostring(result), 0)
      end
      return false
   end)
end

--- Lets the session go on to where it comes to the point next; false when its statement has ended
-- instead. A second holder stands in the queue behind the session before the first lets go, so no point
-- is passed unseen.
function Hold:step(session)
   local pid, first, again = session:backend_pid(), self.session, false
   local second = holder(self.server)
   second:send("SELECT pg_advisory_lock($1::int, hashtext($2))", CLASS, self.point)
   clock.wait_until("the second holder to queue", 60, function() return self:holds(second:backend_pid()) end)
   first:exec("SELECT pg_advisory_unlock($1::int, hashtext($2))", CLASS, self.point)
   second:receive()
   self.session = second
   first:close()
   clock.wait_until("a backend to reach " .. self.point .. " again", 60, function()
      again = self:holds(pid)
      return again or session:ready()
   end)
   return again
end

--- Lets everyone go on; more than once is harmless.
function Hold:release()
   if self.session:alive() then self.session:close() end
end

--- Waits until the session's statement waits for a heavyweight lock that is no pause point.
function M.wait_blocked(db, session)
   local pid = session:backend_pid()
   clock.wait_until("a backend to wait for a lock", 60, function()
      if session:ready() then error("the statement ended without waiting for a lock", 0) end
      return db:value([[SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1
         AND locktype IN ('page', 'relation', 'transactionid', 'virtualxid')]], pid) > 0
   end)
end

--- A new session that stops at the points.
function M.session(server, ...)
   local session = server:connect()
   session:exec("SET enable_seqscan = off; SET ruvector.debug_pause_points = '" ..
      table.concat({ ... }, ",") .. "'")
   return session
end

return M
