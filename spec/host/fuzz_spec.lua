-- Mutated policies and hostile inputs: whatever comes, the host answers within its contract, in time,
-- and gives all memory back. FUZZ_SECONDS runs it for longer (make fuzz-policy), FUZZ_SEED repeats a
-- run; a failure prints both the seed and the policy.

local engine = require("ruvector.engine")
local kinds = require("ruvector.policy.kinds")
local clock = require("ruvector.clock")
local policy_host = require("support.policy_host")
local ffi, lib = engine.ffi, engine.lib

local SECONDS = tonumber(os.getenv("FUZZ_SECONDS") or 4)
local SEED = tonumber(os.getenv("FUZZ_SEED") or 1)
local FUEL = 200000
local MEMORY = 2 * 1024 * 1024
-- No call may take longer: the budget ends it, or the clock that goes with it (a second).
local LONGEST_CALL = 5

-- ---- policies ------------------------------------------------------------------------------

local function read(path)
   local file = assert(io.open(path, "rb"))
   local text = file:read("*a")
   file:close()
   return text
end

-- What attackers and accidents write: dropped into the text at random.
local SNIPPETS = {
   " while true do end ", " repeat until false ", " goto again ", " ::again:: goto again ",
   " local t = {} for i = 1, 1e9 do t[i] = i end ", " local s = 'x' while true do s = s .. s end ",
   " local function f() return f() end f() ", " local function f() return 1 + f() end f() ",
   " table.sort({ 3, 2, 1 }, function() while true do end end) ", " string.rep('x', 1e9) ",
   " error() ", " error({}) ", " error(nil) ", " error(('x'):rep(10)) ", " pcall(error) ",
   " coroutine.wrap() ",
   " setmetatable({}, {}) ", " getfenv() ", " require('ffi') ", " require('ruvector.kernels').isotonic({}) ",
   " return ", " return nil ", " return {} ", " return 0 / 0 ", " return { slack = 0 / 0 } ",
   " return { confidence = 1 / 0, success = 'yes' } ", " local self = {} self.self = self return self ",
   " \27LJ\2 ", " \0 ", " -- ", " --[[ ", " [[ ", " ' ", " end ", " ( ", " } ",
   " math.huge ", " -1 ", " 1e308 ", " 0x7fffffff ", " 9007199254740993 ", " 1LL ", " nil ", " ... ",
   " policy = nil ", " math = nil ", " tostring = 1 ", " type = error ", " _G.x = 1 ",
}

