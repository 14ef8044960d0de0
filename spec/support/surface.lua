-- surface.lua - every function, table and view of the extension, and who may use it.
--
-- Whoever adds an object to the SQL scripts adds it here: privileges_spec.lua fails for an object that
-- is not listed, and for a right that is not as it is listed.
--
-- A function is PUBLIC_FUNCTIONS's when anybody may call it with anything and learns nothing that is
-- not theirs. Any other is GUARDED's, with a call and with what is expected of it:
--
--   call             an expression; the table of the spec is `items`, its index `items_embedding`
--   who              who is let in: a key of M.ADMITTED
--   standby          "works" there, or "refuses" as a change in a read-only server (25006)
--   without_preload  "works" when shared_preload_libraries lacks ruvector, or "refuses" (55000)
--
-- Being let in means any outcome but "permission denied": another error is the function's own affair.

local M = {}

--- Which of the spec's roles each word of `who` lets in.
--   owner    owns items                    reader    may SELECT from it, under row-level security
--   monitor  is a member of pg_monitor     stranger  owns another table, and has no right on this one
M.ADMITTED = {
   superusers = { superuser = true },
   owners = { superuser = true, owner = true },
   readers = { superuser = true, owner = true, reader = true },
   monitors = { superuser = true, owner = true, reader = true, monitor = true },
   owners_and_monitors = { superuser = true, owner = true, monitor = true },
}

--- Signatures as regprocedure prints them, by what they are.
M.PUBLIC_FUNCTIONS = {
   ["the type"] = {
      "ruvector_in(cstring,oid,integer)", "ruvector_out(ruvector)", "ruvector_recv(internal,oid,integer)",
      "ruvector_send(ruvector)", "ruvector_typmod_in(cstring[])", "ruvector(ruvector,integer,boolean)",
      "array_to_ruvector(integer[],integer,boolean)", "array_to_ruvector(real[],integer,boolean)",
      "array_to_ruvector(double precision[],integer,boolean)",
      "array_to_ruvector(numeric[],integer,boolean)", "ruvector_to_float4(ruvector)",
      "ruvector_to_float8(ruvector)", "ruvector_to_int4(ruvector)", "ruvector_to_numeric(ruvector)",
   },
   ["arithmetic of vectors"] = {
      "l2_distance(ruvector,ruvector)", "inner_product(ruvector,ruvector)",
      "ruvector_negative_inner_product(ruvector,ruvector)", "cosine_distance(ruvector,ruvector)",
      "l1_distance(ruvector,ruvector)", "ruvector_dims(ruvector)", "ruvector_norm(ruvector)",
      "l2_normalize(ruvector)", "subvector(ruvector,integer,integer)", "ruvector_add(ruvector,ruvector)",
      "ruvector_sub(ruvector,ruvector)", "ruvector_mul(ruvector,ruvector)",
      "ruvector_concat(ruvector,ruvector)", "ruvector_lt(ruvector,ruvector)",
      "ruvector_le(ruvector,ruvector)", "ruvector_eq(ruvector,ruvector)", "ruvector_ne(ruvector,ruvector)",
      "ruvector_ge(ruvector,ruvector)", "ruvector_gt(ruvector,ruvector)",
      "ruvector_cmp(ruvector,ruvector)", "ruvector_accum(double precision[],ruvector)",
      "ruvector_combine(double precision[],double precision[])", "ruvector_avg(double precision[])",
      "ruvector_sum(double precision[])", "avg(ruvector)", "sum(ruvector)",
   },
   ["the access methods (called by PostgreSQL only)"] = {
      "ruhnswhandler(internal)", "ruhnsw_metric_l2(internal)", "ruhnsw_metric_ip(internal)",
      "ruhnsw_metric_cosine(internal)", "ruhnsw_metric_l1(internal)", "ruivfflathandler(internal)",
      "ruivfflat_metric_l2(internal)", "ruivfflat_metric_ip(internal)", "ruivfflat_metric_cosine(internal)",
      "ruivfflat_metric_l1(internal)",
   },
   ["the searches of the caller's own session"] = {
      "ruvector_last_query_id()", "ruvector_last_search()",
   },
   ["searches that the caller may judge (others do not exist for them)"] = {
      "ruvector_record_feedback(uuid,bigint[],bigint[])",
      "ruvector_refine_query(uuid,double precision,double precision,double precision)",
   },
   ["the trigger of a learning table"] = {
      "ruvector_learning_changed()",
   },
   ["the policies: their names and how often they ran"] = {
      "ruvector_policies()",
   },
}

local function guarded(who, standby, without_preload, call)
   return { who = who, standby = standby, without_preload = without_preload, call = call }
end

