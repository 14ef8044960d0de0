-- k-means: what it finds, what it promises on return, and how it fails.

local engine = require("ruvector.engine")
local ffi, lib = engine.ffi, engine.lib

local L2, IP, COSINE, L1 = lib.RV_METRIC_L2, lib.RV_METRIC_IP, lib.RV_METRIC_COSINE, lib.RV_METRIC_L1

local function generator(seed)
   local rng = ffi.new("rv_prng")
   lib.rv_prng_seed(rng, seed)
   return {
      normal = function() return lib.rv_prng_normal(rng) end,
      uniform = function() return lib.rv_prng_uniform(rng) end,
      below = function(n) return tonumber(lib.rv_prng_below(rng, n)) end,
   }
end

local function options_of(metric, dim, clusters, extra)
   local options = ffi.new("rv_kmeans_options")
   options.metric, options.dim, options.clusters = metric, dim, clusters
   options.max_iterations, options.tolerance, options.seed = 50, 1e-9, 1
   for key, value in pairs(extra or {}) do options[key] = value end
   return options
end

local function run(options, vectors, count, allocator)
   local clusters = math.min(options.clusters, count)
   local found = {
      centroids = ffi.new("float[?]", math.max(clusters * options.dim, 1)),
      assignment = ffi.new("uint32_t[?]", math.max(count, 1)),
      result = ffi.new("rv_kmeans_result"),
      err = engine.error_buffer(),
   }
   found.status = tonumber(lib.rv_kmeans(allocator or engine.allocator, options, vectors, count,
      found.centroids, found.assignment, found.result, found.err))
   return found
end

local function centre(found, options, cluster) return found.centroids + cluster * options.dim end

local function raw(options, row, c)
   local spherical = options.metric == IP or options.metric == COSINE
   return lib.rv_raw_distance(spherical and COSINE or options.metric, row, c, options.dim)
end

-- What holds of every successful run: rows sit at their nearest centre, inertia is the sum of their
-- distances, and no cluster is empty unless rows repeat.
local function check_promises(found, options, vectors, count, rows_repeat)
   assert.equal(lib.RV_OK, found.status, engine.message(found.err))
   local clusters = math.min(options.clusters, count)
   assert.equal(clusters, found.result.clusters)
   local inertia, sizes = 0, {}
   for row = 0, count - 1 do
      local vector, own = vectors + row * options.dim, found.assignment[row]
      assert(own < clusters)
      sizes[own] = (sizes[own] or 0) + 1
      local distance = raw(options, vector, centre(found, options, own))
      inertia = inertia + distance
      for cluster = 0, clusters - 1 do
         local other = raw(options, vector, centre(found, options, cluster))
         assert(distance <= other + 1e-5 * math.max(1, other), ("row %d is not at its nearest"):format(row))
      end
   end
   assert.near(inertia, found.result.inertia, 1e-4 * math.max(1, inertia))
   for cluster = 0, clusters - 1 do assert(rows_repeat or sizes[cluster], cluster .. " is empty") end
   return sizes
end

-- blobs x per_blob rows around far-apart points; returns the vectors, the count and the points.
local function blobs(seed, count, per_blob, dim, spread)
   local g, points = generator(seed), {}
   local vectors = ffi.new("float[?]", count * per_blob * dim)
   for b = 0, count - 1 do
      points[b] = {}
      for i = 0, dim - 1 do points[b][i] = (i == b % dim and 20 * (1 + math.floor(b / dim)) or 0) end
   end
   for row = 0, count * per_blob - 1 do
      for i = 0, dim - 1 do vectors[row * dim + i] = points[row % count][i] + spread * g.normal() end
   end
   return vectors, count * per_blob, points
end

