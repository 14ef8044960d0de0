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

-- Totals of each index since learning was enabled.
CREATE TABLE ruvector_index_state (
    index_oid oid PRIMARY KEY,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    trajectories bigint NOT NULL,
    judged bigint NOT NULL,
    learning_seconds double precision NOT NULL,
    last_learned timestamptz,
    consolidated timestamptz
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

CREATE FUNCTION ruvector_clear_learning("table" regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'ruv_clear_learning' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_clear_learning(regclass) IS
    'forgets what was learned for a table; learning goes on from nothing';

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
                                        OUT mean_distances double precision,
                                        OUT mean_latency_us double precision,
                                        OUT patterns bigint, OUT confidence double precision,
                                        OUT target_recall double precision,
                                        OUT slack double precision, OUT optimal_ef_search integer,
                                        OUT expected_recall double precision,
                                        OUT last_learned timestamptz,
                                        OUT learning_seconds double precision,
                                        OUT bank_bytes bigint, OUT ring_written bigint,
                                        OUT ring_dropped bigint, OUT ring_lost bigint,
                                        OUT ring_torn bigint, OUT shared_memory_bytes bigint,
                                        OUT worker_pid integer, OUT worker_state text,
                                        OUT failures bigint, OUT last_error text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_learning_stats' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_learning_stats(regclass) IS 'how far learning is, per index';

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