local function pick(draw, list) return list[draw:whole(1, #list)] end

local function splice(text, from, to, middle) return text:sub(1, from - 1) .. middle .. text:sub(to + 1) end

local MUTATIONS = {
   function(draw, text) -- a byte
      local at = draw:whole(1, #text)
      return splice(text, at, at, string.char(draw:whole(0, 255)))
   end,
   function(draw, text) -- a stretch, away
      local from = draw:whole(1, #text)
      return splice(text, from, from + draw:whole(0, 20), "")
   end,
   function(draw, text) -- a stretch, somewhere else
      local from = draw:whole(1, #text)
      local part = text:sub(from, from + draw:whole(0, 80))
      local at = draw:whole(1, #text)
      return splice(text, at, at - 1, part)
   end,
   function(draw, text) -- a number
      local places = {}
      for at in text:gmatch("()%f[%w]%d+%.?%d*") do places[#places + 1] = at end
      if #places == 0 then return text end
      local at = pick(draw, places)
      local number = text:match("^%d+%.?%d*", at)
      local values = { "0", "-1", "1e308", "(0/0)", "math.huge", "-math.huge", "1e9", "0.5", "2", "nil" }
      return splice(text, at, at + #number - 1, pick(draw, values))
   end,
   function(draw, text) -- an operator or a word
      local words = { "+", "-", "*", "/", "^", "<", ">", "==", "and", "or", "not ", "#", "..", "%" }
      local from, to = pick(draw, words), pick(draw, words)
      local at = text:find(from, draw:whole(1, #text), true)
      return at and splice(text, at, at + #from - 1, to) or text
   end,
   function(draw, text)
      local at = draw:whole(1, #text)
      return splice(text, at, at - 1, pick(draw, SNIPPETS))
   end,
   function(draw, text) -- at the beginning of a function, where it runs
      local places = {}
      for at in text:gmatch("function[^\n]-%)()") do places[#places + 1] = at end
      local at = #places > 0 and pick(draw, places) or 1
      return splice(text, at, at - 1, pick(draw, SNIPPETS))
   end,
}

local function mutate(draw, text)
   for _ = 1, draw:whole(1, 3) do
      if #text > 0 then text = pick(draw, MUTATIONS)(draw, text) end
   end
   return text
end

-- ---- inputs --------------------------------------------------------------------------------

local HOSTILE = { 0 / 0, math.huge, -math.huge, -1, 0, 1e308, -1e308, 1e-308, 2 ^ 53 }

-- Some numbers of a table, at any depth, made hostile.
local function poison(draw, input)
   for name, value in pairs(input) do
      if type(value) == "number" and draw:chance(0.2) then
         input[name] = pick(draw, HOSTILE)
      elseif type(value) == "table" then
         poison(draw, value)
      end
   end
   return input
end

local POISONED = { verdict = true, interpolation = true, selection = true, healing = true }

-- ---- what may come out ---------------------------------------------------------------------

local function within(value, low, high, what)
   assert(type(value) == "number" and value >= low and value <= high, what .. " = " .. tostring(value))
end

local function score(value, what)
   if value ~= -1 then within(value, 0, 1, what) end
end

local CHECKS = {
   verdict = function(result)
      assert(type(result.success) == "boolean")
      within(result.confidence, 0, 1, "confidence")
      for _, name in ipairs({ "latency", "recall", "diversity", "feedback" }) do score(result[name], name) end
      assert(#result.recommendations <= 4)
   end,
   interpolation = function(result)
      within(result.slack, 0, 10, "slack")
      within(result.ef_search, 1, 100000, "ef_search")
      within(result.probes, 1, 100000, "probes")
   end,
   distillation = function(patterns) -- each has passed rv_pattern_check in the binding
      assert(#patterns <= 257)
   end,
   retention = function(result)
      within(result.confidence, 0, 1, "confidence")
      within(result.slack, 0, 1e9, "slack")
   end,
   tuning = function(result, input)
      within(result.point, 1, #input.curve, "point")
      within(result.target_recall, 0.5, 1, "target_recall")
   end,
   selection = function(result)
      within(result.hnsw, 0, 1e18, "hnsw")
      within(result.ivfflat, 0, 1e18, "ivfflat")
   end,
   healing = function(result)
      assert(type(result.run) == "boolean")
      within(result.queries, 1, 8192, "queries")
      within(result.rows_per_query, 2, 128, "rows_per_query")
      within(result.links_per_node, 1, 32, "links_per_node")
      within(result.min_requests, 1, 8192, "min_requests")
      within(result.min_gain, 0, 1, "min_gain")
   end,
}

-- ---- the run -------------------------------------------------------------------------------

describe("a host under mutated policies and inputs", function()
   local originals, directory = {}, nil

   setup(function()
      for _, kind in ipairs(kinds.names()) do originals[kind] = read("policies/" .. kind .. ".lua") end
      directory = policy_host.directory()
   end)
   teardown(function() policy_host.clean() end)

   -- One mutated policy: loaded and, if that works, called. Returns the cause of the load.
   local function round(kind, text, draw, counts)
      local memory = ffi.new("rv_test_allocator[1]")
      lib.rv_test_allocator_init(memory, 0)
      policy_host.write(directory, kind, text)
      local host = policy_host.new({ fuel = FUEL, memory = MEMORY, allocator = memory[0].allocator })
      local cause = host:load(directory)
      counts[cause] = (counts[cause] or 0) + 1
      for _ = 1, cause == "ok" and 4 or 1 do -- a host that did not load serves the built-ins
         local input = kinds.kinds[kind].input(draw)
         if POISONED[kind] and draw:chance(0.5) then poison(draw, input) end
         local started = clock.now()
         local result, outcome = kinds.kinds[kind].run(host, input)
         assert(clock.now() - started < LONGEST_CALL * (kind == "distillation" and 25 or 1), "a call hung")
         CHECKS[kind](result, input)
         counts["call " .. outcome] = (counts["call " .. outcome] or 0) + 1
      end
      host:destroy()
      assert(memory[0].live == 0, "memory was not given back")
      os.remove(directory .. "/" .. kind .. ".lua")
      return cause
   end

   it("answers every call within the contract, in time, and gives its memory back", function()
      local ends, rounds, counts, seed = clock.now() + SECONDS, 0, {}, SEED
      while clock.now() < ends do
         local draw = kinds.draw(seed)
         local kind = pick(draw, kinds.names())
         local text = mutate(draw, originals[kind])
         local ok, err = pcall(round, kind, text, draw, counts)
         if not ok then
            error(("FUZZ_SEED=%d, %s policy: %s\n%s"):format(seed, kind, tostring(err), text), 0)
         end
         rounds, seed = rounds + 1, seed + 1
      end
      assert.is_true(rounds > 20)
      assert.is_true((counts["call ok"] or 0) > 0)
      if os.getenv("FUZZ_SECONDS") then
         local names = {}
         for name in pairs(counts) do names[#names + 1] = name end
         table.sort(names)
         print(("\n%d mutated policies, seeds %d to %d"):format(rounds, SEED, seed - 1))
         for _, name in ipairs(names) do print(("  %-16s %8d"):format(name, counts[name])) end
      end
   end)
end)
