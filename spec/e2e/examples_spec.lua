-- The worked SQL examples print what their README says they print.

local cluster = require("ruvector.cluster")

local function read_all(name)
   local file = assert(io.open(name, "rb"))
   local text = file:read("*a")
   file:close()
   return text
end

describe("examples/sql", function()
   local server

   setup(function() server = cluster.new({ preload = true }):start() end)
   teardown(function()
      if server then server:remove() end
   end)

   --- What psql prints for a file, errors included.
   local function output_of(file)
      local command = ("%s/psql -X -h %s -p %d -U postgres -d postgres -f %s 2>&1"):format(server.bin,
         server.socket_directory, server.port, file)
      local pipe = assert(io.popen(command))
      local text = pipe:read("*a")
      pipe:close()
      return text
   end

   for _, name in ipairs { "feedback" } do
      it(name .. ".sql prints what its README shows", function()
         local shown = read_all("examples/sql/README.md"):match("## " .. name .. "%.sql.-```\n(.-)```")
         assert.is_truthy(shown)
         assert.equal(shown, output_of("examples/sql/" .. name .. ".sql"))
      end)
   end
end)
