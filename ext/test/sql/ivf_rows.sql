-- ruivfflat: rows come and go. NULLs, zero vectors, duplicates, updates, vacuum, REINDEX, rollback.

SET ruvector.adaptive_search = off;
SET ruvector.probes = 1000;
SET client_min_messages = warning;
SET enable_seqscan = off;

-- whether the k nearest rows by the index are as near as those by a sort
CREATE FUNCTION index_agrees(query ruvector, k int) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    by_index double precision[];
    by_sort double precision[];
BEGIN
    SET LOCAL enable_indexscan = on;
    SET LOCAL enable_seqscan = off;
    SET LOCAL enable_sort = off;
    EXECUTE 'SELECT array_agg(d) FROM (SELECT v <-> $1 AS d FROM items WHERE v IS NOT NULL ORDER BY v <-> $1 LIMIT $2) t'
        USING query, k INTO by_index;
    SET LOCAL enable_indexscan = off;
    SET LOCAL enable_seqscan = on;
    SET LOCAL enable_sort = on;
    EXECUTE 'SELECT array_agg(d) FROM (SELECT v <-> $1 AS d FROM items WHERE v IS NOT NULL ORDER BY v <-> $1 LIMIT $2) t'
        USING query, k INTO by_sort;
    RETURN by_index IS NOT DISTINCT FROM by_sort;
END $$;

-- an empty table, then row by row
CREATE TABLE items (id int PRIMARY KEY, v ruvector(3));
CREATE INDEX items_v ON items USING ruivfflat (v ruvector_l2_ops);
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <-> '[0,0,0]' LIMIT 5;
SELECT id FROM items ORDER BY v <-> '[0,0,0]' LIMIT 5;
INSERT INTO items VALUES (1, '[1,1,1]');
SELECT id FROM items ORDER BY v <-> '[0,0,0]' LIMIT 5;
INSERT INTO items VALUES (2, '[2,2,2]'), (3, NULL), (4, '[0,0,0]');
SELECT id, v FROM items ORDER BY v <-> '[0,0,0]' LIMIT 5;
SELECT id, v FROM items ORDER BY v <-> '[9,9,9]';
INSERT INTO items VALUES (5, '[1,2]');
INSERT INTO items SELECT i, ARRAY[i % 10, i / 10 % 10, i / 100] FROM generate_series(10, 999) i;
SELECT index_agrees('[3,3,3]', 100), index_agrees('[0,9,5]', 1000), index_agrees('[-5,20,0.5]', 1);

-- NULLs are not indexed: an ordered index scan leaves them out, also when nothing else is left
CREATE TABLE nulls (v ruvector(2));
INSERT INTO nulls VALUES (NULL), (NULL);
CREATE INDEX ON nulls USING ruivfflat (v ruvector_l2_ops);
SELECT * FROM nulls ORDER BY v <-> '[1,1]';
INSERT INTO nulls VALUES (NULL);
SELECT * FROM nulls ORDER BY v <-> '[1,1]';
DROP TABLE nulls;

-- updates: the old version is gone, also before vacuum
UPDATE items SET v = '[5,5,5.5]' WHERE id = 1;
SELECT id FROM items ORDER BY v <-> '[5,5,5.5]' LIMIT 1;
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> '[1,1,1]' LIMIT 1000) t WHERE id = 1;
UPDATE items SET v = NULL WHERE id = 1;
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> '[5,5,5]' LIMIT 1000) t WHERE id = 1;
UPDATE items SET v = v + '[0.25,0,0]' WHERE id > 500;
SELECT index_agrees('[3,3,3]', 100), index_agrees('[0.25,9,5]', 1000);

-- rollback and savepoints
BEGIN;
INSERT INTO items VALUES (2000, '[7.7,7.7,7.7]');
SELECT id FROM items ORDER BY v <-> '[7.7,7.7,7.7]' LIMIT 1;
ROLLBACK;
SELECT id = 2000 AS there FROM items ORDER BY v <-> '[7.7,7.7,7.7]' LIMIT 1;
BEGIN;
SAVEPOINT s;
DELETE FROM items;
SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> '[1,1,1]') t;
ROLLBACK TO s;
SELECT index_agrees('[3,3,3]', 1000);
COMMIT;

