-- ruhnsw, every metric alike: rows before and after the build, NULLs, NULL queries, zero vectors, searches of
-- one candidate, equal rows, TRUNCATE; and the settings of a new session.

SHOW ruvector.ef_search;
SHOW ruvector.iterative_scan;
SHOW ruvector.max_scan_tuples;
SHOW ruvector.adaptive_search;
SHOW ruvector.target_recall;

SET enable_seqscan = off;
SET enable_sort = off;

CREATE TABLE l2 (v ruvector(3));
INSERT INTO l2 VALUES ('[0,0,0]'), ('[1,2,3]'), ('[1,1,1]'), (NULL);
CREATE INDEX ON l2 USING ruhnsw (v ruvector_l2_ops);
INSERT INTO l2 VALUES ('[1,2,4]'), (NULL);
SELECT v FROM l2 ORDER BY v <-> '[3,3,3]';
SELECT count(*) FROM (SELECT v FROM l2 ORDER BY v <-> (SELECT NULL::ruvector)) t;
SELECT count(*) FROM (SELECT v FROM l2 ORDER BY v <-> NULL) t;
SELECT count(*) FROM l2;

CREATE TABLE ip (v ruvector(3));
INSERT INTO ip VALUES ('[0,0,0]'), ('[1,2,3]'), ('[1,1,1]'), (NULL);
CREATE INDEX ON ip USING ruhnsw (v ruvector_ip_ops);
INSERT INTO ip VALUES ('[1,2,4]'), ('[-1,-1,-1]');
SELECT v, v <#> '[3,3,3]' AS distance FROM ip ORDER BY v <#> '[3,3,3]';
SELECT count(*) FROM (SELECT v FROM ip ORDER BY v <#> (SELECT NULL::ruvector)) t;
SELECT count(*) FROM (SELECT v FROM ip ORDER BY v <#> '[0,0,0]') t;

-- the zero vector is not in the index, and as a query it has no nearest row but ends
CREATE TABLE cosine (v ruvector(3));
INSERT INTO cosine VALUES ('[0,0,0]'), ('[1,2,3]'), ('[1,1,1]'), (NULL);
CREATE INDEX ON cosine USING ruhnsw (v ruvector_cosine_ops);
INSERT INTO cosine VALUES ('[1,2,4]'), ('[0,0,0]');
SELECT v FROM cosine ORDER BY v <=> '[3,3,3]';
SELECT count(*) FROM (SELECT v FROM cosine ORDER BY v <=> '[0,0,0]') t;
SELECT count(*) FROM (SELECT v FROM cosine ORDER BY v <=> (SELECT NULL::ruvector)) t;
SELECT c.v, n.v FROM cosine c CROSS JOIN LATERAL (SELECT i.v FROM cosine i ORDER BY i.v <=> c.v LIMIT 1) n
WHERE ruvector_norm(c.v) > 0 ORDER BY ruvector_norm(c.v);
UPDATE cosine SET v = '[0,0,0]' WHERE v = '[1,1,1]';
UPDATE cosine SET v = '[2,2,2]' WHERE v = '[1,2,4]';
SELECT v FROM cosine ORDER BY v <=> '[3,3,3]';

CREATE TABLE l1 (v ruvector(3));
INSERT INTO l1 VALUES ('[0,0,0]'), ('[1,2,3]'), ('[1,1,1]'), (NULL);
CREATE INDEX ON l1 USING ruhnsw (v ruvector_l1_ops);
INSERT INTO l1 VALUES ('[1,2,4]');
SELECT v, v <+> '[3,3,3]' AS distance FROM l1 ORDER BY v <+> '[3,3,3]';
SELECT count(*) FROM (SELECT v FROM l1 ORDER BY v <+> (SELECT NULL::ruvector)) t;

-- one candidate at a time: iterative scans give everything all the same, off gives what it has
SET ruvector.adaptive_search = off;
SET ruvector.ef_search = 1;
SET ruvector.iterative_scan = strict_order;
SELECT v FROM l2 ORDER BY v <-> '[3,3,3]' LIMIT 1;
SET ruvector.iterative_scan = relaxed_order;
SELECT count(*) FROM (SELECT v FROM l2 ORDER BY v <-> '[3,3,3]') t;
SET ruvector.iterative_scan = off;
SELECT v FROM l2 ORDER BY v <-> '[3,3,3]';
-- equal rows are one place in the graph: all of them come, even of one candidate
INSERT INTO l2 SELECT '[3,3,3]' FROM generate_series(1, 30);
SELECT count(*), count(*) FILTER (WHERE v = '[3,3,3]') AS equal FROM (SELECT v FROM l2 ORDER BY v <-> '[3,3,3]') t;
DELETE FROM l2 WHERE v = '[3,3,3]';
INSERT INTO l2 VALUES ('[3,3,3]');
SELECT v FROM l2 ORDER BY v <-> '[3,3,3]';
SET ruvector.iterative_scan = strict_order;
TRUNCATE l2;
SELECT v FROM l2 ORDER BY v <-> '[3,3,3]';
SET ruvector.iterative_scan = relaxed_order;
SELECT v FROM l2 ORDER BY v <-> '[3,3,3]';
INSERT INTO l2 VALUES ('[5,5,5]');
SELECT v FROM l2 ORDER BY v <-> '[3,3,3]';
SELECT c.relname, (SELECT count(*) FROM ruvector_index_verify(c.oid, true))
FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'ruhnsw' ORDER BY 1;
DROP TABLE l2, ip, cosine, l1;
