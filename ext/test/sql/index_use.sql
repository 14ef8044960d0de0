-- ruhnsw in use: plans under filters and joins, cursors, iterative scans, parallel queries, and what else
-- a table goes through.

SET ruvector.adaptive_search = off;
CREATE TABLE items (id int PRIMARY KEY, kind int, label text, v ruvector(3));
INSERT INTO items
SELECT i, i % 50, 'label ' || i, ARRAY[i % 20, i / 20 % 20, i / 400] FROM generate_series(0, 9999) i;
CREATE TABLE kinds (kind int PRIMARY KEY, name text, rare boolean);
INSERT INTO kinds SELECT k, 'kind ' || k, k % 5 = 0 FROM generate_series(0, 49) k;
CREATE INDEX items_v ON items USING ruhnsw (v ruvector_l2_ops);
VACUUM ANALYZE items;
ANALYZE kinds;

-- a filter that leaves most rows is no reason against the index; one that leaves next to none is
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE kind <> 7 ORDER BY v <-> '[1,2,3]' LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE label LIKE '%label%' ORDER BY v <-> '[1,2,3]' LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE label LIKE '%nothing%' ORDER BY v <-> '[1,2,3]' LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE v <-> '[1,2,3]' < 3 ORDER BY v <-> '[1,2,3]' LIMIT 10;
-- without a LIMIT, or with one that takes nearly everything, a sort is cheaper
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE v <-> '[1,2,3]' < 3 ORDER BY v <-> '[1,2,3]';
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <-> '[1,2,3]' LIMIT 9900;
-- joins on top of the ordered rows
EXPLAIN (COSTS OFF) SELECT k.name FROM items i JOIN kinds k USING (kind) ORDER BY i.v <-> '[1,2,3]' LIMIT 10;
SELECT i.id, k.name FROM items i JOIN kinds k USING (kind) WHERE NOT k.rare ORDER BY i.v <-> '[1.1,2.2,3.3]' LIMIT 3;
-- an index on the filter's column, and a partial one, win where few rows are left
CREATE INDEX items_kind ON items (kind);
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE kind = 7 ORDER BY v <-> '[1,2,3]' LIMIT 100;
DROP INDEX items_kind;
CREATE INDEX items_7 ON items USING ruhnsw (v ruvector_l2_ops) WHERE kind = 7;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE kind = 7 ORDER BY v <-> '[1,2,3]' LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE kind = 8 ORDER BY v <-> '[1,2,3]' LIMIT 10;
DROP INDEX items_7;

-- iterative scans under a filter: every mode, LIMITs of any size. strict_order may leave rows out, the
-- order is kept; relaxed_order leaves none out.
CREATE FUNCTION found(mode text, k int, OUT rows bigint, OUT ordered boolean) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('ruvector.iterative_scan', mode, true);
    EXECUTE format('SELECT count(*), coalesce(bool_and(d >= previous), true) FROM (
        SELECT d, lag(d, 1, 0::float8) OVER () AS previous FROM (
            SELECT v <-> ''[9.1,9.2,9.3]'' AS d FROM items WHERE kind = 7 ORDER BY v <-> ''[9.1,9.2,9.3]'' LIMIT %s) t) u',
        k) INTO rows, ordered;
