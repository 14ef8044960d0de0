-- ruvector 0.3.0: verdicts and extraction. How well each search was answered, and the policies.

-- complain if the script is sourced in psql, rather than by ALTER EXTENSION
\echo Use "ALTER EXTENSION ruvector UPDATE" to load this file. \quit

-- What the deep trace measured and the verdict policy said. Null is unknown throughout; efforts[i]
-- is the least effort that finds i true neighbours, infinite slack and -1 are out of reach. drawn is
-- false for searches that were traced only because of feedback: they speak for themselves alone.
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
    ADD COLUMN judged_at timestamptz,
    ADD COLUMN drawn boolean NOT NULL DEFAULT true,
    ADD COLUMN feedback_relevant real,
    ADD COLUMN feedback_irrelevant real,
    ADD COLUMN feedback_missed_near real,
    ADD COLUMN feedback_missed_far real,
    ADD COLUMN feedback_role oid;

-- Queries may be confidential: who owns a table sees the searches of its indexes, nobody else.
-- Operators are named with their schema, and operands have its own types, so that nothing that lies
-- in the extension's schema already can take their place.
CREATE VIEW ruvector_trajectories WITH (security_barrier) AS
    SELECT t.query_id, t.table_id, t.index_oid::pg_catalog.regclass AS index, t.searched_at,
           t.user_id::pg_catalog.regrole AS user_name, t.mode, t.k, t.ef_search, t.slack,
           t.target_recall, t.expected_recall, t.distances, t.hops, t.pages, t.latency_us, t.score,
           t.query, t.query_hash, t.recall, t.recall_exact, t.needed_distances, t.diversity,
           t.success, t.confidence, t.score_latency, t.score_recall, t.score_diversity,
           t.score_feedback, t.recommendations, t.judged_at, t.drawn, t.feedback_relevant,
           t.feedback_irrelevant, t.feedback_missed_near, t.feedback_missed_far,
           t.effort_slack, t.effort_ef, t.effort_distances
    FROM ruvector_trajectory_log t
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.table_id::pg_catalog.oid
    WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE');
GRANT SELECT ON ruvector_trajectories TO PUBLIC;
COMMENT ON VIEW ruvector_trajectories IS
    'recorded searches of the tables that the reader owns, the last trajectory_window of each index';
COMMENT ON COLUMN ruvector_trajectories.query_id IS
    'id of the search, as ruvector_last_query_id() gave it';
COMMENT ON COLUMN ruvector_trajectories.table_id IS 'table that was searched';
COMMENT ON COLUMN ruvector_trajectories.index IS 'index that was searched';
COMMENT ON COLUMN ruvector_trajectories.searched_at IS 'when the search began';
COMMENT ON COLUMN ruvector_trajectories.user_name IS 'role that searched';
COMMENT ON COLUMN ruvector_trajectories.mode IS 'static or adaptive';
COMMENT ON COLUMN ruvector_trajectories.k IS 'rows that were taken';
COMMENT ON COLUMN ruvector_trajectories.ef_search IS
    'static effort, or the hard bound of an adaptive search';
COMMENT ON COLUMN ruvector_trajectories.slack IS 'slack of the stop rule; 0 in a static search';
COMMENT ON COLUMN ruvector_trajectories.target_recall IS 'declared recall';
COMMENT ON COLUMN ruvector_trajectories.expected_recall IS 'recall that the bank promised';
COMMENT ON COLUMN ruvector_trajectories.distances IS 'distances computed';
COMMENT ON COLUMN ruvector_trajectories.hops IS 'nodes or lists expanded';
COMMENT ON COLUMN ruvector_trajectories.pages IS 'index pages read';
COMMENT ON COLUMN ruvector_trajectories.latency_us IS 'time inside the index, in microseconds';
COMMENT ON COLUMN ruvector_trajectories.score IS 'how hard the search looked after its first steps';
COMMENT ON COLUMN ruvector_trajectories.query IS
    'query as the index compares it; null when it is not kept';