M.GUARDED = {
   ["ruvector_index_verify(regclass,boolean)"] =
      guarded("owners", "works", "works", "ruvector_index_verify('items_embedding')"),
   ["ruvector_heal_index(regclass,boolean)"] =
      guarded("owners", "refuses", "works", "ruvector_heal_index('items_embedding')"),
   ["ruvector_enable_learning(regclass,integer,double precision,integer,name,boolean)"] =
      guarded("owners", "refuses", "refuses", "ruvector_enable_learning('items')"),
   ["ruvector_disable_learning(regclass,boolean)"] =
      guarded("owners", "refuses", "refuses", "ruvector_disable_learning('items')"),
   ["ruvector_clear_learning(regclass)"] =
      guarded("owners", "refuses", "refuses", "ruvector_clear_learning('items')"),
   ["ruvector_extract_patterns(regclass)"] =
      guarded("owners", "refuses", "refuses", "ruvector_extract_patterns('items')"),
   ["ruvector_consolidate_patterns(regclass,double precision)"] =
      guarded("owners", "refuses", "refuses", "ruvector_consolidate_patterns('items_embedding')"),
   ["ruvector_prune_patterns(regclass,integer,double precision)"] =
      guarded("owners", "refuses", "refuses", "ruvector_prune_patterns('items_embedding', 1, 0.5)"),
   ["ruvector_export_patterns(regclass)"] =
      guarded("superusers", "works", "refuses", "ruvector_export_patterns('items')"),
   ["ruvector_import_patterns(regclass,jsonb,text)"] =
      guarded("superusers", "refuses", "refuses", "ruvector_import_patterns('items', '{}')"),
   ["ruvector_learning_stats(regclass)"] =
      guarded("monitors", "works", "refuses", "ruvector_learning_stats('items')"),
   ["ruvector_learning_levers(regclass)"] =
      guarded("monitors", "works", "refuses", "ruvector_learning_levers('items')"),
   ["ruvector_get_search_params(regclass,ruvector,integer)"] =
      guarded("readers", "works", "works", "ruvector_get_search_params('items_embedding', '[1,2,3]')"),
   ["ruvector_analyze_patterns(regclass)"] =
      guarded("owners_and_monitors", "works", "refuses", "ruvector_analyze_patterns('items')"),
   ["ruvector_recall_certificate(regclass)"] =
      guarded("owners", "works", "refuses", "ruvector_recall_certificate('items_embedding')"),
   ["ruvector_auto_tune(regclass,text,integer)"] =
      guarded("owners", "refuses", "works", "ruvector_auto_tune('items_embedding')"),
   ["ruvector_auto_tune_undo(regclass)"] =
      guarded("owners", "refuses", "works", "ruvector_auto_tune_undo('items_embedding')"),
   ["ruvector_benchmark_recall(regclass,regclass,integer,integer)"] =
      guarded("readers", "works", "works", "ruvector_benchmark_recall('items', 'items')"),
   ["ruvector_benchmark_latency(regclass,integer,integer,double precision[])"] =
      guarded("readers", "works", "works", "ruvector_benchmark_latency('items')"),
   ["ruvector_explain_selection(regclass,integer,double precision)"] =
      guarded("monitors", "works", "works", "ruvector_explain_selection('items')"),
   ["ruvector_set_policy(regclass,text,text)"] =
      guarded("owners", "refuses", "refuses", "ruvector_set_policy('items', 'verdict', 'verdict')"),
   ["ruvector_shadow_policy(text,text,regclass)"] =
      guarded("superusers", "refuses", "refuses", "ruvector_shadow_policy('verdict', 'verdict')"),
   ["ruvector_promote_policy(text,text,regclass)"] =
      guarded("superusers", "refuses", "refuses", "ruvector_promote_policy('verdict', 'verdict')"),
   ["ruvector_rollback_policy(text,regclass)"] =
      guarded("superusers", "refuses", "refuses", "ruvector_rollback_policy('verdict')"),
   ["ruvector_shadow_report()"] =
      guarded("superusers", "works", "works", "ruvector_shadow_report()"),
   ["ruvector_recommend_params(regclass)"] =
      guarded("monitors", "works", "works", "ruvector_recommend_params('items')"),
   ["ruvector_reload_policies()"] =
      guarded("superusers", "works", "works", "ruvector_reload_policies()"),
}

--- Relations: "private" gives nobody but its owner any right, "readable" gives everybody SELECT and
-- shows each only what is theirs.
M.RELATIONS = {
   ruvector_learning = "private",
   ruvector_trajectory_log = "private",
   ruvector_feedback = "private",
   ruvector_patterns = "private",
   ruvector_index_state = "private",
   ruvector_memory = "private",
   ruvector_tunings = "private",
   ruvector_search_plans = "private",
   ruvector_policy_state = "private",
   ruvector_policy_choices = "private",
   ruvector_policy_shadows = "private",
   ruvector_recall_checks = "private",
   ruvector_link_rounds = "private",
   ruvector_trajectories = "readable",
   ruvector_link_history = "readable",
}

--- The guarded functions in order of their signatures: an iterator of (signature, what is expected).
function M.each_guarded()
   local signatures = {}
   for signature in pairs(M.GUARDED) do signatures[#signatures + 1] = signature end
   table.sort(signatures)
   local i = 0
   return function()
      i = i + 1
      return signatures[i], M.GUARDED[signatures[i]]
   end
end

return M
