-- bank_json_spec.lua - the JSON form of the ReasoningBank: an exact round trip, and a reader that
-- refuses everything else with path, value and reason.

local engine = require("ruvector.engine")
local B = require("support.bank")
local json = require("dkjson")
local ffi, lib = engine.ffi, engine.lib

local err = engine.error_buffer()
local L2, COSINE = lib.RV_METRIC_L2, lib.RV_METRIC_COSINE

local function to_json(bank)
   local text, size = ffi.new("char *[1]"), ffi.new("size_t[1]")
   engine.check(lib.rv_bank_to_json(bank, engine.allocator, text, size, err), err)
   local result = ffi.string(text[0], size[0])
   assert.equal(0, text[0][tonumber(size[0])])
   engine.allocator.free(engine.allocator.ctx, text[0])
   return result
end

--- The bank, or nil, the status and the message.
local function from_json(text)
   local out = ffi.new("rv_bank *[1]")
   -- a copy that ends where the text ends, so that a read beyond it is a fault under a sanitizer
   local bytes = ffi.new("char[?]", math.max(#text, 1))
   ffi.copy(bytes, text, #text)
   local status = lib.rv_bank_from_json(engine.allocator, bytes, #text, out, err)
   if status == lib.RV_OK then return ffi.gc(out[0], lib.rv_bank_destroy) end
   return nil, status, engine.message(err)
end

local function refused(status, message, text)
   local bank, got, reason = from_json(text)
   assert.is_nil(bank, "accepted: " .. text:sub(1, 200))
   if not reason:find(message, 1, true) then assert.equal(message, reason) end
   assert.equal(status, got)
end

local function small_bank()
   local bank = B.new(COSINE, 2, 10)
   B.put(bank, B.index_pattern { entry_points = { 5 } })
   for i = 1, 3 do B.put(bank, B.pattern { entry_points = { i, 99 } }, engine.floats { i, -i / 3 }) end
   return bank
end

local valid = to_json(small_bank())

--- The valid document with the first match of a Lua pattern replaced.
local function with(pattern, replacement)
   local text, n = valid:gsub(pattern, (replacement:gsub("%%", "%%%%")), 1)
   assert.equal(1, n, pattern)
   return text
end

describe("a bank as JSON", function()
   it("is JSON that any reader understands", function()
      local document = json.decode(valid)
      assert.equal("ruvector-bank", document.format)
      assert.equal(1, document.version)
      assert.equal("cosine", document.metric)
      assert.equal(2, document.dimensions)
      assert.equal(12, #document.targets)
      assert.equal(4, #document.patterns)
      assert.equal("index", document.patterns[1].scope)
      assert.is_nil(document.patterns[1].centroid)
      assert.equal("77", document.patterns[2].index_epoch)
      assert.same({ "1", "99" }, document.patterns[2].entry_points)
      assert.same({ 1, -0.333333343 }, document.patterns[2].centroid)
   end)

   it("comes back bit for bit, whatever the numbers", function()
      local random = B.random(5)
      for _, metric in ipairs { lib.RV_METRIC_L2, lib.RV_METRIC_IP, lib.RV_METRIC_COSINE,
         lib.RV_METRIC_L1 } do
         local bank = B.new(metric, 9, 500)
         B.put(bank, B.random_pattern(random, { scope = lib.RV_PATTERN_INDEX, radius = 0,
            id = random.bits() }))
         local bits = ffi.new("union { uint32_t u; float f; }")
         for _ = 1, 300 do
            local row = engine.floats(function()
               -- Any finite float, the subnormal ones too. The exponent is looked at, not the float:
               -- LuaJIT takes some NaNs that it reads for values of another type.
               repeat bits.u = random.bits() until bit.band(bits.u, 0x7f800000) ~= 0x7f800000
               return bits.f
            end, 9)
            B.put(bank, B.random_pattern(random, { id = random.bits() }), row)
         end
         local back = assert(from_json(to_json(bank)))
         assert.equal(B.contents(bank), B.contents(back))
         assert.equal(tonumber(metric), tonumber(lib.rv_bank_metric(back)))
      end
   end)

   it("keeps the extremes of every kind of number", function()
      local bank = B.new(L2, 6, 100000)
      local max, tiny, least = 3.40282346638528859812e38, 1.17549435e-38, 1.4e-45
      B.put(bank, B.pattern { id = -1ULL, index_epoch = -1ULL, usage = -1ULL, samples = 4294967295,
         k = 4294967295,
         created_us = ffi.cast("int64_t", -0x8000000000000000LL), updated_us = 0x7fffffffffffffffLL,
            slack = max,
         radius = least, entry_points = { -1ULL, 0 } }, engine.floats { max, -max, tiny, least, -0.0, 0.1 })
      local back = assert(from_json(to_json(bank)))
      assert.equal(B.contents(bank), B.contents(back))
   end)

   it("of an empty bank comes back empty", function()
      local back = assert(from_json(to_json(B.new(L2, 3, 7))))
      assert.equal(0, lib.rv_bank_count(back))
      assert.equal(3, lib.rv_bank_dim(back))
   end)

   it("may be laid out in any way and order that JSON allows", function()
      local spaced = valid:gsub("([%[%]{},:])", " \t%1\n\r ")
      assert.equal(B.contents(assert(from_json(valid))), B.contents(assert(from_json(spaced))))
      local document = json.decode(valid)
      document.patterns[1], document.patterns[3] = document.patterns[3], document.patterns[1]
      assert.equal(B.contents(assert(from_json(valid))), B.contents(assert(from_json(json.encode(document)))))
      assert.truthy(from_json(with('"cosine"', '"\\u0063os\\u0069ne"')))
   end)

   it("too large to be imported again is not exported", function()
      local bank = B.new(L2, 16000, 2000)
      local row = engine.floats(nil, 16000)
      local allocator, text, size = ffi.new("rv_test_allocator"), ffi.new("char *[1]"), ffi.new("size_t[1]")
      for _ = 1, 1050 do B.put(bank, B.pattern(), row) end
      lib.rv_test_allocator_init(allocator, 0)
      assert.equal(lib.RV_ERR_FULL, lib.rv_bank_to_json(bank, allocator.allocator, text, size, err))
      assert.matches("1050 patterns of 16000 dimensions pass the limit of 16777216 values",
         engine.message(err), 1, true)
      assert.equal(0, tonumber(allocator.live))
   end)
end)

describe("importing a bank", function()
   it("refuses text that is no JSON, with line and column", function()
      local cases = {
         { "", "line 1, column 1: a value is missing at the end" },
         { "   ", "column 4: a value is missing at the end" },
         { "{", "a string is missing at the end" }, { "{}x", "more after the end at 'x'" },
         { "{\n \"a\" 1}", "line 2, column 6: a colon is missing at '1'" },
         { '{"a":1,}', "a string is missing at '}'" }, { "[1,]", "a value is missing at ']'" },
         { "[1 2]", "a comma or ] is missing at '2'" }, { '{"a":1 "b"', "a comma or } is missing" },
         { "[01]", "must not begin with 0" }, { "[-]", "a digit is missing" }, { "[1.]", "after the point" },
         { "[.5]", "a value is missing" }, { "[1e]", "in the exponent" }, { "[+1]", "a value is missing" },
         { "[NaN]", "a value is missing at 'N'" }, { "[Infinity]", "a value is missing" },
         { "[-Infinity]", "a digit is missing" }, { "[nan]", "this is no value" }, { "[tru]",
            "this is no value" },
         { '["a', "a string does not end at the end" }, { '["a\n"]', "a string does not end at byte 0x0a" },
         { '["\\x"]', "no such escape" }, { '["\\u12g4"]', "hexadecimal digit" },
         { '["\\u0000"]', "stands for NUL" }, { '["\\ud800"]', "half a character" },
         { "[" .. ("1"):rep(61) .. "]", "longer than 60 characters" },
         { "\239\187\191{}", "a value is missing at byte 0xef" }, { "\0", "byte 0x00" }, { "{}\0",
            "byte 0x00" },
         { "'a'", "a value is missing at '''" }, { "[1]//", "more after the end" },
      }
      for _, case in ipairs(cases) do refused(lib.RV_ERR_FORMAT, case[2], case[1]) end
   end)

   it("refuses every text that ends too early", function()
      for length = 0, #valid - 2 do
         local bank, status = from_json(valid:sub(1, length))
         assert(bank == nil and status == lib.RV_ERR_FORMAT, length)
      end
   end)

   it("refuses hostile depth, size and number of values without building anything", function()
      refused(lib.RV_ERR_FULL, "more than 8 deep", ("["):rep(9))
      refused(lib.RV_ERR_FULL, "more than 8 deep", ("["):rep(10000000))
      refused(lib.RV_ERR_FULL, "more than 8 deep", ('{"a":'):rep(1000000))
      refused(lib.RV_ERR_FULL, "more than 16777216 values", "[" .. ("0,"):rep(16777216) .. "0]")
      local out = ffi.new("rv_bank *[1]")
      assert.equal(lib.RV_ERR_FULL, lib.rv_bank_from_json(engine.allocator, valid, 128 * 1024 * 1024 + 1, out,
         err))
      assert.matches("134217729 bytes; at most 134217728", engine.message(err), 1, true)
      local array = "[" .. ("0,"):rep(1000) .. "0]"
      refused(lib.RV_ERR_FULL, "$.patterns has 1001 elements; $.max_patterns allows 10",
         with('"patterns":%[.*%]}',
         '"patterns":' .. array .. "}"))
   end)

   it("refuses another format or version before it looks at anything else", function()
      refused(lib.RV_ERR_FORMAT, "$ is an array; must be an object", "[]")
      refused(lib.RV_ERR_FORMAT, "$ is 5; must be an object", "5")
      refused(lib.RV_ERR_FORMAT, "$ is null; must be an object", "null")
      refused(lib.RV_ERR_FORMAT, "$.format is missing", "{}")
      refused(lib.RV_ERR_FORMAT, '$.format is "tar"; must be "ruvector-bank"', '{"format":"tar"}')
      refused(lib.RV_ERR_FORMAT, "$.version is missing", '{"format":"ruvector-bank"}')
      refused(lib.RV_ERR_VERSION, "$.version is 2; this code reads 1",
         '{"format":"ruvector-bank","version":2,"new":1}')
      refused(lib.RV_ERR_FORMAT, '$.version is "1"; must be a number', with('"version":1', '"version":"1"'))
   end)

   it("names the fault of a document's field", function()
      local F, R = lib.RV_ERR_FORMAT, lib.RV_ERR_RANGE
      refused(F, "$.metric is \"euclid\"; must be", with('"cosine"', '"euclid"'))
      refused(F, "$.metric is null; must be", with('"cosine"', "null"))
      refused(R, "$.dimensions is 0; must be 1 to 16000", with('"dimensions":2', '"dimensions":0'))
      refused(R, "$.dimensions is 16001; must be", with('"dimensions":2', '"dimensions":16001'))
      refused(F, "$.dimensions is 2.5; must be a whole number", with('"dimensions":2', '"dimensions":2.5'))
      refused(F, "$.dimensions is -2; must be a whole number", with('"dimensions":2', '"dimensions":-2'))
      refused(F, "$.dimensions is inf", with('"dimensions":2', '"dimensions":1e999'))
      refused(R, "$.max_patterns is 100001; must be 1 to 100000", with('"max_patterns":10',
         '"max_patterns":100001'))
      refused(F, "$.targets has 11 elements; must have 12", with("%[0.5,", "["))
      refused(F, "$.targets[1] is 0.71; must be 0.7", with("0.5,0.7", "0.5,0.71"))
      refused(F, "$.targets is an object; must be an array", with('"targets":%b[]', '"targets":{}'))
      refused(F, "$.patterns is an object; must be an array", with('"patterns":%[.*%]}', '"patterns":{}}'))
      refused(F, "$.comment is not a field of this format", with('"metric"', '"comment":"hi","metric"'))
      refused(F, "$.Metric is not a field of this format", with('"metric"', '"Metric"'))
      refused(F, "$.metric comes twice", with('"metric"', '"metric":"l2","metric"'))
      refused(F, "$.max_patterns is missing", with('"max_patterns":10,', ""))
      refused(F, "$.? is not a field", with('"metric"', '"\1":1,"metric"'):gsub("\1", "\\u0001", 1))
   end)

   it("names the fault of a pattern's field, with its path", function()
      local F, R = lib.RV_ERR_FORMAT, lib.RV_ERR_RANGE
      -- each case changes the first occurrence, that of the index-wide pattern
      local cases = {
         { F, '$.patterns[0].id is 1; must be a string of digits', '"id":"1"', '"id":1' },
         { F, '$.patterns[0].id is "01"; must be', '"id":"1"', '"id":"01"' },
         { F, '$.patterns[0].id is "-1"; must be', '"id":"1"', '"id":"-1"' },
         { F, '$.patterns[0].id is ""; must be', '"id":"1"', '"id":""' },
         { F, '$.patterns[0].id is "1x"; must be', '"id":"1"', '"id":"1x"' },
         { F, '$.patterns[0].id is "18446744073709551616"; must be', '"id":"1"',
            '"id":"18446744073709551616"' },
         { R, '$.patterns[0].id is "0"; must be at least "1"', '"id":"1"', '"id":"0"' },
         { F, '$.patterns[0].created_us is "9223372036854775808"', '"created_us":"%d+"',
            '"created_us":"9223372036854775808"' },
         { F, '$.patterns[0].created_us is "--1"', '"created_us":"%d+"', '"created_us":"--1"' },
         { F, '$.patterns[0].created_us is 5; must be a string', '"created_us":"%d+"', '"created_us":5' },
         { F, '$.patterns[0].scope is "both"; must be "index" or "region"', '"scope":"index"',
            '"scope":"both"' },
         { F, "$.patterns[0].k is 1.5; must be a whole number from 0 to 4294967295", '"k":10', '"k":1.5' },
         { F, "$.patterns[0].k is 4.2949673e+09; must be", '"k":10', '"k":4294967296' },
         { R, "$.patterns[0].k is 0; must be at least 1", '"k":10', '"k":0' },
         { F, '$.patterns[0].k is "10"; must be', '"k":10', '"k":"10"' },
         { F, "$.patterns[0].slack is true; must be a number", '"slack":0.125', '"slack":true' },
         { R, "$.patterns[0].slack is -0.125; must be finite and at least 0", '"slack":0.125',
            '"slack":-0.125' },
         { R, "$.patterns[0].slack is 1e+39; must be a finite single", '"slack":0.125', '"slack":1e39' },
         { R, "$.patterns[0].slack is inf; must be a finite single", '"slack":0.125', '"slack":1e400' },
         { R, "$.patterns[0].confidence is 1.25; must be 0 to 1", '"confidence":0.75', '"confidence":1.25' },
         { R, "$.patterns[0].radius is 1; must be 0 for an index-wide", '"radius":0', '"radius":1' },
         { F, "$.patterns[0].table_slack has 11 elements; must have 12", '"table_slack":%[0,',
            '"table_slack":[' },
         { F, "$.patterns[0].table_slack[0] is null; must be a number", '"table_slack":%[0',
            '"table_slack":[null' },
         { R, "$.patterns[0].table_slack[1] is 0.03125; must not be less than the 9 before",
            '"table_slack":%[0,',
            '"table_slack":[9,' },
         { F, "$.patterns[0].table_ef[0] is 1.5; must be a whole number", '"table_ef":%[10',
            '"table_ef":[1.5' },
         { R, "$.patterns[0].table_recall[0] is 2; must be 0 to 1", '"table_recall":%[0.5',
            '"table_recall":[2' },
         { F, "$.patterns[0].entry_points is 5; must be an array", '"entry_points":%["5"%]',
            '"entry_points":5' },
         { F, "$.patterns[0].entry_points[0] is 5; must be a string", '"entry_points":%["5"%]',
            '"entry_points":[5]' },
         { R, "$.patterns[0].entry_points has 9 elements; must have at most 8", '"entry_points":%["5"%]',
            '"entry_points":["1","2","3","4","5","6","7","8","9"]' },
         { F, "$.patterns[0].centroid must not be given for an index-wide", '"entry_points":%["5"%]',
            '"entry_points":["5"],"centroid":[1,2]' },
         { F, "$.patterns[0].entry_points is missing", ',"entry_points":%["5"%]', "" },
         { F, "$.patterns[0].kk is not a field of this format", '"k":10', '"kk":10' },
         { F, "$.patterns[0].k comes twice", '"k":10', '"k":10,"k":10' },
         { lib.RV_ERR_DIMENSION, "$.patterns[1].centroid has 3 elements; must have 2", '"centroid":%[1',
            '"centroid":[1,1' },
         { lib.RV_ERR_DIMENSION, "$.patterns[1].centroid has 0 elements; must have 2", '"centroid":%b[]',
            '"centroid":[]' },
         { R, "$.patterns[1].centroid[0] is -1e+39; must be a finite", '"centroid":%[1',
            '"centroid":[-1e39' },
         { F, "$.patterns[1].centroid[0] is an array; must be a number", '"centroid":%[1',
            '"centroid":[[1]' },
         { F, "$.patterns[1].centroid is missing", ',"centroid":%b[]', "" },
         { F, '$.patterns[1].id is "1"; another pattern has it', '"id":"2"', '"id":"1"' },
         { F, '$.patterns[2].id is "2"; another pattern has it', '"id":"3"', '"id":"2"' },
         { F, "$.patterns[0] is 7; must be an object", '"patterns":%[%s*%b{}', '"patterns":[7' },
      }
      for _, case in ipairs(cases) do refused(case[1], case[2], with(case[3], case[4])) end
      local index = valid:match('%b{}', valid:find('"patterns"', 1, true))
      refused(F, "$.patterns[1] is a second index-wide pattern",
         with('"patterns":%[', '"patterns":[' .. index:gsub('"id":"1"', '"id":"9"') .. ","))
      local missing = { "id", "scope", "index_epoch", "k", "samples", "usage", "created_us", "updated_us",
         "optimal_ef_search", "optimal_probes", "target_recall", "slack", "expected_recall", "confidence",
            "radius",
         "mean_distances", "table_slack", "table_ef", "table_recall" }
      for _, name in ipairs(missing) do
         local value = name:match("^table") and '%b[]' or '[^,]+'
         refused(F, "$.patterns[0]." .. name .. " is missing", with('"' .. name .. '":' .. value .. ",", ""))
      end
   end)

   it("quotes hostile values briefly and in plain characters", function()
      local _, _, reason = from_json(with('"cosine"', '"' .. ("\200\\u0007"):rep(5000) .. '"'))
      assert.matches('^%$%.metric is "%?+%.%.%."; must be', reason)
      _, _, reason = from_json(with('"metric"', '"' .. ("\255"):rep(5000) .. '":1,"metric"'))
      assert.matches("^%$%.%?+ is not a field", reason)
      assert.is_true(#reason < 150)
   end)

   it("takes valid patterns or nothing, however the text is damaged", function()
      local random = B.random(99)
      local bits = { "0", "1", "-", "9", ".", "e", "E", "+", '"', ",", ":", "[", "]", "{", "}", " ", "\\",
         "\0",
         "null", "true", "1e999", "-1", "0.5", "nan", "[]", "{}", '"x"', "\255", "99999999999", "1e-320",
            '"k":1,' }
      local accepted, rejected = 0, 0
      for _ = 1, 12000 do
         local text = valid
         for _ = 1, 1 + random.below(3) do
            local at, dice = 1 + random.below(#text), random.below(5)
            local bit_of = bits[1 + random.below(#bits)]
            if dice == 0 then text = text:sub(1, at - 1) .. bit_of .. text:sub(at) -- insert
            elseif dice == 1 then text = text:sub(1, at - 1) .. bit_of .. text:sub(at + #bit_of) -- overwrite
            elseif dice == 2 then text = text:sub(1, at - 1) .. text:sub(at + 1 + random.below(12)) -- cut
            elseif dice == 3 then -- repeat a stretch
               local stretch = text:sub(at, at + random.below(60))
               text = text:sub(1, at - 1) .. stretch .. text:sub(at)
            else text = text:sub(1, at - 1) .. string.char(random.below(256)) .. text:sub(at + 1) end
         end
         local bank, status, reason = from_json(text)
         if bank then
            accepted = accepted + 1
            B.check(bank)
            assert(B.contents(bank) == B.contents(assert(from_json(to_json(bank)))))
         else
            rejected = rejected + 1
            assert(status ~= lib.RV_ERR_NOMEM and #reason > 10, reason)
         end
      end
      assert.is_true(accepted > 100 and rejected > 5000, accepted .. " accepted, " .. rejected .. " refused")
   end)
end)

describe("without memory", function()
   it("an import fails cleanly", function()
      assert.is_true(B.fail_each_allocation(function(allocator)
         local out = ffi.new("rv_bank *[1]")
         local status = lib.rv_bank_from_json(allocator, valid, #valid, out, err)
         if status == lib.RV_OK then lib.rv_bank_destroy(out[0]) end
         return status
      end) >= 8)
   end)

   it("an export fails cleanly", function()
      local bank = small_bank()
      for i = 1, 6 do B.put(bank, B.pattern(), engine.floats { i, i }) end
      assert.is_true(B.fail_each_allocation(function(allocator)
         local text, size = ffi.new("char *[1]"), ffi.new("size_t[1]")
         local status = lib.rv_bank_to_json(bank, allocator, text, size, err)
         if status == lib.RV_OK then allocator.free(allocator.ctx, text[0]) end
         return status
      end) >= 2)
   end)
end)