COMMENT ON COLUMN ruvector_trajectories.query_hash IS
    'keyed hash in the place of the query; equal for equal queries while one worker runs';
COMMENT ON COLUMN ruvector_trajectories.recall IS 'share of the true neighbours that was returned';
COMMENT ON COLUMN ruvector_trajectories.recall_exact IS
    'measured against every row; false: against a search of large effort';
COMMENT ON COLUMN ruvector_trajectories.needed_distances IS
    'least distances that would have reached the declared recall';
COMMENT ON COLUMN ruvector_trajectories.diversity IS 'how far the results lie apart, 0 (copies) to 1';
COMMENT ON COLUMN ruvector_trajectories.success IS 'verdict: the search was good enough';
COMMENT ON COLUMN ruvector_trajectories.confidence IS 'how sure the verdict is, 0 to 1';
COMMENT ON COLUMN ruvector_trajectories.score_latency IS '0 (bad) to 1 (good)';
COMMENT ON COLUMN ruvector_trajectories.score_recall IS '0 (bad) to 1 (good)';
COMMENT ON COLUMN ruvector_trajectories.score_diversity IS '0 (bad) to 1 (good)';
COMMENT ON COLUMN ruvector_trajectories.score_feedback IS '0 (bad) to 1 (good); null without feedback';
COMMENT ON COLUMN ruvector_trajectories.recommendations IS 'what would help';
COMMENT ON COLUMN ruvector_trajectories.judged_at IS 'when the verdict was reached';
COMMENT ON COLUMN ruvector_trajectories.drawn IS
    'sampled whatever it was; false: traced because of feedback alone';
COMMENT ON COLUMN ruvector_trajectories.feedback_relevant IS
    'returned rows that users found relevant; one on which they disagree counts in parts';
COMMENT ON COLUMN ruvector_trajectories.feedback_irrelevant IS 'returned rows that users found irrelevant';
COMMENT ON COLUMN ruvector_trajectories.feedback_missed_near IS
    'relevant rows nearer than the last result that were not returned: index misses';
COMMENT ON COLUMN ruvector_trajectories.feedback_missed_far IS
    'relevant rows farther than the last result: embedding misses';
COMMENT ON COLUMN ruvector_trajectories.effort_slack IS
    'the least slack that finds 1, 2, ... true neighbours; infinite: out of reach';
COMMENT ON COLUMN ruvector_trajectories.effort_ef IS
    'the least ef that finds 1, 2, ... true neighbours; -1: out of reach';
COMMENT ON COLUMN ruvector_trajectories.effort_distances IS
    'a search that may compute more distances than these finds 1, 2, ... true neighbours; -1: out of reach';

