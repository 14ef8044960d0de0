-- embed.lua - a text file as a C array, for the policy host's library.
-- Usage: luajit embed.lua NAME FILE > HEADER

local name, path = arg[1], arg[2]
local file = assert(io.open(path, "rb"))
local text = file:read("*a")
file:close()

print("/* Made from " .. path .. " by lua/tools/embed.lua. */")
print("static const char " .. name .. "[] = {")
for start = 1, #text, 16 do
   local row = { text:byte(start, math.min(start + 15, #text)) }
   print("    " .. table.concat(row, ", ") .. ",")
end
print("};")
