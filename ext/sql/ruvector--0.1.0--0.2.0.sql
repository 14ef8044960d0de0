-- ruvector 0.2.0: tracking. Which tables learn, what was searched, and how the last search went.

-- complain if the script is sourced in psql, rather than by ALTER EXTENSION
\echo Use "ALTER EXTENSION ruvector UPDATE" to load this file. \quit

-- Tables that learn, or did (enabled = false) and what was learned is kept. Dumped, so that a restored
-- database goes on learning.
CREATE TABLE ruvector_learning (
    table_id regclass PRIMARY KEY,
    trajectory_window integer NOT NULL,
    learning_rate double precision NOT NULL,
    min_samples integer NOT NULL,
    id_column name,
    enabled_at timestamptz NOT NULL DEFAULT now(),
    enabled_by name NOT NULL,
    keep_queries boolean NOT NULL DEFAULT true,
    enabled boolean NOT NULL DEFAULT true
);
COMMENT ON TABLE ruvector_learning IS 'tables that learn, and how';
SELECT pg_catalog.pg_extension_config_dump('ruvector_learning', '');

-- Searches that were sampled, the last trajectory_window of each index. An index is named by oid and,
-- for one that is made again or restored, by table and name. result_ids are heap positions (block times
-- 65,536 plus offset), result_distances as the index compares (L2: squared).
CREATE TABLE ruvector_trajectory_log (
    query_id uuid PRIMARY KEY,
    table_id regclass NOT NULL,
    index_oid oid NOT NULL,
    index_name name NOT NULL,
    index_epoch bigint NOT NULL,
    searched_at timestamptz NOT NULL,
    user_id oid NOT NULL,
    mode text NOT NULL,
    k integer NOT NULL,
    ef_search integer NOT NULL,
    slack real NOT NULL,
    target_recall real NOT NULL,
    expected_recall real,
    distances bigint NOT NULL,
    hops bigint NOT NULL,
    pages bigint NOT NULL,
    latency_us real NOT NULL,
    score real,
    query ruvector,
    query_hash bytea,
    result_ids bigint[],
    result_distances real[]
);
COMMENT ON TABLE ruvector_trajectory_log IS
    'recorded searches; ruvector_trajectories shows to each owner those of their tables';
CREATE INDEX ruvector_trajectory_log_index ON ruvector_trajectory_log (index_oid, searched_at);
SELECT pg_catalog.pg_extension_config_dump('ruvector_trajectory_log', '');

-- What was said of a search, one row per search and role, by the table's own ids: rows that were
-- returned, relevant rows that were not (nearer or farther than the last result), and irrelevant ones
-- that were not. pending: no stored verdict knows of this revision yet. Not dumped: what was learned
-- from it is in the trajectories, and the oids of roles mean nothing elsewhere.
CREATE TABLE ruvector_feedback (
    query_id uuid NOT NULL,
    user_id oid NOT NULL,
    table_id regclass NOT NULL,
    index_oid oid NOT NULL,
    index_name name NOT NULL,
    given_at timestamptz NOT NULL,
    revision integer NOT NULL,
    pending boolean NOT NULL,
    relevant bigint[] NOT NULL,
    irrelevant bigint[] NOT NULL,
    missed_near bigint[] NOT NULL,
    missed_far bigint[] NOT NULL,
    irrelevant_unseen bigint[] NOT NULL,
    PRIMARY KEY (query_id, user_id)
);
COMMENT ON TABLE ruvector_feedback IS 'what roles have said about the results of searches';
CREATE INDEX ruvector_feedback_rate ON ruvector_feedback (user_id, given_at);
CREATE INDEX ruvector_feedback_pending ON ruvector_feedback (given_at) WHERE pending;

-- "table" may be omitted in positional calls, as everywhere in the documentation. keep_queries null
-- leaves it as it is, true for a new table; false: no vector or hash of a query reaches a table, and
-- what was learned from kept ones is forgotten.
CREATE FUNCTION ruvector_enable_learning("table" regclass, trajectory_window integer DEFAULT 1000,
                                         learning_rate double precision DEFAULT NULL,
                                         min_samples integer DEFAULT NULL,
                                         id_column name DEFAULT NULL,
                                         keep_queries boolean DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'ruv_enable_learning' LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_enable_learning(regclass, integer, double precision, integer, name,
    boolean) IS
    'records searches of a table and learns from them';

CREATE FUNCTION ruvector_disable_learning("table" regclass, forget boolean DEFAULT false) RETURNS void
    AS 'MODULE_PATHNAME', 'ruv_disable_learning' LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_disable_learning(regclass, boolean) IS
    'ends recording, learning and adaptive search of a table, and forgets what was learned if asked';

CREATE FUNCTION ruvector_last_query_id() RETURNS uuid
    AS 'MODULE_PATHNAME', 'ruv_last_query_id' LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ruvector_last_query_id() IS 'the id of this session''s last search through an index';

CREATE FUNCTION ruvector_last_search(OUT query_id uuid, OUT index regclass, OUT mode text,
                                     OUT reason text, OUT ef_search integer,
                                     OUT slack double precision, OUT window_size integer,
                                     OUT target_recall double precision,
                                     OUT expected_recall double precision,
                                     OUT patterns_used integer, OUT k integer,
                                     OUT distances bigint, OUT hops bigint, OUT pages bigint,
                                     OUT windows integer, OUT stopped_by text,
                                     OUT latency_us double precision, OUT score double precision,
                                     OUT entry_points integer) RETURNS record
    AS 'MODULE_PATHNAME', 'ruv_last_search_row' LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ruvector_last_search() IS 'what this session''s last search through an index chose and did';

-- relevant, irrelevant: ids taken over that were among the results, or irrelevant anyway; missed_near:
-- relevant, nearer than the last result and not returned (the index missed them); missed_far: farther.
-- status is recorded, replaced, unchanged or withdrawn.
CREATE FUNCTION ruvector_record_feedback(query_id uuid, relevant_ids bigint[],
                                         irrelevant_ids bigint[] DEFAULT '{}', OUT status text,
                                         OUT relevant integer, OUT irrelevant integer,
                                         OUT missed_near integer, OUT missed_far integer,
                                         OUT unknown_ids bigint[], OUT note text) RETURNS record
    AS 'MODULE_PATHNAME', 'ruv_record_feedback' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION ruvector_record_feedback(uuid, bigint[], bigint[]) IS
    'says which rows were relevant to a search, and which were not';

-- The query of a search, moved by the feedback that the caller has given on it (Rocchio).
CREATE FUNCTION ruvector_refine_query(query_id uuid, alpha double precision DEFAULT 1.0,
                                      beta double precision DEFAULT 0.75,
                                      gamma double precision DEFAULT 0.15) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_refine_query' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION ruvector_refine_query(uuid, double precision, double precision, double precision) IS
    'the query of a search, moved by the feedback that the caller has given on it';
