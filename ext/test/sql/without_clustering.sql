-- A build with WITH_ADVANCED=no: graphs and learning work, lists say that they are not there.
CREATE TABLE items (id bigint PRIMARY KEY, embedding ruvector(3));
INSERT INTO items SELECT n, ARRAY[n, n % 7, n % 3]::ruvector FROM generate_series(1, 200) n;
CREATE INDEX items_lists ON items USING ruivfflat (embedding ruvector_l2_ops);
CREATE INDEX items_graph ON items USING ruhnsw (embedding ruvector_l2_ops);
SELECT * FROM ruvector_index_verify('items_graph', true);
SELECT ruvector_enable_learning('items', min_samples => 10);
SET enable_seqscan = off;
SELECT count(*) FROM generate_series(1, 60) n, LATERAL (SELECT id FROM items
    ORDER BY embedding <-> ARRAY[n % 13, n % 5, n]::ruvector LIMIT 5) s;
SELECT ruvector_extract_patterns('items');
SELECT scope, centroid FROM ruvector_patterns;
SELECT id FROM items ORDER BY embedding <-> '[50,1,2]' LIMIT 3;
