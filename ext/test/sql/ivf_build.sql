-- ruivfflat: operator classes, storage parameters, limits; every class finds what a sort finds.

SELECT amname, amtype FROM pg_am WHERE amname = 'ruivfflat';
SELECT c.opcname, c.opcdefault, amvalidate(c.oid)
FROM pg_opclass c JOIN pg_am a ON a.oid = c.opcmethod WHERE a.amname = 'ruivfflat' ORDER BY 1;
SELECT property, pg_indexam_has_property(a.oid, property)
FROM pg_am a, unnest(ARRAY['can_order', 'can_unique', 'can_multi_col', 'can_exclude', 'can_include']) property
WHERE a.amname = 'ruivfflat';

-- distances of the k nearest rows of items, by the index or by a sort
CREATE FUNCTION nearest(query ruvector, operator text, k int, by_index boolean)
RETURNS double precision[] LANGUAGE plpgsql AS $$
DECLARE
    result double precision[];
BEGIN
    PERFORM set_config('enable_seqscan', (NOT by_index)::text, true),
            set_config('enable_indexscan', by_index::text, true);
    EXECUTE format('SELECT array_agg(d) FROM (SELECT v %1$s $1 AS d FROM items ORDER BY v %1$s $1 LIMIT %2$s) t',
                   operator, k) USING query INTO result;
    RETURN result;
END $$;

SELECT setseed(0.1);
CREATE TABLE items (id int, v ruvector(8));
INSERT INTO items
SELECT i, array_agg((random() - 0.5)::real) FROM generate_series(1, 600) i, generate_series(1, 8) d GROUP BY i;
CREATE TABLE queries AS
SELECT i AS id, array_agg((random() - 0.5)::real)::ruvector AS q
FROM generate_series(1, 20) i, generate_series(1, 8) d GROUP BY i;
SET ruvector.probes = 1000;
SET ruvector.adaptive_search = off;
SET enable_seqscan = off;

CREATE INDEX items_l2 ON items USING ruivfflat (v ruvector_l2_ops);
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <-> '[0,0,0,0,0,0,0,0]' LIMIT 10;
SELECT count(*) FROM queries WHERE nearest(q, '<->', 600, true) = nearest(q, '<->', 600, false);
-- the index serves its own operator only
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <=> '[0,0,0,0,0,0,0,0]' LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <-> '[0,0,0,0,0,0,0,0]' DESC LIMIT 10;
DROP INDEX items_l2;

CREATE INDEX items_ip ON items USING ruivfflat (v ruvector_ip_ops);
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <#> '[1,0,0,0,0,0,0,0]' LIMIT 10;
SELECT count(*) FROM queries WHERE nearest(q, '<#>', 600, true) = nearest(q, '<#>', 600, false);
DROP INDEX items_ip;

CREATE INDEX items_cosine ON items USING ruivfflat (v ruvector_cosine_ops);
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <=> '[1,0,0,0,0,0,0,0]' LIMIT 10;
-- the index compares unit vectors: equal up to rounding
SELECT count(*) FROM queries,
LATERAL (SELECT max(abs(a - b)) AS worst, count(*)
         FROM unnest(nearest(q, '<=>', 600, true), nearest(q, '<=>', 600, false)) u (a, b)) t
WHERE worst < 1e-6 AND count = 600;
DROP INDEX items_cosine;

CREATE INDEX items_l1 ON items USING ruivfflat (v ruvector_l1_ops);
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <+> '[0,0,0,0,0,0,0,0]' LIMIT 10;
SELECT count(*) FROM queries WHERE nearest(q, '<+>', 600, true) = nearest(q, '<+>', 600, false);
DROP INDEX items_l1;

-- all four together: each operator takes its own
CREATE INDEX items_l2 ON items USING ruivfflat (v ruvector_l2_ops);
CREATE INDEX items_ip ON items USING ruivfflat (v ruvector_ip_ops);
CREATE INDEX items_cosine ON items USING ruivfflat (v ruvector_cosine_ops);
CREATE INDEX items_l1 ON items USING ruivfflat (v ruvector_l1_ops);
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <=> '[1,0,0,0,0,0,0,0]' LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY v <+> '[1,0,0,0,0,0,0,0]' LIMIT 10;
DROP INDEX items_l2, items_ip, items_cosine, items_l1;

