-- ruvector 0.4.0: the bank and adaptive search.

-- complain if the script is sourced in psql, rather than by ALTER EXTENSION
\echo Use "ALTER EXTENSION ruvector UPDATE" to load this file. \quit

-- The bank: what was learned. The index-wide pattern has no centroid. The tables give slack, ef and
-- recall for the targets 0.50 0.70 0.80 0.85 0.90 0.93 0.95 0.97 0.98 0.99 0.995 0.999.
CREATE TABLE ruvector_patterns (
    index_oid oid NOT NULL,
    pattern_id bigint NOT NULL,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    index_epoch bigint NOT NULL,
    scope text NOT NULL CHECK (scope IN ('index', 'region')),
    centroid ruvector,
    k integer NOT NULL,
    samples integer NOT NULL,
    usage bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    optimal_ef_search integer NOT NULL,
    optimal_probes integer NOT NULL,
    target_recall real NOT NULL,
    slack real NOT NULL,
    expected_recall real NOT NULL,
    confidence real NOT NULL,
    radius real NOT NULL,
    mean_distances real NOT NULL,
    entry_points bigint[] NOT NULL,
    table_slack real[] NOT NULL,
    table_ef integer[] NOT NULL,
    table_recall real[] NOT NULL,
    PRIMARY KEY (index_oid, pattern_id)
);
COMMENT ON TABLE ruvector_patterns IS 'the bank: what was learned for each index and region';
SELECT pg_catalog.pg_extension_config_dump('ruvector_patterns', '');

-- Totals of each index since learning was enabled. The static_ and adaptive_ columns are sums over
-- searches of that mode; of recall, over the checked ones. The reference_ columns are of audits of
-- one build: searches that stood for the truth, and the sum of their recalls; former ones count less.
-- The cost_ columns are of one build too: recent means by doublings of k, for the planner.
CREATE TABLE ruvector_index_state (
    index_oid oid PRIMARY KEY,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    trajectories bigint NOT NULL,
    judged bigint NOT NULL,
    learning_seconds double precision NOT NULL,
    last_learned timestamptz,
    consolidated timestamptz,
    static_searches bigint NOT NULL DEFAULT 0,
    static_distances double precision NOT NULL DEFAULT 0,
    static_latency_us double precision NOT NULL DEFAULT 0,
    static_checked bigint NOT NULL DEFAULT 0,
    static_recall double precision NOT NULL DEFAULT 0,
    adaptive_searches bigint NOT NULL DEFAULT 0,
    adaptive_distances double precision NOT NULL DEFAULT 0,
    adaptive_latency_us double precision NOT NULL DEFAULT 0,
    adaptive_checked bigint NOT NULL DEFAULT 0,
    adaptive_recall double precision NOT NULL DEFAULT 0,
    reference_epoch bigint,
    reference_checks double precision,
    reference_recall double precision,
    cost_epoch bigint,
    cost_searches bigint[],
    cost_latency_us real[],
    cost_distances real[]
);
COMMENT ON TABLE ruvector_index_state IS 'totals of each index that learns';
SELECT pg_catalog.pg_extension_config_dump('ruvector_index_state', '');

-- Where past queries were answered: the entry points of similar ones. The flat form of the engine's
-- memory, one row per index. It holds queries and belongs to one build of an index, so it is not
-- dumped; what was learned is learned anew after a restore.
CREATE TABLE ruvector_memory (
    index_oid oid PRIMARY KEY,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    index_epoch bigint NOT NULL,
    flat bytea NOT NULL
);
COMMENT ON TABLE ruvector_memory IS 'remembered queries of each index and where they were answered';
ALTER TABLE ruvector_memory ALTER COLUMN flat SET STORAGE EXTERNAL;

-- How each index is searched: the engine's plan, as it is. It belongs to one build of an index, so it
-- is not dumped. ruvector_learning_levers() shows what is in it.
CREATE TABLE ruvector_search_plans (
    index_oid oid PRIMARY KEY,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    index_epoch bigint NOT NULL,
    plan bytea NOT NULL
);
COMMENT ON TABLE ruvector_search_plans IS 'which way each index is searched, and how hard';

