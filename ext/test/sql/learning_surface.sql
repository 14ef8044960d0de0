-- The SQL surface of learning: what is checked before anything is stored, and what is stored.

CREATE TABLE items (id bigint PRIMARY KEY, label text, embedding ruvector(3));
CREATE INDEX items_embedding ON items USING ruhnsw (embedding ruvector_l2_ops);

-- ranges
SELECT ruvector_enable_learning('items', trajectory_window => 9);
SELECT ruvector_enable_learning('items', trajectory_window => 100001);
SELECT ruvector_enable_learning('items', learning_rate => 0);
SELECT ruvector_enable_learning('items', learning_rate => 1.5);
SELECT ruvector_enable_learning('items', learning_rate => 'NaN');
SELECT ruvector_enable_learning('items', min_samples => 9);
SELECT ruvector_enable_learning('items', min_samples => 100001);
SELECT ruvector_enable_learning('items', trajectory_window => 50, min_samples => 51);
SELECT ruvector_enable_learning('items', id_column => 'nothing');
SELECT ruvector_enable_learning('items', id_column => 'label');
SELECT ruvector_enable_learning('items', id_column => 'ctid');
SELECT ruvector_enable_learning(NULL);
SELECT ruvector_enable_learning('no_such_table');
SELECT count(*) FROM ruvector_learning;

-- kinds of relations
CREATE TABLE parted (id bigint, embedding ruvector(3)) PARTITION BY RANGE (id);
CREATE VIEW looks AS SELECT * FROM items;
CREATE TEMP TABLE scratch (embedding ruvector(3));
SELECT ruvector_enable_learning('parted');
SELECT ruvector_enable_learning('looks');
SELECT ruvector_enable_learning('items_embedding');
SELECT ruvector_enable_learning('scratch');
SELECT ruvector_enable_learning('pg_class');

-- a table without an index may be enabled before it has one
CREATE TABLE bare (id int, embedding ruvector(3));
SELECT ruvector_enable_learning('bare');
SELECT count(*) FROM ruvector_learning_stats('bare');
SELECT ruvector_disable_learning('bare', forget => true);

-- defaults, settings and updates
SELECT ruvector_enable_learning('items');
SELECT table_id, trajectory_window, learning_rate, min_samples, id_column FROM ruvector_learning;
SET ruvector.learning_rate = 0.2;
SET ruvector.min_samples = 30;
SELECT ruvector_enable_learning('items', 400, id_column => 'id');
SELECT table_id, trajectory_window, learning_rate, min_samples, id_column FROM ruvector_learning;
SELECT ruvector_enable_learning('items', keep_queries => false);
SELECT ruvector_enable_learning('items');
SELECT keep_queries, enabled FROM ruvector_learning;
SELECT index, trajectory_window, keep_queries, oldest, stored_bytes, distances_saved
    FROM ruvector_learning_stats('items');
SELECT ruvector_enable_learning('items', keep_queries => true);
SELECT index, trajectories, judged, patterns, failures, last_error
    FROM ruvector_learning_stats('items');

-- nothing is recorded yet
SELECT ruvector_last_query_id() IS NULL AS none, ruvector_last_search() IS NULL AS nothing;
SELECT ruvector_extract_patterns('items');
SELECT ruvector_extract_patterns('bare');
SELECT ruvector_clear_learning('bare');

-- what a search would do
SELECT mode, reason, ef_search, slack, window_size, windows, target_recall, expected_recall, patterns
    FROM ruvector_get_search_params('items_embedding', '[1,2,3]', 100);
SELECT ruvector_get_search_params('items_embedding', '[1,2,3]', 0);
SELECT ruvector_get_search_params('items_embedding', '[1,2]');
SELECT ruvector_get_search_params('items_pkey', '[1,2,3]');
SELECT ruvector_get_search_params('items', '[1,2,3]');

-- what a search did
INSERT INTO items SELECT n, 'n' || n, ARRAY[n, n % 7, n % 3]::ruvector FROM generate_series(1, 100) n;
SET enable_seqscan = off;
SELECT id FROM items ORDER BY embedding <-> '[50,1,2]' LIMIT 3;
SELECT index, mode, reason, ef_search, slack, window_size, k, distances > 0 AS worked,
       windows, stopped_by FROM ruvector_last_search();
SELECT ruvector_last_query_id() = (SELECT query_id FROM ruvector_last_search()) AS same;

-- feedback
SELECT * FROM ruvector_record_feedback(NULL, '{1}');
SELECT * FROM ruvector_record_feedback('d3b07384-d113-4ec6-a2f4-7d1c1a1b1c1d', '{1}');
SELECT * FROM ruvector_record_feedback('00000000-0000-8000-8000-000000000001', '{1}');
\set VERBOSITY sqlstate
SELECT ruvector_refine_query(ruvector_last_query_id());
\set VERBOSITY default
SELECT ruvector_refine_query(ruvector_last_query_id(), alpha => NULL);
SELECT * FROM ruvector_record_feedback(ruvector_last_query_id(), '{50,99}', '{49,1}');
SELECT * FROM ruvector_record_feedback(ruvector_last_query_id(), '{99,50,50}', '{1,49}');
SELECT * FROM ruvector_record_feedback(ruvector_last_query_id(), '{50}', '{-1}');
SELECT * FROM ruvector_record_feedback(ruvector_last_query_id(), '{50,49}', '{49}');
SELECT * FROM ruvector_record_feedback(ruvector_last_query_id(), '{1000,2000}');
SELECT * FROM ruvector_record_feedback(ruvector_last_query_id(), '{1,NULL}');
SELECT ruvector_refine_query(ruvector_last_query_id(), beta => 1, gamma => 0);
SELECT ruvector_refine_query(ruvector_last_query_id(), gamma => 1001);
SELECT * FROM ruvector_record_feedback(ruvector_last_query_id(), NULL, NULL);
SELECT * FROM ruvector_record_feedback(ruvector_last_query_id(), '{}');
\set VERBOSITY sqlstate
SELECT ruvector_refine_query(ruvector_last_query_id());
\set VERBOSITY default

-- settings
SET ruvector.feedback_rate = 1;
SET ruvector.target_recall = 0.4;
SET ruvector.ef_search = 0;
SET ruvector.no_such_setting = 1;

-- policies
SELECT policy, kind, name, serves, length(checksum) AS checksum, failures, failures_by_cause FROM ruvector_policies();
SELECT ruvector_reload_policies() > 0 AS reloaded;
SELECT kind, name FROM ruvector_policy_state ORDER BY kind;
SET ruvector.policy_directory = '/nonexistent';
\set VERBOSITY terse
SELECT ruvector_reload_policies();
\set VERBOSITY default
RESET ruvector.policy_directory;

SELECT ruvector_disable_learning('items');
SELECT table_id, enabled FROM ruvector_learning;
SELECT ruvector_extract_patterns('items');
SELECT ruvector_disable_learning('items', forget => true);
SELECT count(*) FROM ruvector_learning;
SELECT ruvector_disable_learning('items');