-- delete and vacuum; inserts after it
DELETE FROM items WHERE id % 3 = 0;
SELECT index_agrees('[3,3,3]', 100);
VACUUM items;
SELECT index_agrees('[3,3,3]', 100), index_agrees('[0,9,5]', 1000);
INSERT INTO items SELECT i, ARRAY[i % 10, i / 10 % 10, i / 100] FROM generate_series(10, 999) i WHERE i % 3 = 0;
SELECT index_agrees('[3,3,3]', 100), index_agrees('[0,9,5]', 1000);
-- most rows go, several times over
DO $$
BEGIN
    FOR round IN 1..3 LOOP
        DELETE FROM items WHERE id >= 1000 * round;
        INSERT INTO items SELECT i + 1000 * round, ARRAY[i % 7, i % 11, i % 13] FROM generate_series(0, 499) i;
    END LOOP;
END $$;
DELETE FROM items WHERE id BETWEEN 20 AND 990;
VACUUM items;
SELECT count(*), index_agrees('[3,3,3]', 100), index_agrees('[6,0,1]', 1000) FROM items;
-- the space of deleted rows is used again
SELECT pg_relation_size('items_v') AS size \gset
UPDATE items SET v = v + '[0,0,0.5]';
VACUUM items;
UPDATE items SET v = v - '[0,0,0.5]';
VACUUM items;
UPDATE items SET v = v + '[0,0,0.5]';
VACUUM items;
SELECT pg_relation_size('items_v') < 3 * :size AS bounded, index_agrees('[3,3,3]', 1000);

-- everything goes, then rows again
DELETE FROM items;
VACUUM items;
SELECT id FROM items ORDER BY v <-> '[1,1,1]' LIMIT 5;
INSERT INTO items VALUES (1, '[1,2,3]'), (2, '[3,2,1]');
SELECT id FROM items ORDER BY v <-> '[1,2,3]' LIMIT 5;
TRUNCATE items;
SELECT id FROM items ORDER BY v <-> '[1,1,1]' LIMIT 5;
INSERT INTO items SELECT i, ARRAY[i % 10, i / 10 % 10, i / 100] FROM generate_series(1, 500) i;
SELECT index_agrees('[3,3,3]', 500);
REINDEX INDEX items_v;
SELECT index_agrees('[3,3,3]', 500);
VACUUM FULL items;
SELECT index_agrees('[3,3,3]', 500);
ALTER TABLE items ALTER v TYPE ruvector(3) USING v * '[2,2,2]';
SELECT index_agrees('[3,3,3]', 500);
DROP TABLE items;

-- duplicates: each is returned
CREATE TABLE items (id int, v ruvector(2));
INSERT INTO items SELECT i, '[1,1]' FROM generate_series(1, 300) i;
INSERT INTO items SELECT i, ARRAY[i, 0] FROM generate_series(301, 310) i;
CREATE INDEX items_v ON items USING ruivfflat (v ruvector_l2_ops);
INSERT INTO items SELECT i, '[1,1]' FROM generate_series(311, 400) i;
SELECT count(*), count(DISTINCT id), max(v <-> '[1,1]')
FROM (SELECT id, v FROM items ORDER BY v <-> '[1,1]' LIMIT 390) t;
SELECT index_agrees('[0,0]', 400);
DELETE FROM items WHERE v = '[1,1]' AND id % 10 <> 0;
VACUUM items;
SELECT count(*), max(v <-> '[1,1]') FROM (SELECT v FROM items ORDER BY v <-> '[1,1]' LIMIT 39) t;
SELECT index_agrees('[300,0]', 400);
DROP TABLE items;

-- a zero vector has no direction: not indexed under cosine, but stored and found by a scan
CREATE TABLE items (id int, v ruvector(2));
INSERT INTO items VALUES (1, '[1,0]'), (2, '[0,0]'), (3, '[0,1]');
CREATE INDEX items_cosine ON items USING ruivfflat (v ruvector_cosine_ops);
INSERT INTO items VALUES (4, '[0,0]'), (5, '[-1,0]');
SELECT id, v <=> '[1,0.1]' < 2 AS defined FROM items ORDER BY v <=> '[1,0.1]';
SET enable_seqscan = on;
SET enable_indexscan = off;
SELECT id, v <=> '[1,0.1]' < 2 AS defined FROM items ORDER BY v <=> '[1,0.1]', id;
RESET enable_indexscan;
DROP INDEX items_cosine;
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops);
SET enable_seqscan = off;
SELECT id FROM items ORDER BY v <-> '[0.1,0.2]', id;
DROP TABLE items;