-- Exact checks of adaptive searches as they were served, drawn evenly from all of them: what recall
-- certificates rest on. The last 3,000 per target and k of an index. They speak of one build, so
-- they are not dumped.
CREATE TABLE ruvector_recall_checks (
    index_oid oid NOT NULL,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    index_epoch bigint NOT NULL,
    target_recall double precision NOT NULL,
    k integer NOT NULL,
    searched_at timestamptz NOT NULL,
    recall real NOT NULL
);
COMMENT ON TABLE ruvector_recall_checks IS 'exact checks of searches, which recall certificates rest on';
CREATE INDEX ON ruvector_recall_checks (index_oid, target_recall, k, searched_at);

-- Rounds of learned links (documentation: ext/README.md). distances: mean over held-out searches at
-- equal recall. link_from and link_to: nodes, while a round is being applied.
CREATE TABLE ruvector_link_rounds (
    index_oid oid NOT NULL,
    round integer NOT NULL,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    index_epoch bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('applying', 'kept', 'rolled back', 'interrupted', 'reset')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    queries integer NOT NULL,
    links integer,
    held_out integer,
    distances_before double precision,
    distances_after double precision,
    link_from bigint[],
    link_to bigint[],
    PRIMARY KEY (index_oid, round)
);
COMMENT ON TABLE ruvector_link_rounds IS 'rounds of learned links: what was made, and whether it paid';

-- The same for people: who owns a table sees the rounds of its indexes.
CREATE VIEW ruvector_link_history WITH (security_barrier) AS
    SELECT r.table_id, r.index_oid::pg_catalog.regclass AS index, r.round, r.state, r.started_at,
           r.ended_at, r.queries, r.links, r.held_out, r.distances_before, r.distances_after,
           1 - r.distances_after / nullif(r.distances_before, 0) AS gain
    FROM ruvector_link_rounds r
    JOIN pg_catalog.pg_class c ON c.oid = r.table_id
    WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE');
COMMENT ON VIEW ruvector_link_history IS
    'rounds of learned links of the indexes of tables that one owns: searches used, links, distances before and after';
COMMENT ON COLUMN ruvector_link_history.table_id IS
    'table of the index';
COMMENT ON COLUMN ruvector_link_history.index IS
    'index that got links';
COMMENT ON COLUMN ruvector_link_history.round IS
    'number of the round, from 1';
COMMENT ON COLUMN ruvector_link_history.state IS
    'applying, kept, rolled back (it did not pay), interrupted (a crash or an error; its links were taken away) or reset (taken away by hand)';
COMMENT ON COLUMN ruvector_link_history.started_at IS
    'when its links were chosen';
COMMENT ON COLUMN ruvector_link_history.ended_at IS
    'when it was judged';
COMMENT ON COLUMN ruvector_link_history.queries IS
    'searches whose nearest rows it linked';
COMMENT ON COLUMN ruvector_link_history.links IS
    'links that it made';
COMMENT ON COLUMN ruvector_link_history.held_out IS
    'searches that judged it and took no part in it';
COMMENT ON COLUMN ruvector_link_history.distances_before IS
    'mean distances of these searches at equal recall, without the links';
COMMENT ON COLUMN ruvector_link_history.distances_after IS
    'the same with the links';
COMMENT ON COLUMN ruvector_link_history.gain IS
    'share of the distances that the links save';
GRANT SELECT ON ruvector_link_history TO PUBLIC;