-- in a few of the lists most of the ten nearest are found
SET ruvector.probes = 8;
CREATE INDEX items_l2 ON items USING ruivfflat (v ruvector_l2_ops) WITH (lists = 20);
SELECT sum(found) / (10.0 * count(*)) >= 0.9 AS recall
FROM queries, LATERAL (SELECT count(*) AS found FROM unnest(nearest(q, '<->', 10, true)) d
                       WHERE d <= (nearest(q, '<->', 10, false))[10]) t;
DROP INDEX items_l2;
SET ruvector.probes = 1000;

-- storage parameters
CREATE INDEX items_few ON items USING ruivfflat (v ruvector_l2_ops) WITH (lists = 3, storage = float32);
SELECT count(*) FROM queries WHERE nearest(q, '<->', 10, true) = nearest(q, '<->', 10, false);
DROP INDEX items_few;
CREATE INDEX items_codes ON items USING ruivfflat (v ruvector_l2_ops) WITH (lists = 30, storage = fixed32);
SELECT count(*) FROM queries WHERE nearest(q, '<->', 600, true) = nearest(q, '<->', 600, false);
ALTER INDEX items_codes SET (storage = float32, lists = 5);
SELECT reloptions FROM pg_class WHERE relname = 'items_codes';
REINDEX INDEX items_codes;
SELECT count(*) FROM queries WHERE nearest(q, '<->', 600, true) = nearest(q, '<->', 600, false);
ALTER INDEX items_codes SET (adaptive_search = false);
ALTER INDEX items_codes RESET (lists, storage);
SELECT reloptions FROM pg_class WHERE relname = 'items_codes';
DROP INDEX items_codes;
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops) WITH (lists = -1);
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops) WITH (lists = 32769);
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops) WITH (lists = 'many');
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops) WITH (storage = 'int4');
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops) WITH (adaptive_search = 'maybe');
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops) WITH (m = 16);
-- more lists than rows
CREATE INDEX items_many ON items USING ruivfflat (v ruvector_l2_ops) WITH (lists = 1000);
SELECT count(*) FROM queries WHERE nearest(q, '<->', 600, true) = nearest(q, '<->', 600, false);
DROP INDEX items_many;

-- what it does not index
CREATE INDEX ON items USING ruivfflat (v);
CREATE INDEX ON items USING ruivfflat (v ruvector_ops);
CREATE INDEX ON items USING ruivfflat (id);
CREATE UNIQUE INDEX ON items USING ruivfflat (v ruvector_l2_ops);
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops, v ruvector_ip_ops);
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops) INCLUDE (id);
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops DESC);
CREATE INDEX ON items USING ruivfflat (v ruvector_l2_ops NULLS FIRST);
ALTER TABLE items ADD EXCLUDE USING ruivfflat (v ruvector_l2_ops WITH =);
CREATE TABLE untyped (v ruvector);
CREATE INDEX ON untyped USING ruivfflat (v ruvector_l2_ops);
DROP TABLE untyped;

-- dimensions: up to 2,000
CREATE TABLE wide (v ruvector(2000));
INSERT INTO wide SELECT array_agg((i * j) % 97) FROM generate_series(1, 2000) i, generate_series(1, 20) j GROUP BY j;
CREATE INDEX ON wide USING ruivfflat (v ruvector_l2_ops);
SELECT count(*) FROM (SELECT v FROM wide ORDER BY v <-> (SELECT v FROM wide LIMIT 1)) t;
DROP TABLE wide;
CREATE TABLE wider (v ruvector(2001));
CREATE INDEX ON wider USING ruivfflat (v ruvector_l2_ops);
DROP TABLE wider;
CREATE TABLE narrow (v ruvector(1));
INSERT INTO narrow SELECT ARRAY[i] FROM generate_series(1, 300) i;
CREATE INDEX ON narrow USING ruivfflat (v ruvector_l2_ops);
SELECT v FROM narrow ORDER BY v <-> '[100.2]' LIMIT 5;
DROP TABLE narrow;
DROP TABLE items, queries;
