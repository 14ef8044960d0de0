-- ruivfflat on every kind of table and index.

SET ruvector.adaptive_search = off;
SET ruvector.probes = 1000;
SET enable_seqscan = off;
SET client_min_messages = warning;

-- unlogged and temporary
CREATE UNLOGGED TABLE unlogged_items (id int, v ruvector(2));
CREATE INDEX unlogged_v ON unlogged_items USING ruivfflat (v ruvector_l2_ops);
INSERT INTO unlogged_items SELECT i, ARRAY[i, -i] FROM generate_series(1, 200) i;
SELECT id FROM unlogged_items ORDER BY v <-> '[50.1,-50.1]' LIMIT 3;
ALTER TABLE unlogged_items SET LOGGED;
SELECT id FROM unlogged_items ORDER BY v <-> '[50.1,-50.1]' LIMIT 3;
ALTER TABLE unlogged_items SET UNLOGGED;
SELECT id FROM unlogged_items ORDER BY v <-> '[50.1,-50.1]' LIMIT 3;
DROP TABLE unlogged_items;
CREATE TEMP TABLE temp_items (id int, v ruvector(2));
INSERT INTO temp_items SELECT i, ARRAY[i, -i] FROM generate_series(1, 100) i;
CREATE INDEX ON temp_items USING ruivfflat (v ruvector_l2_ops);
INSERT INTO temp_items SELECT i, ARRAY[i, -i] FROM generate_series(101, 200) i;
DELETE FROM temp_items WHERE id = 150;
VACUUM temp_items;
SELECT id FROM temp_items ORDER BY v <-> '[150.1,-150.1]' LIMIT 3;
DROP TABLE temp_items;

-- partial
CREATE TABLE items (id int, kind int, v ruvector(2), raw real[]);
INSERT INTO items SELECT i, i % 3, ARRAY[i, 0], ARRAY[0, i] FROM generate_series(1, 300) i;
CREATE INDEX items_partial ON items USING ruivfflat (v ruvector_l2_ops) WHERE kind = 1;
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE kind = 1 ORDER BY v <-> '[100,0]' LIMIT 3;
SELECT id FROM items WHERE kind = 1 ORDER BY v <-> '[100.1,0]' LIMIT 3;
SELECT count(*) FROM (SELECT id FROM items WHERE kind = 1 ORDER BY v <-> '[100.1,0]' LIMIT 300) t;
UPDATE items SET kind = 1 WHERE id = 101;
UPDATE items SET kind = 2 WHERE id = 100;
SELECT id FROM items WHERE kind = 1 ORDER BY v <-> '[100.1,0]' LIMIT 3;
DROP INDEX items_partial;

-- expressions
CREATE INDEX items_raw ON items USING ruivfflat ((raw::ruvector(2)) ruvector_l2_ops);
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY raw::ruvector(2) <-> '[0,50]' LIMIT 3;
SELECT id FROM items ORDER BY raw::ruvector(2) <-> '[0,50.1]' LIMIT 3;
DROP INDEX items_raw;
CREATE INDEX items_first ON items USING ruivfflat ((subvector(v, 1, 1)::ruvector(1)) ruvector_l2_ops);
SELECT id FROM items ORDER BY subvector(v, 1, 1)::ruvector(1) <-> '[50.1]' LIMIT 3;
DROP INDEX items_first;
CREATE INDEX items_untyped ON items USING ruivfflat ((subvector(v, 1, 1)) ruvector_l2_ops);

-- concurrently
CREATE INDEX CONCURRENTLY items_v ON items USING ruivfflat (v ruvector_l2_ops);
SELECT indisvalid, indisready FROM pg_index WHERE indexrelid = 'items_v'::regclass;
SELECT id FROM items ORDER BY v <-> '[50.1,0]' LIMIT 3;
REINDEX INDEX CONCURRENTLY items_v;
SELECT id FROM items ORDER BY v <-> '[50.1,0]' LIMIT 3;
DROP INDEX CONCURRENTLY items_v;

-- the table is rewritten, clustered, moved
CREATE INDEX items_v ON items USING ruivfflat (v ruvector_l2_ops);
CREATE INDEX items_id ON items (id);
CLUSTER items USING items_id;
SELECT id FROM items ORDER BY v <-> '[50.1,0]' LIMIT 3;
CLUSTER items USING items_v;
ALTER TABLE items SET TABLESPACE pg_default;
ALTER TABLE items ADD COLUMN extra int DEFAULT 1;
SELECT id FROM items ORDER BY v <-> '[50.1,0]' LIMIT 3;
ALTER TABLE items DROP COLUMN v;
SELECT count(*) FROM pg_class WHERE relname = 'items_v';
DROP TABLE items;

-- built by one process and by several
CREATE TABLE items (id int, v ruvector(16));
INSERT INTO items SELECT i, array_agg((i * j) % 101) FROM generate_series(1, 1500) i, generate_series(1, 16) j GROUP BY i;
CREATE INDEX items_v ON items USING ruivfflat (v ruvector_l2_ops);
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> (SELECT v FROM items WHERE id = 7) LIMIT 1500) t;
SET max_parallel_maintenance_workers = 2;
SET min_parallel_table_scan_size = 0;
REINDEX INDEX items_v;
SELECT id FROM items ORDER BY v <-> (SELECT v FROM items WHERE id = 7), id LIMIT 1;
RESET max_parallel_maintenance_workers;
RESET min_parallel_table_scan_size;
DROP TABLE items;

-- partitions
CREATE TABLE parts (id int, v ruvector(2)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (1000);
CREATE INDEX parts_v ON parts USING ruivfflat (v ruvector_l2_ops) WITH (lists = 3);
INSERT INTO parts SELECT i, ARRAY[i, 1] FROM generate_series(0, 299) i;
EXPLAIN (COSTS OFF) SELECT id FROM parts ORDER BY v <-> '[100,1]' LIMIT 4;
SELECT id FROM parts ORDER BY v <-> '[99.9,1]' LIMIT 4;
CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (1000) TO (2000);
INSERT INTO parts VALUES (1500, '[100,1.01]');
SELECT id FROM parts ORDER BY v <-> '[99.9,1]' LIMIT 2;
DROP TABLE parts;

-- materialized views, inheritance of nothing: an index of its own
CREATE TABLE base AS SELECT i AS id, ARRAY[i, i]::ruvector(2) AS v FROM generate_series(1, 100) i;
CREATE MATERIALIZED VIEW view AS SELECT id, v FROM base WHERE id % 2 = 0;
CREATE INDEX ON view USING ruivfflat (v ruvector_l2_ops);
SELECT id FROM view ORDER BY v <-> '[31.1,31.1]' LIMIT 2;
DELETE FROM base WHERE id = 32;
REFRESH MATERIALIZED VIEW view;
SELECT id FROM view ORDER BY v <-> '[31.1,31.1]' LIMIT 2;
DROP TABLE base CASCADE;
SELECT count(*) FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'ruivfflat';