CREATE FUNCTION ruvector_clear_learning("table" regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'ruv_clear_learning' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_clear_learning(regclass) IS
    'forgets what was learned for a table; learning goes on from nothing';
-- The database in which a table's rows are at home. Rows that came with a dump wait for their index,
-- which is made last; at home, those of an index that is gone are removed.
ALTER TABLE ruvector_learning ADD COLUMN home text;

-- Rows that come otherwise than by ruvector_enable_learning(), from a dump above all, ask for a worker
-- too.
CREATE FUNCTION ruvector_learning_changed() RETURNS trigger
    AS 'MODULE_PATHNAME', 'ruv_learning_changed' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION ruvector_learning_changed() IS 'trigger: asks for a learning worker';
CREATE TRIGGER ruvector_learning_changed AFTER INSERT ON ruvector_learning
    FOR EACH STATEMENT EXECUTE FUNCTION ruvector_learning_changed();
ALTER TABLE ruvector_learning ENABLE ALWAYS TRIGGER ruvector_learning_changed;

-- Patterns of one index. Both return how many regions went: merged into another at least so alike
-- (by the policy retention), or dropped since they were used less, or are known with less
-- confidence, than asked for. The index-wide pattern always stays.
CREATE FUNCTION ruvector_consolidate_patterns(index regclass,
                                              similarity double precision DEFAULT 0.95)
    RETURNS integer
    AS 'MODULE_PATHNAME', 'ruv_consolidate_patterns' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION ruvector_consolidate_patterns(regclass, double precision) IS
    'merges regions of an index that are alike; returns how many went';
CREATE FUNCTION ruvector_prune_patterns(index regclass, min_usage integer,
                                        min_confidence double precision) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruv_prune_patterns' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION ruvector_prune_patterns(regclass, integer, double precision) IS
    'drops regions of an index that serve little; returns how many went';

-- Patterns of a table's indexes as a document, and back. mode is merge or replace. state of an
-- index afterwards: certified (searches use the patterns), prior (to be checked against recorded
-- searches first) or empty. Superusers only, or a role that was granted EXECUTE: it is then trusted
-- with every table of the database.
CREATE FUNCTION ruvector_export_patterns("table" regclass) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'ruv_export_patterns' LANGUAGE C STABLE STRICT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION ruvector_export_patterns(regclass) FROM PUBLIC;
COMMENT ON FUNCTION ruvector_export_patterns(regclass) IS
    'what was learned for the indexes of a table, as a document';
CREATE FUNCTION ruvector_import_patterns("table" regclass, patterns jsonb,
                                         mode text DEFAULT 'merge', OUT index regclass,
                                         OUT taken integer, OUT left_out integer,
                                         OUT in_bank integer, OUT state text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_import_patterns' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION ruvector_import_patterns(regclass, jsonb, text) FROM PUBLIC;
COMMENT ON FUNCTION ruvector_import_patterns(regclass, jsonb, text) IS
    'takes a document of ruvector_export_patterns(), after checking all of it';

-- trajectories: searches recorded since learning was enabled; pending: recorded and not yet looked
-- at; judged: of these, traced and judged; samples: of these, kept for calibration. state is off,
-- starting, waiting (for more searches), learning, learned, rebuilt or failing.
CREATE FUNCTION ruvector_learning_stats("table" regclass, OUT index regclass, OUT state text,
                                        OUT trajectories bigint, OUT pending bigint,
                                        OUT judged bigint, OUT samples bigint,
                                        OUT success_rate double precision,
                                        OUT mean_recall double precision,
                                        OUT recall_low double precision,
                                        OUT recall_high double precision,
                                        OUT reference_recall double precision,
                                        OUT reference_checks bigint,
                                        OUT mean_distances double precision,
                                        OUT mean_latency_us double precision,
                                        OUT patterns bigint, OUT confidence double precision,
                                        OUT target_recall double precision,
                                        OUT slack double precision, OUT optimal_ef_search integer,
                                        OUT expected_recall double precision,
                                        OUT last_learned timestamptz, OUT links bigint,
                                        OUT links_rolled_back bigint,
                                        OUT links_gain double precision,
                                        OUT learning_seconds double precision,
                                        OUT bank_bytes bigint, OUT patterns_left_out bigint,
                                        OUT queries_left_out bigint, OUT ring_written bigint,
                                        OUT ring_dropped bigint, OUT ring_lost bigint,
                                        OUT ring_torn bigint, OUT shared_memory_bytes bigint,
                                        OUT worker_pid integer, OUT worker_state text,
                                        OUT failures bigint, OUT last_error text,
                                        OUT trajectory_window integer, OUT keep_queries boolean,
                                        OUT oldest timestamptz, OUT stored_bytes bigint,
                                        OUT latency_before_us double precision,
                                        OUT latency_after_us double precision,
                                        OUT distances_before double precision,
                                        OUT distances_after double precision,
                                        OUT distances_saved double precision,
                                        OUT recall_before double precision,
                                        OUT recall_after double precision)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_learning_stats' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_learning_stats(regclass) IS 'how far learning is, per index';

-- What searches use and what it was measured to cost, per index. Ways to search, for each number of rows (k)
-- that enough searches ask for, the most common first, and each target of the grid: lever is static (one effort for every search), slack (the distance-adaptive stop) or memory
-- (the same, begun at remembered entry points); effort is ef_search (for lists: probes) or the slack;
-- work the mean distances at equal recall, lookups included, share that work over the work of static;
-- in_reach tells whether the target was reached at all. lever regions: corrections by region, share
-- is their work over the work without. lever misses: effort is the ratio of misses in served searches to
-- those that their traces predict, which the aim answers for. lever guard: extra effort while what was learned is in doubt,
-- effort is the factor on log(1 + slack).
CREATE FUNCTION ruvector_learning_levers("table" regclass, OUT index regclass, OUT k integer,
                                         OUT target_recall double precision, OUT lever text,
                                         OUT active boolean, OUT effort double precision,
                                         OUT expected_recall double precision,
                                         OUT work double precision, OUT share double precision,
                                         OUT in_reach boolean, OUT queries integer,
                                         OUT decided_at timestamptz)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_learning_levers' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_learning_levers(regclass) IS
    'what searches use, and what each way was measured to cost';

-- What a search for k rows would do now: windows is how many windows of window_size results it
-- would need, ef_search the static effort or the hard bound of an adaptive search.
CREATE FUNCTION ruvector_get_search_params(index regclass, query ruvector, k integer DEFAULT 10,
                                           OUT mode text, OUT reason text, OUT ef_search integer,
                                           OUT slack double precision, OUT probes integer,
                                           OUT window_size integer, OUT windows integer,
                                           OUT target_recall double precision,
                                           OUT expected_recall double precision,
                                           OUT confidence double precision, OUT patterns integer,
                                           OUT max_distances bigint) RETURNS record
    AS 'MODULE_PATHNAME', 'ruv_get_search_params' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

COMMENT ON FUNCTION ruvector_get_search_params(regclass, ruvector, integer) IS
    'what a search would do now';

-- What exact checks say of the recall of an index, per declared target and number of rows taken. The
-- interval is of the mean, share_low bounds the share of searches that reached the target (both at
-- 95%). verdict: certified (the mean is shown to be at least target - 0.01), not yet, below target,
-- or stale: index rebuilt.
CREATE FUNCTION ruvector_recall_certificate(index regclass, OUT target_recall double precision,
                                            OUT k integer, OUT queries bigint,
                                            OUT mean_recall double precision,
                                            OUT recall_low double precision,
                                            OUT recall_high double precision,
                                            OUT share_at_target double precision,
                                            OUT share_low double precision,
                                            OUT since timestamptz, OUT until timestamptz,
                                            OUT verdict text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_recall_certificate' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_recall_certificate(regclass) IS
    'what exact checks say of the recall of an index';

-- What the settings of an index were before each tuning, for its undoing. 0 is not set. Names an
-- index by its oid, so it is not dumped; the settings themselves are.
CREATE TABLE ruvector_tunings (
    index_oid oid NOT NULL,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    optimized_for text NOT NULL,
    effort_name text NOT NULL,
    former_effort integer NOT NULL,
    former_target_recall double precision NOT NULL,
    tuned_by name NOT NULL,
    tuned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (index_oid, tuned_at)
);
COMMENT ON TABLE ruvector_tunings IS 'settings of indexes before they were tuned';

-- Measures recall and work of an index at rising efforts, and gives it the one that fits the goal,
-- as its own storage parameters. Returns the measured curve.
CREATE FUNCTION ruvector_auto_tune(index regclass, optimize_for text DEFAULT 'balanced',
                                   sample_queries integer DEFAULT 1000, OUT parameter text,
                                   OUT value integer, OUT recall double precision,
                                   OUT distances double precision,
                                   OUT latency_us double precision, OUT queries integer,
                                   OUT measured_with text, OUT chosen boolean,
                                   OUT target_recall double precision) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_auto_tune' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_auto_tune(regclass, text, integer) IS
    'measures an index and sets its effort for a goal: recall, latency or balanced';

CREATE FUNCTION ruvector_auto_tune_undo(index regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'ruv_auto_tune_undo' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_auto_tune_undo(regclass) IS
    'gives an index the settings back that it had before it was last tuned';

-- Recall and work of searches against a ground truth: a table with the columns query, of the searched
-- column's type, and neighbours bigint[], primary keys of the true neighbours, nearest first.
CREATE FUNCTION ruvector_benchmark_recall(table_name regclass, ground_truth_table regclass,
                                          num_queries integer DEFAULT 1000,
                                          k integer DEFAULT 10, OUT index regclass,
                                          OUT setting text, OUT queries integer,
                                          OUT recall double precision,
                                          OUT recall_low double precision,
                                          OUT recall_high double precision,
                                          OUT least_recall double precision,
                                          OUT distances double precision,
                                          OUT latency_us double precision) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_benchmark_recall' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_benchmark_recall(regclass, regclass, integer, integer) IS
    'measures recall and work of searches against a ground truth';

CREATE FUNCTION ruvector_benchmark_latency(table_name regclass, num_queries integer DEFAULT 1000,
                                           k integer DEFAULT 10,
                                           percentiles double precision[]
                                               DEFAULT '{0.5,0.95,0.99}',
                                           OUT percentile double precision,
                                           OUT latency_us double precision,
                                           OUT distances double precision, OUT queries integer,
                                           OUT measured_with text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_benchmark_latency' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_benchmark_latency(regclass, integer, integer, double precision[]) IS
    'measures quantiles of the time and the work of searches';

-- Where a column has both a ruhnsw and a ruivfflat index: which one the planner prefers for k rows
-- under conditions that leave this share of the table, and why.
CREATE FUNCTION ruvector_explain_selection("table" regclass, k integer DEFAULT 10,
                                           selectivity double precision DEFAULT 1,
                                           OUT index regclass, OUT method text,
                                           OUT preferred boolean,
                                           OUT predicted_cost double precision,
                                           OUT planner_cost double precision,
                                           OUT searches double precision,
                                           OUT latency_us double precision,
                                           OUT distances double precision,
                                           OUT recall double precision, OUT reason text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_explain_selection' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

COMMENT ON FUNCTION ruvector_explain_selection(regclass, integer, double precision) IS
    'which of two indexes on a column the planner prefers, and why';

-- Parameters for the indexes of a table (without one: for a new index), with the reason for each and
-- the figures it rests on.
CREATE FUNCTION ruvector_recommend_params("table" regclass, OUT index regclass, OUT parameter text,
                                          OUT current text, OUT recommended text, OUT reason text,
                                          OUT evidence text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_recommend_params' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_recommend_params(regclass) IS
    'which parameters the indexes of a table should have, and why';

-- What the stored searches of each index look like. k_values and k_searches: which numbers of rows
-- were taken, and how often, the most common first. exact_share: of the recalls, how many were
-- measured against every row. hard_share: queries that needed more than three times the median of
-- the needed work, or more than a deep trace looks at. repeated_share: searches whose query had been
-- asked before. drift: how far the newest quarter lies from the nearest pattern, mean over the
-- queries of max(0, 1 - radius / distance): 0 within the regions that were learned (a radius holds
-- nine in ten of its queries), towards 1 far from all of them; null without region patterns.
CREATE FUNCTION ruvector_analyze_patterns("table" regclass, OUT index regclass,
                                          OUT searches bigint, OUT since timestamptz,
                                          OUT until timestamptz, OUT k_values integer[],
                                          OUT k_searches bigint[],
                                          OUT latency_p50_us double precision,
                                          OUT latency_p95_us double precision,
                                          OUT latency_p99_us double precision,
                                          OUT distances_p50 double precision,
                                          OUT distances_p95 double precision,
                                          OUT distances_p99 double precision,
                                          OUT mean_recall double precision,
                                          OUT recall_low double precision,
                                          OUT recall_high double precision,
                                          OUT exact_share double precision,
                                          OUT hard_share double precision,
                                          OUT repeated_share double precision,
                                          OUT drift double precision)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_analyze_patterns' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_analyze_patterns(regclass) IS
    'what the recent searches of each index look like, and whether they have drifted';
