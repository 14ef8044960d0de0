-- clock.lua - time that only goes forward, and waiting for something that can be seen.
--
-- Nothing here sleeps in the hope that something will have happened: wait_until asks again and
-- again, and says what it waited for when it gives up.

local posix_time = require("posix.time") -- Debian: lua-posix

local M = {}

--- Seconds since an arbitrary start; never goes back.
function M.now()
   local t = posix_time.clock_gettime(posix_time.CLOCK_MONOTONIC)
   return t.tv_sec + t.tv_nsec * 1e-9
end

--- Suspends the process for that many seconds.
function M.pause(seconds)
   local whole = math.floor(seconds)
   posix_time.nanosleep({ tv_sec = whole, tv_nsec = math.floor((seconds - whole) * 1e9) })
end

--- Asks condition() until it returns something true and returns that; asks at once, then every
-- `interval` seconds (default 0.02). After `limit` seconds raises an error that names `what`;
-- when the condition also returns a second value, the error shows the last one.
function M.wait_until(what, limit, condition, interval)
   local deadline = M.now() + limit
   while true do
      local value, seen = condition()
      if value then return value end
      if M.now() >= deadline then
         local last = seen ~= nil and ("; last seen: " .. tostring(seen)) or ""
         error(("waited %g s for %s%s"):format(limit, what, last), 2)
      end
      M.pause(interval or 0.02)
   end
end

return M
