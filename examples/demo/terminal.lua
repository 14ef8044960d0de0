-- terminal.lua - what the demo prints: headings, progress, tables. Colours and redrawn lines only
-- on a terminal; elsewhere (a log, a pipe) progress becomes a line now and then.

local unistd = require("posix.unistd") -- Debian: lua-posix
local clock = require("ruvector.clock")

local M = {}

local on_terminal = unistd.isatty(1) == 1
local in_colour = on_terminal and not os.getenv("NO_COLOR")

local function painter(code)
   return function(text)
      return in_colour and ("\27[%sm%s\27[0m"):format(code, text) or text
   end
end

M.bold, M.dim, M.green, M.cyan = painter("1"), painter("2"), painter("32"), painter("36")

function M.say(text)
   io.stdout:write(text or "", "\n")
   io.stdout:flush()
end

function M.heading(text) M.say("\n" .. M.bold(text)) end

--- 12345678 as "12,345,678".
function M.thousands(n)
   local text = ("%d"):format(math.floor(n + 0.5))
   return (text:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

local Progress = {}
Progress.__index = Progress

--- A progress line. what: what is going on, for example "learning".
function M.progress(what)
   local now = clock.now()
   return setmetatable({ what = what, started = now, counting_since = now, last = 0, drawn = 0 },
      Progress)
end

local function duration(seconds)
   if seconds < 59.5 then return ("%d s"):format(math.max(1, math.floor(seconds + 0.5))) end
   return ("%d min %02d s"):format(math.floor(seconds / 60), math.floor(seconds % 60))
end

--- Shows done of total (both numbers; total 0 when it is not known yet) and, when given, a note.
-- When done falls, another round of the same work has begun, with its own time left. Redraws at most
-- ten times a second, elsewhere than on a terminal every ten seconds.
function Progress:show(done, total, note)
   local now = clock.now()
   if done < self.last then self.counting_since = now end
   self.last = done
   if now - self.drawn < (on_terminal and 0.1 or 10) then return end
   if self.drawn == 0 and not on_terminal then
      self.drawn = now -- the first line of a log comes after ten seconds
      return
   end
   self.drawn = now
   local text = ("  %s: "):format(self.what)
   if total > 0 then
      text = text .. ("%s of %s"):format(M.thousands(done), M.thousands(total))
      if done > 0 and done < total then
         local left = (now - self.counting_since) * (total - done) / done
         text = text .. (", about %s left"):format(duration(left))
      end
   else
      text = text .. duration(now - self.started)
   end
   if note then text = text .. ", " .. note end
   io.stdout:write(on_terminal and "\r\27[K" .. M.dim(text) or text .. "\n")
   io.stdout:flush()
end

--- Replaces the line by a final one that ends in the time it took; returns that time in seconds.
function Progress:done(text)
   local seconds = clock.now() - self.started
   if on_terminal then io.stdout:write("\r\27[K") end
   M.say(("  %s %s"):format(text, M.dim(("(%.1f s)"):format(seconds))))
   return seconds
end

-- Width as seen, without colour codes.
local function width(text) return #(text:gsub("\27%[[%d;]*m", "")) end

--- Prints rows (arrays of text) right-aligned under headers, the first column left-aligned. A row
-- may be "-" for a rule.
function M.table(headers, rows)
   local widths = {}
   for _, row in ipairs { headers, unpack(rows) } do
      if row ~= "-" then
         for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, width(cell)) end
      end
   end
   local function line(row, paint)
      local cells = {}
      for i, cell in ipairs(row) do
         local gap = (" "):rep(widths[i] - width(cell))
         cells[i] = paint(i == 1 and cell .. gap or gap .. cell)
      end
      M.say("  " .. table.concat(cells, "  "))
   end
   local function same(text) return text end
   line(headers, M.bold)
   for _, row in ipairs(rows) do
      if row == "-" then
         local total = 0
         for _, w in ipairs(widths) do total = total + w + 2 end
         M.say("  " .. M.dim(("-"):rep(total - 2)))
      else
         line(row, same)
      end
   end
end

return M