describe("k-means", function()
   it("finds separated blobs, for every metric", function()
      for name, metric in pairs({ L2 = L2, L1 = L1, COSINE = COSINE, IP = IP }) do
         local k, per_blob, dim = 6, 50, 8
         local vectors, count = blobs(3, k, per_blob, dim, 0.5)
         local recovered = 0
         for seed = 1, 10 do
            local options = options_of(metric, dim, k, { seed = seed })
            local found = run(options, vectors, count)
            check_promises(found, options, vectors, count)
            local cluster_of, pure = {}, true
            for row = 0, count - 1 do
               local own = found.assignment[row]
               cluster_of[row % k] = cluster_of[row % k] or own
               pure = pure and cluster_of[row % k] == own
            end
            local distinct = {}
            for _, cluster in pairs(cluster_of) do distinct[cluster] = true end
            local n = 0
            for _ in pairs(distinct) do n = n + 1 end
            if pure and n == k then recovered = recovered + 1 end
         end
         -- Lloyd's algorithm may stop at a local optimum; from k-means++ it rarely does here.
         assert(recovered >= 8, ("%s: %d of 10 seeds"):format(name, recovered))
      end
   end)

   it("returns the mean of each cluster's rows when it has converged", function()
      local vectors, count = blobs(4, 5, 40, 6, 3)
      local options = options_of(L2, 6, 5, { tolerance = 0, max_iterations = 1000 })
      local found = run(options, vectors, count)
      local sizes = check_promises(found, options, vectors, count)
      assert(found.result.iterations < 1000)
      for cluster = 0, 4 do
         for i = 0, 5 do
            local sum = 0
            for row = 0, count - 1 do
               if found.assignment[row] == cluster then sum = sum + vectors[row * 6 + i] end
            end
            assert.near(sum / sizes[cluster], centre(found, options, cluster)[i], 1e-5)
         end
      end
   end)

   it("returns centres of unit length for cosine and inner product, whatever the rows' lengths", function()
      local g, dim, n = generator(8), 10, 300
      local vectors = ffi.new("float[?]", n * dim)
      for row = 0, n - 1 do
         local length = 10 ^ (g.uniform() * 8 - 4)
         for i = 0, dim - 1 do vectors[row * dim + i] = length * g.normal() end
      end
      for _, metric in ipairs({ COSINE, IP }) do
         local options = options_of(metric, dim, 7)
         local found = run(options, vectors, n)
         check_promises(found, options, vectors, n)
         for cluster = 0, 6 do
            assert.near(1, lib.rv_norm(centre(found, options, cluster), dim), 1e-5)
         end
      end
   end)

   it("weighs every direction the same in a centre, for cosine and inner product", function()
      local vectors = engine.floats({ 100, 0, 0, 1, 0, 0.01, 0, 0 }) -- the last has no direction
      for _, metric in ipairs({ COSINE, IP }) do
         local found = run(options_of(metric, 2, 1), vectors, 4)
         assert.near(1 / math.sqrt(5), found.centroids[0], 1e-6)
         assert.near(2 / math.sqrt(5), found.centroids[1], 1e-6)
      end
   end)

   it("ignores the rows' lengths for cosine", function()
      local vectors, count = blobs(5, 4, 30, 6, 1)
      local scaled = ffi.new("float[?]", count * 6)
      -- powers of two, so that the directions stay the same to the last bit
      for i = 0, count * 6 - 1 do scaled[i] = vectors[i] * 2 ^ (math.floor(i / 6) % 5) end
      local options = options_of(COSINE, 6, 4)
      local one, other = run(options, vectors, count), run(options, scaled, count)
      for row = 0, count - 1 do assert.equal(one.assignment[row], other.assignment[row]) end
   end)

   it("puts the one centre of k = 1 at the mean", function()
      local vectors = engine.floats({ 0, 0, 2, 0, 0, 4, 2, 4 })
      local found = run(options_of(L2, 2, 1), vectors, 4)
      assert.equal(lib.RV_OK, found.status)
      assert.same({ 1, 2 }, { found.centroids[0], found.centroids[1] })
      assert.near(20, found.result.inertia, 1e-6)
   end)

   it("gives every distinct row a cluster of its own when clusters are as many as rows, or more", function()
      for _, clusters in ipairs({ 9, 10, 1000000 }) do
         local g = generator(6)
         local vectors = engine.floats(function() return g.normal() end, 9 * 3)
         local options = options_of(L2, 3, clusters)
         local found = run(options, vectors, 9)
         check_promises(found, options, vectors, 9)
         assert.equal(9, found.result.clusters)
         assert.near(0, found.result.inertia, 1e-9)
      end
   end)

   it("keeps no cluster empty, over many small hard cases", function()
      for seed = 1, 500 do
         local g = generator(seed)
         local n, dim, metric = 2 + g.below(30), 1 + g.below(3), ({ L2, L1 })[1 + seed % 2]
         -- heavy tails: outliers pull centres away from their rows
         local vectors = engine.floats(function() return g.normal() / (g.uniform() + 1e-3) end, n * dim)
         local options = options_of(metric, dim, 1 + g.below(n),
            { seed = seed, max_iterations = 1 + seed % 5 })
         check_promises(run(options, vectors, n), options, vectors, n)
      end
   end)

   it("keeps no cluster empty when the last move of the centres empties one", function()
      -- rare: these came out of a search over some 400,000 small inputs
      for _, case in ipairs({ { 36675, L1, 8, 3, 5 }, { 112299, L1, 13, 1, 9 }, { 128034, COSINE, 10, 2, 3 },
         { 362703, L1, 6, 2, 4 } }) do
         local seed, metric, n, dim, clusters = unpack(case)
         local g = generator(seed)
         for _ = 1, 3 do g.below(8) end -- the search drew the three sizes first
         local vectors = engine.floats(function() return g.normal() / (g.uniform() + 0.01) end, n * dim)
         local options = options_of(metric, dim, clusters,
            { seed = seed, max_iterations = 1, tolerance = 0 })
         check_promises(run(options, vectors, n), options, vectors, n)
      end
   end)

   it("copes with fewer distinct rows than clusters", function()
      for _, metric in ipairs({ L2, L1, COSINE, IP }) do
         local n, dim = 60, 2
         local distinct = { { 1, 0 }, { 0, 3 }, { -2, 0 } }
         local vectors = ffi.new("float[?]", n * dim)
         for row = 0, n - 1 do
            vectors[row * 2], vectors[row * 2 + 1] = unpack(distinct[row % 3 + 1])
         end
         local options = options_of(metric, dim, 10)
         local found = run(options, vectors, n)
         check_promises(found, options, vectors, n, true)
         assert.near(0, found.result.inertia, 1e-6)
         for i = 0, 10 * dim - 1 do assert(math.abs(found.centroids[i]) <= 3) end
      end
   end)

   it("copes with rows that are all zero, for every metric", function()
      for _, metric in ipairs({ L2, L1, COSINE, IP }) do
         local found = run(options_of(metric, 3, 4), ffi.new("float[30]"), 10)
         assert.equal(lib.RV_OK, found.status)
         for i = 0, 11 do assert.equal(0, found.centroids[i]) end
      end
   end)

   it("copes with values near the ends of float32", function()
      for _, factor in ipairs({ 1e38, 1e-38, 1e-44 }) do
         for _, metric in ipairs({ L2, L1, COSINE, IP }) do
            local g = generator(9)
            local vectors = engine.floats(function() return (g.uniform() - 0.5) * factor end, 60)
            local found = run(options_of(metric, 3, 4), vectors, 20)
            assert.equal(lib.RV_OK, found.status)
            for i = 0, 11 do assert(math.abs(found.centroids[i]) < math.huge) end
         end
      end
   end)

   it("lowers the inertia, or keeps it, with more iterations and with more clusters", function()
      local g = generator(10)
      local n, dim = 400, 4
      local vectors = engine.floats(function() return g.normal() end, n * dim)
      local last = math.huge
      for iterations = 1, 12 do
         local options = options_of(L2, dim, 12, { max_iterations = iterations, tolerance = 0 })
         local inertia = run(options, vectors, n).result.inertia
         assert(inertia <= last * (1 + 1e-6))
         last = inertia
      end
      local few = run(options_of(L2, dim, 4), vectors, n).result.inertia
      local many = run(options_of(L2, dim, 40), vectors, n).result.inertia
      assert(many < few)
   end)

   it("stops at max_iterations, and early by tolerance", function()
      local g = generator(12)
      local vectors = engine.floats(function() return g.normal() end, 500 * 4)
      local strict = options_of(L2, 4, 20, { tolerance = 0, max_iterations = 3 })
      assert.equal(3, run(strict, vectors, 500).result.iterations)
      local loose = options_of(L2, 4, 20, { tolerance = 1e6, max_iterations = 50 })
      assert.equal(1, run(loose, vectors, 500).result.iterations)
   end)

   it("is the same again for the same seed, and may differ for another", function()
      local g = generator(13)
      local n, dim = 300, 5
      local vectors = engine.floats(function() return g.normal() end, n * dim)
      local function outcome(seed)
         local found = run(options_of(COSINE, dim, 15, { seed = seed }), vectors, n)
         return ffi.string(found.centroids, 15 * dim * 4) .. ffi.string(found.assignment, n * 4)
      end
      assert.is_true(outcome(1) == outcome(1))
      assert.is_false(outcome(1) == outcome(2))
   end)

   it("needs neither assignment, nor result, nor message buffer", function()
      local vectors, count = blobs(5, 3, 20, 4, 1)
      local options = options_of(L2, 4, 3)
      local with = run(options, vectors, count)
      local centroids = ffi.new("float[12]")
      assert.equal(lib.RV_OK, tonumber(lib.rv_kmeans(engine.allocator, options, vectors, count,
         centroids, nil, nil, nil)))
      assert.equal(ffi.string(with.centroids, 48), ffi.string(centroids, 48))
   end)
end)

