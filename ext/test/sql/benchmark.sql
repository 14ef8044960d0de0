-- Benchmarks as SQL functions: arguments, rights, and figures that can be told in advance.

CREATE TABLE items (id integer PRIMARY KEY, embedding ruvector(2));
INSERT INTO items SELECT n, ARRAY[n, 0]::ruvector FROM generate_series(1, 500) n;
CREATE TABLE truth (query ruvector, neighbours bigint[]);
INSERT INTO truth SELECT ARRAY[n, 1]::ruvector, ARRAY(SELECT i.id::bigint FROM items i
    ORDER BY l2_distance(i.embedding, ARRAY[n, 1]::ruvector), i.id LIMIT 12) FROM generate_series(20, 400, 20) n;

-- without an index
SELECT * FROM ruvector_benchmark_recall('items', 'truth');
SELECT * FROM ruvector_benchmark_latency('items');
CREATE INDEX graph ON items USING ruhnsw (embedding ruvector_l2_ops);
ANALYZE items;

-- points on a line: every search finds all
SELECT index, setting, queries, recall, recall_low > 0 AS bounded, recall_high, least_recall,
       distances > 0 AS counted, latency_us > 0 AS timed
    FROM ruvector_benchmark_recall('items', 'truth', 10, 5);
SELECT setting, queries, recall FROM ruvector_benchmark_recall('items', 'truth', k => 100) LIMIT 1;
SELECT percentile, latency_us > 0 AS timed, distances > 0 AS counted, queries, measured_with
    FROM ruvector_benchmark_latency('items', 50, 5, '{0, 0.5, 1}');

-- a ground truth that says otherwise
CREATE TABLE other_truth AS SELECT query, ARRAY[neighbours[1], 499, 500] AS neighbours FROM truth;
SELECT setting, recall, least_recall FROM ruvector_benchmark_recall('items', 'other_truth', k => 3) LIMIT 1;
CREATE TABLE nearer_truth AS SELECT query, neighbours[11:12] || 600::bigint AS neighbours FROM truth;
SELECT * FROM ruvector_benchmark_recall('items', 'nearer_truth');

-- arguments
SELECT * FROM ruvector_benchmark_recall('items', 'truth', 0);
SELECT * FROM ruvector_benchmark_recall('items', 'truth', 10, 0);
SELECT * FROM ruvector_benchmark_latency('items', 100001);
SELECT * FROM ruvector_benchmark_latency('items', 10, 10001);
SELECT * FROM ruvector_benchmark_latency('items', 10, 10, '{95}');
SELECT * FROM ruvector_benchmark_latency('items', 10, 10, '{0.5,NaN}');
SELECT * FROM ruvector_benchmark_latency('items', 10, 10, '{0.5,NULL}');
SELECT * FROM ruvector_benchmark_latency('items', 10, 10, '{}');
SELECT * FROM ruvector_benchmark_recall('items', 'items');
CREATE TABLE odd_truth (query text, neighbours bigint[]);
SELECT * FROM ruvector_benchmark_recall('items', 'odd_truth');
DROP TABLE odd_truth;
CREATE TABLE odd_truth (query ruvector, neighbours integer[]);
SELECT * FROM ruvector_benchmark_recall('items', 'odd_truth');
DROP TABLE odd_truth;
CREATE TABLE odd_truth (query ruvector, neighbours bigint[]);
SELECT * FROM ruvector_benchmark_recall('items', 'odd_truth');
SELECT * FROM ruvector_benchmark_latency('odd_truth');

-- settings of the session are what they were
SHOW enable_seqscan;
SHOW ruvector.trajectory_sample_rate;

-- rights
CREATE ROLE regress_benchmark_reader;
SET ROLE regress_benchmark_reader;
SELECT * FROM ruvector_benchmark_recall('items', 'truth');
SELECT * FROM ruvector_benchmark_latency('items');
RESET ROLE;
GRANT SELECT ON items TO regress_benchmark_reader;
SET ROLE regress_benchmark_reader;
SELECT * FROM ruvector_benchmark_recall('items', 'truth');
SELECT count(*) FROM ruvector_benchmark_latency('items');
RESET ROLE;
REVOKE SELECT ON items FROM regress_benchmark_reader;
DROP ROLE regress_benchmark_reader;
