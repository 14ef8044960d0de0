-- ruivfflat: what a scan can be asked.

SET ruvector.adaptive_search = off;
CREATE TABLE items (id int PRIMARY KEY, kind int, v ruvector(3));
INSERT INTO items SELECT i, i % 100, ARRAY[i % 20, i / 20 % 20, i / 400] FROM generate_series(0, 9999) i;
CREATE INDEX items_v ON items USING ruivfflat (v ruvector_l2_ops) WITH (lists = 50);
ANALYZE items;

-- the planner takes the index for an ordered query with a LIMIT by itself, and for no other
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <-> '[1,2,3]' LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY '[1,2,3]' <-> v LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY l2_distance(v, '[1,2,3]') LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE v <-> '[1,2,3]' < 2;
EXPLAIN (COSTS OFF) SELECT count(*) FROM items;
EXPLAIN (COSTS OFF) SELECT id FROM items WHERE id = 7 ORDER BY v <-> '[1,2,3]' LIMIT 10;

SET enable_seqscan = off;
SET enable_sort = off;
SET ruvector.probes = 50;

-- the order and the distances are right
SELECT id, v <-> '[1.1,2.2,3.3]' AS distance FROM items ORDER BY v <-> '[1.1,2.2,3.3]' LIMIT 3;
SELECT bool_and(d >= previous) AS ordered, count(*)
FROM (SELECT d, lag(d, 1, 0::float8) OVER () AS previous
      FROM (SELECT v <-> '[7,7,7]' AS d FROM items ORDER BY v <-> '[7,7,7]' LIMIT 30) t) u;
SELECT id FROM items ORDER BY v <-> '[1.1,2.2,3.3]' LIMIT 0;
SELECT id FROM items ORDER BY v <-> '[1.1,2.2,3.3]' OFFSET 2 LIMIT 1;

-- the query vector may come from anywhere
PREPARE nearest (ruvector) AS SELECT id FROM items ORDER BY v <-> $1 LIMIT 1;
EXECUTE nearest ('[1,1,1]');
EXECUTE nearest ('[2,1,1]');
SET plan_cache_mode = force_generic_plan;
EXECUTE nearest ('[3,1,1]');
RESET plan_cache_mode;
DEALLOCATE nearest;
SELECT id FROM items ORDER BY v <-> (SELECT v FROM items WHERE id = 123) LIMIT 1;
SELECT q.id, n.id AS nearest FROM items q, LATERAL (
    SELECT i.id FROM items i WHERE i.id <> q.id ORDER BY i.v <-> (q.v + '[0.3,0,0]') LIMIT 1) n
WHERE q.id IN (0, 50, 1000) ORDER BY 1;
SELECT id FROM items ORDER BY v <-> ARRAY[4, 4, 4]::ruvector LIMIT 1;

-- NULL, another number of dimensions
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> NULL LIMIT 10) t;
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> (SELECT NULL::ruvector) LIMIT 10) t;
SELECT id FROM items ORDER BY v <-> '[1,2]' LIMIT 1;
SELECT id FROM items ORDER BY v <-> (SELECT '[1,2,3,4]'::ruvector) LIMIT 1;

-- cursors, forwards; a rescan
BEGIN;
DECLARE near CURSOR FOR SELECT id, v FROM items ORDER BY v <-> '[0.41,0.32,0.13]';
FETCH 2 FROM near;
FETCH 2 FROM near;
MOVE FORWARD 10 IN near;
FETCH 1 FROM near;
CLOSE near;
DECLARE near SCROLL CURSOR FOR SELECT id FROM items ORDER BY v <-> '[0.41,0.32,0.13]';
FETCH 3 FROM near;
FETCH BACKWARD 2 FROM near;
FETCH ABSOLUTE 2 FROM near;
COMMIT;

