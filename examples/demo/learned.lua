-- learned.lua - waiting until the worker has learned from the searches that were sent to it.

local clock = require("ruvector.clock")

local M = {}

-- What changes as long as the worker learns from what it was sent.
local function progress_of(stats)
   return table.concat({ stats.trajectories, stats.judged, stats.patterns, stats.bank_bytes,
      ("%.3f"):format(stats.learning_seconds) }, " ")
end

--- Waits until every recorded search has been looked at and what it taught is published. A search that the
-- ring could not hold counts as looked at: it is lost, and the statistics say so.
-- options: db, server (for its log), table; searches: how many were sent since learning was enabled; limit:
-- seconds until learning is declared stuck; settle: seconds without any change that are waited for besides
-- (default 0); on_stats(stats), when given, is called at each look. Returns the row of
-- ruvector_learning_stats and, in seconds_per_1000, the processor time of learning per 1,000 searches.
function M.wait(options)
   local sql = ("SELECT * FROM ruvector_learning_stats('%s')"):format(options.table)
   local last, since
   local function learned()
      local stats = options.db:row(sql)
      if stats.state == "failing" then error("learning fails: " .. stats.last_error, 0) end
      if options.on_stats then options.on_stats(stats) end
      local seen, now = progress_of(stats), clock.now()
      if seen ~= last then last, since = seen, now end
      local lost = stats.ring_dropped + stats.ring_lost + stats.ring_torn
      local done = stats.trajectories + lost >= options.searches and stats.state == "learned"
         and now - since >= (options.settle or 0)
      return done and stats, ("%s, %d searches seen, %d judged, %d patterns"):format(stats.state,
         stats.trajectories, stats.judged, stats.patterns)
   end
   local ok, result = pcall(clock.wait_until, "the worker to learn from every training query",
      options.limit, learned, 0.2)
   if not ok then
      error(("%s\nThe end of the server's log:\n%s"):format(tostring(result), options.server:log_tail()), 0)
   end
   result.seconds_per_1000 = result.learning_seconds / (result.trajectories / 1000)
   return result
end

return M
