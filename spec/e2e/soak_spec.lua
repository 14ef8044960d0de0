-- Ten clients on one index: see support/soak.lua. SOAK_MINUTES=10 SOAK_SEED=1 make soak.

local cluster = require("ruvector.cluster")
local methods = require("support.methods")
local ruhnsw = require("support.ruhnsw")
local soak = require("support.soak")

local SECONDS = os.getenv("SOAK_MINUTES") and 60 * tonumber(os.getenv("SOAK_MINUTES")) or 15
local SEED = tonumber(os.getenv("SOAK_SEED")) or 1

for _, method in pairs(methods) do
   describe(("an index by %s under a mixed load (SOAK_SEED=%d)"):format(method.name, SEED), function()
      it("answers as an exact scan does, and is sound afterwards", function()
         local server = cluster.new { settings = { autovacuum = "off", max_wal_size = "2GB" } }
         finally(function() server:remove() end)
         server:start()
         ruhnsw.prepare(server:connect())
         local out = soak.run(server, SECONDS,
            { method = method, rows = 2000, dim = 8, k = 10, seed = SEED })
         assert.same({}, out.failures)
         assert.equal("", out.problems)
         assert.is_nil(server:log():find("terminated by signal", 1, true))
         assert.is_true(out.vacuums > 0 and out.rebuilds > 0 and out.searches > 0)
         assert.is_true(out.recall >= method.soak_recall, "recall " .. out.recall)
         print(("%s: %d statements, %d vacuums, %d rebuilds, %d searches judged, recall %.3f"):format(
            method.name, out.statements, out.vacuums, out.rebuilds, out.searches, out.recall))
      end)
   end)
end