END $$;
SET enable_sort = off;
SET ruvector.ef_search = 1;
SELECT k, (found('relaxed_order', k)).rows FROM unnest(ARRAY[0, 1, 2, 10, 100, 199, 200, 201, 2000000000]) k;
SELECT k, f.rows BETWEEN 1 AND k AS some, f.ordered FROM unnest(ARRAY[1, 2, 10, 100, 199]) k, found('strict_order', k) f;
SELECT k, f.rows <= 1 AS at_most_one FROM unnest(ARRAY[1, 10, 200]) k, found('off', k) f;
SET ruvector.ef_search = 100;
SELECT k, (found('relaxed_order', k)).rows FROM unnest(ARRAY[1, 10, 200, 201]) k;
SELECT k, f.rows >= 0.5 * k AS most, f.ordered FROM unnest(ARRAY[1, 10, 50]) k, found('strict_order', k) f;
-- max_scan_tuples bounds what is looked at: more of it, more rows, and all of them in the end
SET ruvector.ef_search = 10;
SET ruvector.max_scan_tuples = 100;
SELECT rows AS rows_100 FROM found('relaxed_order', 200) \gset
SET ruvector.max_scan_tuples = 1000;
SELECT rows AS rows_1000 FROM found('relaxed_order', 200) \gset
SET ruvector.max_scan_tuples = 5000;
SELECT rows AS rows_5000 FROM found('relaxed_order', 200) \gset
SELECT :rows_100 <= :rows_1000 AND :rows_1000 < :rows_5000 AS more, :rows_1000 < 60 AS few, :rows_5000 < 200 AS not_all;
SELECT rows < 200 AS not_all FROM found('strict_order', 200);
SET ruvector.max_scan_tuples = 20000;
SELECT rows FROM found('relaxed_order', 200);
RESET ruvector.max_scan_tuples;
-- nothing satisfies the filter: it ends
SELECT count(*) FROM (SELECT id FROM items WHERE kind = 99 ORDER BY v <-> '[9,9,9]' LIMIT 10) t;

-- cursors: forwards as far as wanted; one that can scroll keeps the rows it has seen, one that cannot
-- says so; WITH HOLD outlives its transaction
BEGIN;
DECLARE onward NO SCROLL CURSOR FOR SELECT id FROM items ORDER BY v <-> '[0.41,0.32,0.13]';
FETCH 2 FROM onward;
MOVE 8000 IN onward;
FETCH 1 FROM onward \gset far_
SELECT :far_id NOT IN (0, 1) AS far;
MOVE ALL IN onward;
FETCH 1 FROM onward;
FETCH BACKWARD 1 FROM onward;
ROLLBACK;
BEGIN;
DECLARE scrolling SCROLL CURSOR FOR SELECT id FROM items ORDER BY v <-> '[0.41,0.32,0.13]';
FETCH 3 FROM scrolling;
FETCH BACKWARD 2 FROM scrolling;
FETCH RELATIVE 2 FROM scrolling;
FETCH ABSOLUTE 1 FROM scrolling;
FETCH PRIOR FROM scrolling;
FETCH FIRST FROM scrolling;
FETCH LAST FROM scrolling \gset last_
FETCH NEXT FROM scrolling;
FETCH PRIOR FROM scrolling \gset again_
SELECT :last_id = :again_id AS same;
DECLARE held CURSOR WITH HOLD FOR SELECT id FROM items ORDER BY v <-> '[0.41,0.32,0.13]' LIMIT 4;
COMMIT;
FETCH 3 FROM held;
CLOSE held;
-- a cursor sees what was there when it was opened
BEGIN;
DECLARE before CURSOR FOR SELECT id FROM items ORDER BY v <-> '[500,500,500]' LIMIT 2;
INSERT INTO items VALUES (20000, 1, 'new', '[500,500,500]');
FETCH 1 FROM before;
SELECT id FROM items ORDER BY v <-> '[500,500,500]' LIMIT 1;
ROLLBACK;

-- lateral joins: a search for each outer row, of NULL queries too
SELECT q.id, count(n.id), min(n.d)
FROM (VALUES (1, '[1,1,1]'::ruvector), (2, NULL), (3, '[19,19,24]')) q (id, v),
     LATERAL (SELECT i.id, i.v <-> q.v AS d FROM items i ORDER BY i.v <-> q.v LIMIT 5) n
GROUP BY q.id ORDER BY q.id;
SELECT count(*) FROM kinds k CROSS JOIN LATERAL
    (SELECT i.id FROM items i WHERE i.kind = k.kind ORDER BY i.v <-> '[5.1,5.2,5.3]' LIMIT 3) n;
