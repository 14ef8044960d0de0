-- The order of vectors: ORDER BY, DISTINCT, GROUP BY, btree indexes, merge joins.

CREATE TABLE ordered (id int, v ruvector);
INSERT INTO ordered VALUES (1, '[1,2,3]'), (2, '[1,2]'), (3, '[1,2,3]'), (4, '[-1]'), (5, NULL),
    (6, '[1,2,-3]'), (7, '[2]'), (8, NULL), (9, '[0]'), (10, '[0]');
SELECT v FROM ordered ORDER BY v, id;
SELECT v FROM ordered ORDER BY v DESC NULLS LAST, id;
SELECT DISTINCT v FROM ordered ORDER BY v;
SELECT v, count(*) FROM ordered GROUP BY v ORDER BY v;
SELECT count(DISTINCT v) FROM ordered;
SELECT v FROM ordered WHERE v IN ('[2]', '[1,2]') ORDER BY v;
SELECT a.id, b.id FROM ordered a JOIN ordered b USING (v) WHERE a.id < b.id ORDER BY 1;

-- btree
CREATE INDEX ordered_v ON ordered (v);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM ordered WHERE v = '[1,2,3]';
SELECT id FROM ordered WHERE v = '[1,2,3]' ORDER BY id;
SELECT id FROM ordered WHERE v > '[0]' AND v <= '[1,2,3]' ORDER BY id;
SELECT id FROM ordered WHERE v < '[0]';
SELECT id FROM ordered WHERE v >= '[1,2,4]';
EXPLAIN (COSTS OFF) SELECT v FROM ordered ORDER BY v;
SELECT v FROM ordered ORDER BY v LIMIT 3;
RESET enable_seqscan;
RESET enable_bitmapscan;

CREATE TABLE uniq (v ruvector(2) PRIMARY KEY);
INSERT INTO uniq VALUES ('[1,2]'), ('[2,1]');
INSERT INTO uniq VALUES ('[1,2]');
INSERT INTO uniq VALUES ('[1,2]') ON CONFLICT DO NOTHING;
SELECT * FROM uniq ORDER BY v;

-- many: the index and the sort agree
CREATE TABLE shuffled AS
SELECT ARRAY[i * 7919 % 101, i % 5]::ruvector AS v FROM generate_series(1, 2000) i;
CREATE INDEX ON shuffled (v);
ANALYZE shuffled;
SET enable_sort = off;
CREATE TEMP TABLE by_index AS SELECT row_number() OVER (ORDER BY v) AS n, v FROM shuffled;
RESET enable_sort;
SET enable_indexscan = off;
SET enable_indexonlyscan = off;
CREATE TEMP TABLE by_sort AS SELECT row_number() OVER (ORDER BY v) AS n, v FROM shuffled;
SELECT count(*) FROM by_index JOIN by_sort USING (n, v);
RESET ALL;
SET enable_hashjoin = off;
SET enable_nestloop = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM by_index a JOIN by_sort b USING (v);
SELECT count(*) FROM by_index a JOIN by_sort b USING (v);
RESET ALL;
DROP TABLE ordered, uniq, shuffled, by_index, by_sort;

-- there is no hash: hash indexes have no class for it
CREATE TABLE hashed (v ruvector);
CREATE INDEX ON hashed USING hash (v);
DROP TABLE hashed;
