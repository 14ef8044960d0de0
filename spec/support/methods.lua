-- methods.lua - what the tests of races, crashes, corruption and soak need to know about an access
-- method, so that one body serves them all.
--
--   name        of the access method
--   with        storage parameters that make small pages of graph: much happens with few rows
--   exhaustive  settings with which a search that runs on to the end finds every row
--   soak        settings of the mixed load's searches
--   soak_recall mean recall at 10 that it must keep with these parameters and settings

return {
   ruhnsw = {
      name = "ruhnsw", with = "m = 4, ef_construction = 16",
      exhaustive = { ["ruvector.iterative_scan"] = "relaxed_order",
         ["ruvector.max_scan_tuples"] = "2147483647" }, soak = {}, soak_recall = 0.9,
   },
   ruivfflat = {
      name = "ruivfflat", with = "lists = 6, storage = fixed32",
      exhaustive = { ["ruvector.iterative_scan"] = "relaxed_order",
         ["ruvector.max_scan_tuples"] = "2147483647" }, soak = { ["ruvector.probes"] = "4" },
      soak_recall = 0.9,
   },
}
