-- report.lua - what the replays of all kinds share: headings and means.

local M = {}

--- Begins the part of a report that is about one index.
function M.heading(lines, index, what)
   lines[#lines + 1] = ""
   lines[#lines + 1] = ("%s (%s): %s"):format(index.name, index.metric, what)
end

--- Mean recall and work of a list of {recall, work}; 0 for none.
function M.means(list)
   if #list == 0 then return 0, 0 end
   local recall, work = 0, 0
   for _, entry in ipairs(list) do recall, work = recall + entry.recall, work + entry.work end
   return recall / #list, work / #list
end

return M
