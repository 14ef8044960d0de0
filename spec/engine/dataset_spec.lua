-- The bundled data set and its reader.

local dataset = require("ruvector.dataset")

local DIRECTORY = "examples/data/debian-packages"

describe("the bundled data set", function()
   local data

   setup(function() data = dataset.open(DIRECTORY) end)

   it("holds 60,100 rows and 12,000 queries of 128 dimensions, with their texts", function()
      assert.equal(60100, data.rows.count)
      assert.equal(12000, data.queries.count)
      assert.equal(128, data.rows.dim)
      assert.equal(128, data.queries.dim)
      assert.equal(10, data.neighbours.k)
      assert.equal("0ad", data.packages[1].name)
      assert.matches("^Real%-time strategy", data.packages[1].synopsis)
      for i, question in ipairs(data.questions) do
         assert.equal("q" .. i - 1, question.qid)
         assert.equal(question.package, data.packages[tonumber(question.package_row) + 1].name)
      end
   end)

   it("takes less than 12 MB in the repository", function()
      local total = 0
      for name in require("lfs").dir(DIRECTORY) do
         local attributes = require("lfs").attributes(DIRECTORY .. "/" .. name)
         if attributes.mode == "file" then total = total + attributes.size end
      end
      assert.is_true(total > 0 and total < 12e6, total .. " bytes")
   end)

   it("decodes each value as scale times code", function()
      for _, i in ipairs { 0, 1, 12345, 60099 } do
         local row, codes = data.rows:at(i), data.rows.codes + i * 128
         for j = 0, 127 do
            assert.is_true(math.abs(row[j] - data.rows.scale * codes[j]) <= 1e-6 * math.abs(row[j]))
         end
      end
      assert.has_error(function() data.rows:at(60100) end)
   end)

   -- The k smallest distances of a query over all rows, in order.
   local function nearest_distances(query, k)
      local best = {}
      for row = 0, data.rows.count - 1 do
         local distance = data:distance(query, row)
         if #best < k or distance < best[k] then
            local place = math.min(#best + 1, k)
            while place > 1 and best[place - 1] > distance do
               best[place] = best[place - 1]
               place = place - 1
            end
            best[place] = distance
         end
      end
      return best
   end

   it("names the 10 nearest rows of a query, as an exact scan finds them", function()
      for _, query in ipairs { 0, 4711, 10000, 11999 } do
         local best = nearest_distances(query, 10)
         for i, row in ipairs(data:truth(query, 10)) do
            assert.is_true(math.abs(best[i] - data:distance(query, row)) < 1e-12,
               ("query %d, neighbour %d"):format(query, i))
         end
      end
   end)

   describe("measures recall by distance", function()
      it("as 1 for the truth in any order, 0 for far rows, and in between", function()
         local truth = data:truth(7, 10)
         assert.equal(1, data:recall(7, truth, 10))
         local backwards = {}
         for i = 1, 10 do backwards[i] = truth[11 - i] end
         assert.equal(1, data:recall(7, backwards, 10))
         local far, row = {}, 0
         local bound = data:distance(7, truth[10])
         while #far < 10 do
            if data:distance(7, row) > bound + 0.1 then far[#far + 1] = row end
            row = row + 1
         end
         assert.equal(0, data:recall(7, far, 10))
         far[1], far[2], far[3] = truth[1], truth[5], truth[9]
         assert.equal(0.3, data:recall(7, far, 10))
      end)

      it("counting a repeated row once, a missing row as a miss, and the first k rows only", function()
         local truth = data:truth(7, 10)
         assert.equal(0.1, data:recall(7, { truth[1], truth[1], truth[1] }, 10))
         assert.equal(0, data:recall(7, {}, 10))
         assert.equal(1, data:recall(7, truth, 5))
      end)

      it("counting a row that is as near as the true k-th", function()
         -- Two rows at the same distance of some query, one of them beyond the k-th place.
         for query = 0, data.queries.count - 1 do
            local truth = data:truth(query, 10)
            if data:distance(query, truth[9]) == data:distance(query, truth[10])
               and data:distance(query, truth[8]) < data:distance(query, truth[9]) then
               truth[9] = truth[10]
               assert.equal(1, data:recall(query, { unpack(truth, 1, 9) }, 9))
               return
            end
         end
         error("the data set has no tie to test with")
      end)
   end)
end)

describe("the reader of data sets", function()
   local function file_with(bytes)
      local path = os.tmpname()
      local file = assert(io.open(path, "wb"))
      file:write(bytes)
      file:close()
      return path
   end

   local function refuses(reader, bytes, message)
      local path = file_with(bytes)
      local ok, err = pcall(reader, path)
      os.remove(path)
      assert.is_false(ok)
      assert.matches(message, tostring(err), 1, true)
   end

   it("refuses what is not an i8v file, or a cut one", function()
      refuses(dataset.read_vectors, "", "not an i8v file")
      refuses(dataset.read_vectors, ("x"):rep(40), "not an i8v file")
      refuses(dataset.read_vectors, "I8V1\4\0\0\0\2\0\0\0\0\0\128\63\1\2\3", "19 bytes where 2 x 4")
   end)

   it("refuses an ivecs file whose size fits no width", function()
      refuses(dataset.read_neighbours, "", "not an ivecs file")
      refuses(dataset.read_neighbours, "\2\0\0\0\1\0\0\0", "not an ivecs file")
   end)

   it("says which file is missing", function()
      local ok, err = pcall(dataset.open, "/nonexistent")
      assert.is_false(ok)
      assert.matches("/nonexistent/rows.i8v.zst", err, 1, true)
   end)
end)