describe("k-means refuses", function()
   local function refuses(status, text, options, vectors, count)
      local found = run(options, vectors or engine.floats({ 1, 2, 3, 4 }), count or 2)
      assert.equal(status, found.status)
      assert.truthy(engine.message(found.err):find(text, 1, true), engine.message(found.err))
   end

   it("no rows", function() refuses(lib.RV_ERR_INVALID, "at least one row", options_of(L2, 2, 1), nil, 0) end)

   it("no clusters and no iterations", function()
      refuses(lib.RV_ERR_RANGE, "clusters is 0", options_of(L2, 2, 0))
      refuses(lib.RV_ERR_RANGE, "max_iterations is 0", options_of(L2, 2, 1, { max_iterations = 0 }))
   end)

   it("no dimensions, or too many", function()
      refuses(lib.RV_ERR_DIMENSION, "0 dimensions", options_of(L2, 0, 1))
      refuses(lib.RV_ERR_DIMENSION, "16001 dimensions: 1 to 16000", options_of(L2, 16001, 1))
   end)

   it("an unknown metric and a tolerance that is negative or NaN", function()
      refuses(lib.RV_ERR_INVALID, "9 is not a metric", options_of(ffi.cast("rv_metric", 9), 2, 1))
      refuses(lib.RV_ERR_RANGE, "tolerance is -1", options_of(L2, 2, 1, { tolerance = -1 }))
      refuses(lib.RV_ERR_RANGE, "tolerance is", options_of(L2, 2, 1, { tolerance = 0 / 0 }))
   end)

   it("rows that are not finite, naming element and row", function()
      for _, bad in ipairs({ math.huge, -math.huge, 0 / 0 }) do
         refuses(lib.RV_ERR_RANGE, "element 0 of row 1", options_of(L2, 2, 1),
            engine.floats({ 1, 2, bad, 4 }))
      end
   end)
end)