-- searches within a search, on one index at the same time
SELECT a.id, (SELECT b.id FROM items b ORDER BY b.v <-> a.v LIMIT 1) AS self
FROM items a ORDER BY a.v <-> '[3.1,3.2,3.3]' LIMIT 3;
SELECT array_agg(id) FROM ((SELECT id FROM items ORDER BY v <-> '[0,0,0]' LIMIT 1) UNION ALL
    (SELECT id FROM items ORDER BY v <-> '[1,0,0]' LIMIT 1) UNION ALL
    (SELECT id FROM items ORDER BY v <-> '[2,0,0]' LIMIT 1)) t;

-- parallel queries: the index is read by one process, and each row comes once
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0;
SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM items ORDER BY v <-> '[9,9,9]' LIMIT 500) t;
EXPLAIN (COSTS OFF) SELECT count(*), count(DISTINCT a.id)
FROM items a, LATERAL (SELECT b.id FROM items b ORDER BY b.v <-> a.v LIMIT 1) n WHERE a.id < 300;
SELECT count(*), count(DISTINCT a.id)
FROM items a, LATERAL (SELECT b.id FROM items b ORDER BY b.v <-> a.v LIMIT 1) n WHERE a.id < 300;
SET force_parallel_mode = on;
SELECT id FROM items ORDER BY v <-> '[5.1,5.2,5.3]' LIMIT 3;
SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM items ORDER BY v <-> '[9,9,9]' LIMIT 500) t;
RESET force_parallel_mode;
RESET max_parallel_workers_per_gather;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET min_parallel_index_scan_size;

-- an update that leaves the vector alone adds nothing to the index where there is room on the page (HOT),
-- and the row's new version is found either way
CREATE TABLE hot (id int, note text, v ruvector(2)) WITH (fillfactor = 30);
INSERT INTO hot SELECT i, '', ARRAY[i, 0] FROM generate_series(1, 50) i;
CREATE INDEX hot_v ON hot USING ruhnsw (v ruvector_l2_ops);
VACUUM hot;
SELECT pg_relation_size('hot_v') AS size \gset
UPDATE hot SET note = 'changed';
UPDATE hot SET note = 'changed again' WHERE id % 2 = 0;
SELECT id, note FROM hot ORDER BY v <-> '[10.1,0]' LIMIT 2;
SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM hot ORDER BY v <-> '[0,0]') t;
VACUUM hot;
SELECT id, note FROM hot ORDER BY v <-> '[10.1,0]' LIMIT 2;
SELECT count(*), pg_relation_size('hot_v') = :size AS same_size FROM (SELECT id FROM hot ORDER BY v <-> '[0,0]') t;
SELECT count(*) FROM ruvector_index_verify('hot_v', true);
UPDATE hot SET v = v WHERE id = 10;
UPDATE hot SET v = '[10.05,0]' WHERE id = 40;
SELECT id FROM hot ORDER BY v <-> '[10.1,0]' LIMIT 2;
DROP TABLE hot;

-- savepoints: what was rolled back is not found, what was kept is
BEGIN;
INSERT INTO items VALUES (30000, 7, 'outer', '[700,700,700]');
SAVEPOINT one;
INSERT INTO items VALUES (30001, 7, 'inner', '[701,701,701]');
SAVEPOINT two;
UPDATE items SET v = '[702,702,702]' WHERE id = 30000;
SELECT id, v FROM items ORDER BY v <-> '[703,703,703]' LIMIT 2;
ROLLBACK TO two;
SELECT id, v FROM items ORDER BY v <-> '[703,703,703]' LIMIT 2;
ROLLBACK TO one;
SELECT id, v FROM items ORDER BY v <-> '[703,703,703]' LIMIT 1;
RELEASE one;
COMMIT;
SELECT id, v FROM items ORDER BY v <-> '[703,703,703]' LIMIT 1;
SELECT count(*) FROM ruvector_index_verify('items_v', true);
VACUUM items;
SELECT count(*) FROM ruvector_index_verify('items_v', true);
DELETE FROM items WHERE id = 30000;