-- filters: the scan goes on until it has enough rows
SET ruvector.probes = 1;
SET ruvector.iterative_scan = relaxed_order;
SELECT count(*), bool_and(kind = 7) FROM (SELECT kind FROM items WHERE kind = 7 ORDER BY v <-> '[9,9,9]' LIMIT 10) t;
SET ruvector.iterative_scan = strict_order;
-- some may come too late for it
SELECT count(*) BETWEEN 1 AND 10 AS some, bool_and(d >= previous) AS ordered
FROM (SELECT d, lag(d, 1, 0::float8) OVER () AS previous
      FROM (SELECT v <-> '[9,9,9]' AS d FROM items WHERE kind = 7 ORDER BY v <-> '[9,9,9]' LIMIT 10) t) u;
SET ruvector.iterative_scan = off;
SELECT count(*) < 10 AS fewer FROM (SELECT id FROM items WHERE kind = 7 ORDER BY v <-> '[9,9,9]' LIMIT 10) t;
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> '[9,9,9]' LIMIT 100) t;
SET ruvector.iterative_scan = relaxed_order;
SET ruvector.max_scan_tuples = 100;
SELECT count(*) < 100 AS stopped FROM (SELECT id FROM items WHERE kind = 7 ORDER BY v <-> '[9,9,9]') t;
RESET ruvector.max_scan_tuples;
SELECT count(*) FROM (SELECT id FROM items WHERE kind = 7 ORDER BY v <-> '[9,9,9]') t;
-- the whole table, in the end
SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM items ORDER BY v <-> '[9,9,9]') t;

-- settings
SET ruvector.probes = 0;
SET ruvector.probes = 32769;
SET ruvector.iterative_scan = 'sometimes';
SET ruvector.max_scan_tuples = 0;
SET ruvector.target_recall = 0.4;
SET ruvector.target_recall = 1.1;
SET ruvector.nonsense = 1;
RESET ALL;

-- under a snapshot that is older than a change
SET enable_seqscan = off;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT id FROM items ORDER BY v <-> '[5.1,5.2,5.3]' LIMIT 1;
DECLARE held CURSOR FOR SELECT id FROM items ORDER BY v <-> '[5.1,5.2,5.3]' LIMIT 2;
DELETE FROM items WHERE id IN (SELECT id FROM items ORDER BY v <-> '[5.1,5.2,5.3]' LIMIT 1);
FETCH ALL FROM held;
SELECT id FROM items ORDER BY v <-> '[5.1,5.2,5.3]' LIMIT 1;
ROLLBACK;
SELECT id FROM items ORDER BY v <-> '[5.1,5.2,5.3]' LIMIT 1;
DROP TABLE items;

-- inner product with rows of very different length: the longest in the direction comes first
CREATE TABLE items (id int, v ruvector(2));
INSERT INTO items SELECT i, ARRAY[i * cos(i), i * sin(i)] FROM generate_series(1, 500) i;
CREATE INDEX ON items USING ruivfflat (v ruvector_ip_ops);
SET ruvector.probes = 600;
SELECT id FROM items ORDER BY v <#> '[1,0]' LIMIT 3;
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <#> '[0,0]' LIMIT 20) t;
DROP TABLE items;

-- cosine: the length of the query does not matter; a zero query has no nearest row
CREATE TABLE items (id int, v ruvector(2));
INSERT INTO items SELECT i, ARRAY[i * cos(i / 100.0), i * sin(i / 100.0)] FROM generate_series(1, 500) i;
CREATE INDEX ON items USING ruivfflat (v ruvector_cosine_ops);
SELECT id FROM items ORDER BY v <=> '[1,0.1]' LIMIT 1;
SELECT id FROM items ORDER BY v <=> '[1000,100]' LIMIT 1;
SELECT id FROM items ORDER BY v <=> '[1e-30,1e-31]' LIMIT 1;
SELECT id FROM items ORDER BY v <=> '[1e30,1e29]' LIMIT 1;
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <=> '[0,0]' LIMIT 20) t;
DROP TABLE items;

-- huge elements, whose squares no float holds
CREATE TABLE items (id int, v ruvector(2));
INSERT INTO items SELECT i, ARRAY[i * 1e36, 0]::float8[] FROM generate_series(1, 100) i;
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops);
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> '[5e36,0]' LIMIT 20) t;
DROP TABLE items;
