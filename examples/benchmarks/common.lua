-- common.lua - what the benchmarks share: options from the environment, data sets, steps, Markdown, JSON.

local json = require("dkjson") -- Debian: lua-dkjson
local clock = require("ruvector.clock")
local data = require("benchmarks.index.data")
local terminal = require("demo.terminal")

local M = {}

local DEFAULT_FOLDER = "../shared/data" -- beside the checkout

--- The text of an option, or default where it is not set; make sets those that nobody gave to nothing.
function M.text(name, default)
   local text = os.getenv(name)
   if not text or text == "" then return default end
   return text
end

--- A number, or default where the option is not set; the error names the option.
function M.number(name, default)
   local text = M.text(name)
   if not text then return default end
   return tonumber(text) or error(("%s must be a number, not '%s'"):format(name, text), 0)
end

--- Whether an option is set, to something else than 0.
function M.flag(name, default)
   local text = M.text(name)
   if not text then return default or false end
   return text ~= "0"
end

--- The words of a text between separators (a set of characters), without the spaces around them.
function M.words(text, separators)
   local out = {}
   for word in text:gmatch("[^" .. separators .. "]+") do
      word = word:match("^%s*(.-)%s*$")
      if word ~= "" then out[#out + 1] = word end
   end
   return out
end

--- The numbers of an option (or of default), in ascending order.
function M.numbers(name, default)
   local text, out = M.text(name, default), {}
   for _, word in ipairs(M.words(text, " ,")) do
      out[#out + 1] = tonumber(word)
         or error(("%s must be a list of numbers, not '%s'"):format(name, text), 0)
   end
   table.sort(out)
   return out
end

--- Opens the data sets that DATASETS names, from the folder DATA; without DATASETS those of `names` that are
-- present, and says which are not. queries: test queries of each at most.
function M.open_sets(names, queries)
   local folder, named = M.text("DATA", DEFAULT_FOLDER), M.text("DATASETS")
   local sets = {}
   for _, name in ipairs(named and M.words(named, " ,") or names) do
      local directory = data.directory(name, folder)
      if directory then
         sets[#sets + 1] = data.open(name, directory, queries)
      elseif named then
         error(("data set %s is not in %s; DATA names another folder"):format(name, folder), 0)
      else
         terminal.say(("  %s is not in %s: left out"):format(name, folder))
      end
   end
   return sets
end

--- Runs body(), prints what it was and how long it took, and returns what it returned.
function M.step(text, body)
   local started = clock.now()
   local results = { body() }
   terminal.say(terminal.dim(("  %7.1f s  %s"):format(clock.now() - started, text)))
   return unpack(results)
end

--- A number by a format, or "-" of nil.
function M.show(value, format) return value and format:format(value) or "-" end

--- Prints a Markdown table of text cells.
function M.markdown(header, rows)
   terminal.say("\n| " .. table.concat(header, " | ") .. " |\n|" .. ("---|"):rep(#header))
   for _, row in ipairs(rows) do terminal.say("| " .. table.concat(row, " | ") .. " |") end
end

--- Where the results go, made when it is not there.
function M.output_directory()
   local output = (os.getenv("RUVECTOR_BUILD") or "build") .. "/bench"
   assert(os.execute("mkdir -p '" .. output .. "'") == 0, "cannot create " .. output)
   return output
end

function M.write_json(path, document)
   local file = assert(io.open(path, "w"))
   file:write(json.encode(document, { indent = true }), "\n")
   file:close()
end

return M
