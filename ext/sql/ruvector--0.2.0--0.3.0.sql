-- ruvector 0.3.0: verdicts and extraction. How well each search was answered, and the policies.

-- complain if the script is sourced in psql, rather than by ALTER EXTENSION
\echo Use "ALTER EXTENSION ruvector UPDATE" to load this file. \quit

-- What the deep trace measured and the verdict policy said. Null is unknown throughout; efforts[i]
-- is the least effort that finds i true neighbours, infinite slack and -1 are out of reach.
ALTER TABLE ruvector_trajectory_log
    ADD COLUMN recall real,
    ADD COLUMN recall_exact boolean,
    ADD COLUMN needed_distances real,
    ADD COLUMN diversity real,
    ADD COLUMN success boolean,
    ADD COLUMN confidence real,
    ADD COLUMN score_latency real,
    ADD COLUMN score_recall real,
    ADD COLUMN score_diversity real,
    ADD COLUMN score_feedback real,
    ADD COLUMN recommendations text[],
    ADD COLUMN nearest bigint[],
    ADD COLUMN effort_slack real[],
    ADD COLUMN effort_ef integer[],
    ADD COLUMN effort_distances integer[],
    ADD COLUMN judged_at timestamptz;

-- Queries may be confidential: who owns a table sees the searches of its indexes, nobody else.
-- Operators are named with their schema, and operands have its own types, so that nothing that lies
-- in the extension's schema already can take their place.
CREATE VIEW ruvector_trajectories WITH (security_barrier) AS
    SELECT t.query_id, t.table_id, t.index_oid::pg_catalog.regclass AS index, t.searched_at,
           t.user_id::pg_catalog.regrole AS user_name, t.mode, t.k, t.ef_search, t.slack,
           t.target_recall, t.expected_recall, t.distances, t.hops, t.pages, t.latency_us, t.score,
           t.query, t.query_hash, t.recall, t.recall_exact, t.needed_distances, t.diversity,
           t.success, t.confidence, t.score_latency, t.score_recall, t.score_diversity,
           t.score_feedback, t.recommendations, t.judged_at
    FROM ruvector_trajectory_log t
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.table_id::pg_catalog.oid
    WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE');
GRANT SELECT ON ruvector_trajectories TO PUBLIC;

-- Which policies were accepted last, and by whom.
CREATE TABLE ruvector_policy_state (
    kind text PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    file text NOT NULL,
    loaded_by name NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION ruvector_extract_patterns("table" regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'ruv_extract_patterns' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

-- Returns the new generation of the policies.
CREATE FUNCTION ruvector_reload_policies() RETURNS bigint
    AS 'MODULE_PATHNAME', 'ruv_reload_policies' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION ruvector_reload_policies() FROM PUBLIC;

CREATE FUNCTION ruvector_policies(OUT name text, OUT kind text, OUT version text, OUT file text,
                                  OUT state text, OUT generation bigint, OUT calls bigint,
                                  OUT failures bigint, OUT mean_us double precision,
                                  OUT worst_us double precision, OUT description text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_policies' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