-- Which policies were accepted last, and by whom.
CREATE TABLE ruvector_policy_state (
    kind text PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    file text NOT NULL,
    loaded_by name NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ruvector_policy_state IS 'policies that were accepted last';

CREATE FUNCTION ruvector_extract_patterns("table" regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'ruv_extract_patterns' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_extract_patterns(regclass) IS
    'learns at once everything that was recorded and said, or fails; returns the number of patterns';

-- Returns the new generation of the policies.
CREATE FUNCTION ruvector_reload_policies() RETURNS bigint
    AS 'MODULE_PATHNAME', 'ruv_reload_policies' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION ruvector_reload_policies() FROM PUBLIC;

COMMENT ON FUNCTION ruvector_reload_policies() IS
    'loads and tests the policy files, puts them in use, and returns their generation';

CREATE FUNCTION ruvector_policies(OUT policy text, OUT kind text, OUT name text, OUT version text,
                                  OUT file text, OUT checksum text, OUT serves boolean,
                                  OUT generation bigint, OUT calls bigint, OUT failures bigint,
                                  OUT failures_by_cause jsonb, OUT mean_us double precision,
                                  OUT worst_us double precision, OUT description text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_policies' LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ruvector_policies() IS 'policies in use, and how often they ran and failed';

-- Which policy serves a table or, without one, the database, and which runs in the shadow: rows
-- without an end. The others are the history.
CREATE TABLE ruvector_policy_choices (
    kind text NOT NULL,
    table_id regclass,
    role text NOT NULL CHECK (role IN ('serves', 'shadow')),
    policy text NOT NULL,
    since timestamptz NOT NULL,
    chosen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    chosen_by name NOT NULL,
    ended_at timestamptz,
    ended_by name,
    rolled_back boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX ruvector_policy_choices_present
    ON ruvector_policy_choices (kind, role, (coalesce(table_id::oid, 0::oid)))
    WHERE ended_at IS NULL;
SELECT pg_catalog.pg_extension_config_dump('ruvector_policy_choices', '');
COMMENT ON TABLE ruvector_policy_choices IS
    'which policies serve and which run in the shadow, now (rows without an end) and before';

-- What candidates in the shadow did; recall and distances are sums.
CREATE TABLE ruvector_policy_shadows (
    index_oid oid NOT NULL,
    table_id regclass NOT NULL,
    index_name name NOT NULL,
    kind text NOT NULL,
    policy text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    calls bigint NOT NULL,
    failures bigint NOT NULL,
    missing bigint NOT NULL,
    same bigint NOT NULL,
    active_successes bigint NOT NULL,
    candidate_successes bigint NOT NULL,
    active_recall double precision NOT NULL,
    candidate_recall double precision NOT NULL,
    active_distances double precision NOT NULL,
    candidate_distances double precision NOT NULL,
    PRIMARY KEY (index_oid, kind, policy)
);
COMMENT ON TABLE ruvector_policy_shadows IS 'how candidate policies compared with those that serve';

CREATE FUNCTION ruvector_set_policy("table" regclass, kind text, policy text) RETURNS void
    AS 'MODULE_PATHNAME', 'ruv_set_policy' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION ruvector_set_policy(regclass, text, text) IS
    'lets a policy of the directory serve a table; null: the one that serves the database';

CREATE FUNCTION ruvector_shadow_policy(kind text, policy text, "table" regclass DEFAULT NULL)
    RETURNS void
    AS 'MODULE_PATHNAME', 'ruv_shadow_policy' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION ruvector_shadow_policy(text, text, regclass) FROM PUBLIC;
COMMENT ON FUNCTION ruvector_shadow_policy(text, text, regclass) IS
    'runs a policy beside the one that serves, without effect; null: no longer';

CREATE FUNCTION ruvector_promote_policy(kind text, policy text DEFAULT NULL,
                                        "table" regclass DEFAULT NULL) RETURNS text
    AS 'MODULE_PATHNAME', 'ruv_promote_policy' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION ruvector_promote_policy(text, text, regclass) FROM PUBLIC;
COMMENT ON FUNCTION ruvector_promote_policy(text, text, regclass) IS
    'lets a policy, or the one in the shadow, serve from now on';

CREATE FUNCTION ruvector_rollback_policy(kind text, "table" regclass DEFAULT NULL) RETURNS text
    AS 'MODULE_PATHNAME', 'ruv_rollback_policy' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION ruvector_rollback_policy(text, regclass) FROM PUBLIC;
COMMENT ON FUNCTION ruvector_rollback_policy(text, regclass) IS
    'goes back to the policy that served before, and returns it';

CREATE FUNCTION ruvector_shadow_report(OUT kind text, OUT index regclass, OUT candidate text,
                                       OUT running boolean, OUT since timestamptz,
                                       OUT calls bigint, OUT failures bigint, OUT missing bigint,
                                       OUT same bigint, OUT different bigint,
                                       OUT active_successes bigint, OUT candidate_successes bigint,
                                       OUT active_recall double precision,
                                       OUT candidate_recall double precision,
                                       OUT active_distances double precision,
                                       OUT candidate_distances double precision)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_shadow_report' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION ruvector_shadow_report() FROM PUBLIC;
COMMENT ON FUNCTION ruvector_shadow_report() IS
    'how candidates in the shadow compare with the policies that serve';