describe("the nearest centres of many rows", function()
   it("are those that the rows have one by one, ties going to the first", function()
      local g = generator(21)
      for _, dim in ipairs { 1, 7, 33 } do
         local rows, clusters = 37, 71
         local vectors = engine.floats(function() return g.normal() end, rows * dim)
         local centres = engine.floats(function() return g.normal() end, clusters * dim)
         for i = 0, dim - 1 do centres[(clusters - 1) * dim + i] = centres[i] end -- the last is the first
         local nearest, distance = ffi.new("uint32_t[?]", rows), ffi.new("float[?]", rows)
         local one, least = ffi.new("uint32_t[1]"), ffi.new("float[1]")
         for _, metric in ipairs { L2, L1, COSINE, IP } do
            lib.rv_nearest_centres(metric, vectors, rows, centres, clusters, dim, nearest, distance)
            for row = 0, rows - 1 do
               one[0], least[0] = 0, math.huge
               lib.rv_ivf_nearest(metric, vectors + row * dim, dim, centres, 4 * dim, clusters, 0, one, least)
               assert.equal(one[0], nearest[row])
               assert.equal(least[0], distance[row])
            end
         end
      end
   end)
end)

describe("k-means, asked to stop,", function()
   -- A callback may not be entered from compiled code.
   local function stop_at(poll, metric, a)
      local polls = 0
      local hook = ffi.cast("bool (*)(void *)", function()
         polls = polls + 1
         return polls == poll
      end)
      local count, dim = 5000, 2 -- more than one stretch of 4,096 rows
      local g = generator(14)
      local vectors = engine.floats(function() return g.normal() end, count * dim)
      local options = options_of(metric, dim, 3, { max_iterations = 2, tolerance = 0 })
      options.cancelled = hook
      jit.off(run)
      local found = run(options, vectors, count, a.allocator)
      hook:free()
      return found, polls
   end

   it("stops at each place where it asks, leaking nothing", function()
      for _, metric in ipairs({ L2, COSINE }) do
         local poll = 1
         while true do
            local a = ffi.new("rv_test_allocator")
            lib.rv_test_allocator_init(a, 0)
            local found, polls = stop_at(poll, metric, a)
            assert.equal(0, tonumber(a.live))
            if found.status == lib.RV_OK then
               -- inspection, 2 iterations, settling: twice each; 3 seeds, drawn from few of the rows
               assert(polls >= 2 * (1 + 2 + 1) + 3)
               break
            end
            assert.equal(lib.RV_ERR_CANCELLED, found.status)
            assert.equal(poll, polls)
            poll = poll + 1
         end
      end
   end)
end)

describe("k-means without memory", function()
   it("reports each failed allocation and leaks nothing", function()
      for _, metric in ipairs({ L2, COSINE }) do
         for _, own_assignment in ipairs({ true, false }) do
            local vectors, count = blobs(5, 3, 20, 4, 1)
            local options = options_of(metric, 4, 3)
            local centroids, assignment = ffi.new("float[12]"), ffi.new("uint32_t[?]", count)
            local fail_at = 1
            while true do
               local a, err = ffi.new("rv_test_allocator"), engine.error_buffer()
               lib.rv_test_allocator_init(a, fail_at)
               local status = tonumber(lib.rv_kmeans(a.allocator, options, vectors, count, centroids,
                  not own_assignment and assignment or nil, nil, err))
               assert.equal(0, tonumber(a.live))
               if status == lib.RV_OK then break end
               assert.equal(lib.RV_ERR_NOMEM, status)
               assert.truthy(engine.message(err):find("60 rows into 3 clusters", 1, true))
               fail_at = fail_at + 1
            end
            assert.equal(5 + (metric == COSINE and 1 or 0) + (own_assignment and 1 or 0), fail_at)
         end
      end
   end)
end)
