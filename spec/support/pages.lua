-- pages.lua - index files as bytes, changed while the server is down: random flips of bits, seeded.
-- Checksums are off in these clusters (initdb's default), so that what is flipped reaches the code.

local M = {}

M.PAGE = 8192
local HEADER, LINE_POINTERS = 24, 200 -- a page's header; where the first line pointers are

--- A linear congruential generator: random(n) gives 0 .. n-1, the same for the same seed.
function M.generator(seed)
   local state = seed % 2147483646 + 1
   return function(n)
      state = (state * 16807) % 2147483647
      return state % n
   end
end

--- Runs body(file, pages) on a relation's main fork; path is relative to the data directory.
local function with_file(server, path, body)
   local file = assert(io.open(server.data .. "/" .. path, "r+b"))
   local pages = file:seek("end") / M.PAGE
   assert(pages >= 1, path .. " is empty")
   body(file, pages)
   file:close()
end

--- The bytes of the file.
function M.read(server, path)
   local file = assert(io.open(server.data .. "/" .. path, "rb"))
   local bytes = file:read("*a")
   file:close()
   return bytes
end

--- Writes the bytes over the file's.
function M.write(server, path, bytes)
   with_file(server, path, function(file)
      file:seek("set", 0)
      file:write(bytes)
   end)
end

-- Where in a page: a quarter of the flips each hits the header, the line pointers, the end of the page
-- (the special space), and anything.
local function offset_in_page(random)
   local where = random(4)
   if where == 0 then return random(HEADER) end
   if where == 1 then return HEADER + random(LINE_POINTERS) end
   if where == 2 then return M.PAGE - 1 - random(32) end
   return random(M.PAGE)
end

--- Flips `count` bits of the file; the meta page gets one in eight. Returns what was flipped, as text.
function M.flip(server, path, count, random)
   local done = {}
   with_file(server, path, function(file, pages)
      for i = 1, count do
         local page = random(8) == 0 and 0 or random(pages)
         local at, bit = page * M.PAGE + offset_in_page(random), random(8)
         file:seek("set", at)
         local byte = file:read(1):byte()
         local flipped = math.floor(byte / 2 ^ bit) % 2 == 1 and byte - 2 ^ bit or byte + 2 ^ bit
         file:seek("set", at)
         file:write(string.char(flipped))
         done[i] = ("page %d byte %d bit %d"):format(page, at % M.PAGE, bit)
      end
   end)
   return table.concat(done, "; ")
end

return M
