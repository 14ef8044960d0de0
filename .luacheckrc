std = "luajit"
max_line_length = 110
files["spec"] = { std = "+busted" }
files["policies"] = { std = "lua51", ignore = { "131" } }
files["examples/policies"] = { std = "lua51", ignore = { "131" } }
files["examples/policies/*_spec.lua"] = { std = "+busted" }
files["lua/library"] = { std = "lua51" }
exclude_files = { "build" }
