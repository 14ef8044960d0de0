-- The type's ways in, fed with mutated input: text, COPY BINARY, casts from arrays. Whatever comes, it
-- is refused with an error of SQLSTATE class 22 (54: a limit; 08P01:
-- PostgreSQL's own word for a binary form that is too short), or becomes a value that round-trips
-- through text and binary and has finite elements.
--
-- FUZZ_SEED repeats a run, FUZZ_INPUTS makes it longer (make fuzz-type).

local cluster = require("ruvector.cluster")
local pages = require("support.pages")
local pg = require("ruvector.pg")

local SEED = tonumber(os.getenv("FUZZ_SEED")) or 20260102
local INPUTS = tonumber(os.getenv("FUZZ_INPUTS")) or 3000

local SEEDS_TEXT = { "[1,2,3]", "[0]", "[-0.5,1e10,3.4e38]", " [ 1 , 2 ]", "[1e-50,1e-45]",
   "[1.17549435e-38,2]" }
local PIECES = { "[", "]", ",", " ", "\t", "-", "+", ".", "e", "E", "1", "0", "9", "nan", "inf", "Infinity",
   "0x1p3",
   "1e39", "1e-400", "''", "{", "}", "é",
   "[1", "1]", "99999999999999999999", "e+", ",,", "1_0", "\\N" }
local SEEDS_BINARY = { "\0\1\0\0\63\128\0\0", "\0\2\0\0\63\128\0\0\64\0\0\0", "\0\1\0\0\0\0\0\1" }
local SEEDS_ARRAY = { "'{1,2,3}'::real[]", "'{1,NULL}'::real[]", "'{}'::int[]", "'{{1,2},{3,4}}'::float8[]",
   "'[2:3]={1,2}'::numeric[]", "'{NaN}'::real[]", "'{Infinity}'::float8[]", "'{1e300}'::float8[]",
   "'{1e-300}'::float8[]", "'{99999999999999999999}'::numeric[]", "array_fill(1::real, ARRAY[16000])",
   "array_fill(1::real, ARRAY[16001])", "array_fill(1::int, ARRAY[0])" }

local function mutate(random, bytes, piece)
   for _ = 1, 1 + random(4) do
      local at, what = random(#bytes + 1), random(4)
      local before, after = bytes:sub(1, at), bytes:sub(at + 1)
      if what == 0 then bytes = before .. piece() .. after
      elseif what == 1 then bytes = before .. after:sub(2 + random(3))
      elseif what == 2 then bytes = before .. piece() .. after:sub(2)
      else bytes = bytes:sub(random(#bytes + 1) + 1) .. before end
   end
   return bytes
end

describe(("the type ruvector under mutated input (FUZZ_SEED=%d)"):format(SEED), function()
   local server, db
   local random = pages.generator(SEED)

   setup(function()
      server = cluster.new()
      server:start()
      db = server:connect()
      db:exec("CREATE EXTENSION ruvector; CREATE TABLE taken (v ruvector)")
   end)

   teardown(function()
      if server then server:remove() end
   end)

   local function check_refusal(err, input)
      assert(pg.is_error(err), tostring(err))
      local class = err.sqlstate:sub(1, 2)
      assert(class == "22" or class == "54" or err.sqlstate == "08P01",
         ("input %q: %s"):format(input, tostring(err)))
      assert(#err.message > 0)
   end

   -- Everything taken must come back equal through text and through its binary form.
   local function check_taken()
      assert.equal(0, db:value("SELECT count(*) FROM taken WHERE v::text::ruvector IS DISTINCT FROM v"))
      assert.equal(0, db:value([[SELECT count(*) FROM taken, unnest(v::real[]) e
         WHERE e = 'NaN' OR abs(e) = 'Infinity']]))
      assert.equal(0, db:value("SELECT count(*) FROM taken WHERE ruvector_dims(v) NOT BETWEEN 1 AND 16000"))
      local before = db:value("SELECT md5(string_agg(v::text, ' ' ORDER BY v)) FROM taken")
      local stream = db:copy_out("COPY taken TO STDOUT (FORMAT binary)")
      db:exec("TRUNCATE taken")
      db:copy_stream("COPY taken FROM STDIN (FORMAT binary)", function(put) put(stream) end)
      assert.equal(before, (db:value("SELECT md5(string_agg(v::text, ' ' ORDER BY v)) FROM taken")))
      db:exec("TRUNCATE taken")
   end

   local function feed(inputs, offer)
      local counts = { taken = 0, refused = 0 }
      for _ = 1, inputs do
         local input, ok, err = offer()
         assert(db:alive(), ("input %q: %s\n%s"):format(input, tostring(err), server:log_tail(20)))
         if ok then counts.taken = counts.taken + 1
         else
            counts.refused = counts.refused + 1
            check_refusal(err, input)
         end
      end
      assert.is_true(counts.taken > 10, counts.taken .. " inputs were taken")
      assert.is_true(counts.refused > 10, counts.refused .. " inputs were refused")
      check_taken()
   end

   it("takes or refuses every text", function()
      feed(INPUTS, function()
         local text = mutate(random, SEEDS_TEXT[random(#SEEDS_TEXT) + 1], function()
            return PIECES[random(#PIECES) + 1]
         end):gsub("%z", "")
         local ok, err = pcall(db.exec, db, "INSERT INTO taken SELECT $1::text::ruvector", text)
         return text, ok, err
      end)
   end)

   it("takes or refuses every binary form", function()
      feed(INPUTS, function()
         local bytes = mutate(random, SEEDS_BINARY[random(#SEEDS_BINARY) + 1], function()
            return string.char(random(256))
         end)
         local ok, err = pcall(db.exec, db, "INSERT INTO taken SELECT $1::ruvector", pg.binary(bytes))
         return bytes, ok, err
      end)
   end)

   it("takes or refuses every array", function()
      feed(math.floor(INPUTS / 5), function()
         local source = SEEDS_ARRAY[random(#SEEDS_ARRAY) + 1]
         local cast = ("%s::ruvector%s"):format(source, random(3) == 0 and "(" .. random(5) .. ")" or "")
         local ok, err = pcall(db.exec, db, "INSERT INTO taken SELECT " .. cast)
         return cast, ok, err
      end)
   end)
end)