-- half of the rows deleted: the others are all found, before vacuum and after it
DELETE FROM items WHERE id % 2 = 0;
SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM items ORDER BY v <-> '[9,9,9]') t;
SELECT bool_and(id % 2 = 1), count(*) FROM (SELECT id FROM items ORDER BY v <-> '[9,9,9]' LIMIT 100) t;
VACUUM items;
SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM items ORDER BY v <-> '[9,9,9]') t;
SELECT bool_and(id % 2 = 1), count(*) FROM (SELECT id FROM items ORDER BY v <-> '[9,9,9]' LIMIT 100) t;
SELECT count(*) FROM ruvector_index_verify('items_v', true);

-- settings of the index, then rebuilt with them; a tablespace; a rename
ALTER INDEX items_v SET (m = 6, ef_construction = 24);
SELECT id FROM items ORDER BY v <-> '[5.1,5.2,5.3]' LIMIT 1;
REINDEX INDEX CONCURRENTLY items_v;
SELECT reloptions FROM pg_class WHERE relname = 'items_v';
SELECT count(*) FROM ruvector_index_verify('items_v', true);
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE elsewhere LOCATION '';
ALTER INDEX items_v SET TABLESPACE elsewhere;
SELECT id FROM items ORDER BY v <-> '[5.1,5.2,5.3]' LIMIT 1;
REINDEX (TABLESPACE pg_default) INDEX items_v;
CREATE INDEX items_there ON items USING ruhnsw (v ruvector_l2_ops) TABLESPACE elsewhere;
DROP INDEX items_v;
INSERT INTO items VALUES (40000, 1, 'there', '[800,800,800]');
SELECT id FROM items ORDER BY v <-> '[800,800,801]' LIMIT 1;
SELECT count(*) FROM ruvector_index_verify('items_there', true);
ALTER INDEX items_there RENAME TO items_v;
ALTER TABLE items RENAME COLUMN v TO embedding;
SELECT id FROM items ORDER BY embedding <-> '[800,800,801]' LIMIT 1;
DROP TABLE items, kinds;
DROP TABLESPACE elsewhere;

-- partitions: attached with its own index, detached, reindexed concurrently
CREATE TABLE parts (id int, v ruvector(2)) PARTITION BY LIST ((id % 2));
CREATE TABLE even (id int, v ruvector(2));
INSERT INTO even SELECT 2 * i, ARRAY[2 * i, 0] FROM generate_series(1, 200) i;
CREATE INDEX even_v ON even USING ruhnsw (v ruvector_l2_ops);
CREATE INDEX parts_v ON parts USING ruhnsw (v ruvector_l2_ops);
ALTER TABLE parts ATTACH PARTITION even FOR VALUES IN (0);
SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'parts_v'::regclass;
CREATE TABLE odd PARTITION OF parts FOR VALUES IN (1);
INSERT INTO parts SELECT 2 * i + 1, ARRAY[2 * i + 1, 0] FROM generate_series(1, 200) i;
SELECT id FROM parts ORDER BY v <-> '[100.4,0]' LIMIT 3;
REINDEX TABLE CONCURRENTLY parts;
SELECT id FROM parts ORDER BY v <-> '[100.4,0]' LIMIT 3;
UPDATE parts SET id = 101, v = '[100.5,0]' WHERE id = 100;
SELECT tableoid::regclass, id, v FROM parts ORDER BY v <-> '[100.4,0]' LIMIT 2;
ALTER TABLE parts DETACH PARTITION odd;
SELECT id FROM parts ORDER BY v <-> '[100.4,0]' LIMIT 1;
SELECT id FROM odd ORDER BY v <-> '[100.4,0]' LIMIT 1;
DROP TABLE parts, odd;

-- temporary tables: their rows and indexes go as they say
BEGIN;
CREATE TEMP TABLE passing (id int, v ruvector(2)) ON COMMIT DELETE ROWS;
CREATE INDEX passing_v ON passing USING ruhnsw (v ruvector_l2_ops);
INSERT INTO passing SELECT i, ARRAY[i, 0] FROM generate_series(1, 100) i;
SELECT id FROM passing ORDER BY v <-> '[40.1,0]' LIMIT 1;
COMMIT;
SELECT id FROM passing ORDER BY v <-> '[40.1,0]' LIMIT 1;
INSERT INTO passing VALUES (1, '[1,1]');
DROP TABLE passing;
