-- Vectors in tables: TOAST, short headers, domains, arrays, defaults, inheritance of the modifier.

SELECT typlen, typalign, typstorage, typmodin, typsend, typreceive FROM pg_type
WHERE oid = 'ruvector'::regtype;

-- out of line and not compressed
CREATE TABLE stored (id int PRIMARY KEY, v ruvector);
INSERT INTO stored
SELECT d, (SELECT array_agg(i % 100) FROM generate_series(1, d) i)
FROM unnest(ARRAY[1, 29, 30, 31, 100, 500, 510, 2000, 16000]) d;
SELECT id, ruvector_dims(v), pg_column_size(v), pg_column_compression(v) FROM stored ORDER BY id;
SELECT pg_relation_size(reltoastrelid) > 0 AS toasted FROM pg_class WHERE oid = 'stored'::regclass;
SELECT count(*) AS mismatches FROM stored
WHERE v <> (SELECT array_agg(i % 100)::ruvector FROM generate_series(1, id) i);
SELECT id, v <-> v, subvector(v, id - 1, 2) FROM stored WHERE id > 1 ORDER BY id;
UPDATE stored SET v = v + v;
SELECT id, round(ruvector_norm(v)) FROM stored ORDER BY id;
SELECT avg(v) = sum(v) FROM stored WHERE id = 16000;
DELETE FROM stored WHERE id > 500;
VACUUM stored;
SELECT sum(ruvector_dims(v)) FROM stored;

-- the same bytes after a round trip through text, as a dump and a restore make it
CREATE TABLE restored (LIKE stored);
\getenv abs_builddir PG_ABS_BUILDDIR
\set file :abs_builddir '/ruvector_dump.data'
COPY stored TO :'file';
COPY restored FROM :'file';
SELECT count(*) AS rows, count(*) FILTER (WHERE ruvector_send(s.v) = ruvector_send(r.v)) AS same
FROM stored s JOIN restored r USING (id);
DROP TABLE stored, restored;

-- domains, arrays, defaults, generated columns, rows
CREATE DOMAIN unit_vector AS ruvector(2) CHECK (abs(ruvector_norm(VALUE) - 1) < 1e-6);
SELECT '[0.6,0.8]'::unit_vector;
SELECT '[1,1]'::unit_vector;
SELECT '[1]'::unit_vector;
CREATE TABLE places (
    id int GENERATED ALWAYS AS IDENTITY,
    v ruvector(2) DEFAULT '[1,0]',
    n ruvector(2) GENERATED ALWAYS AS (l2_normalize(v)) STORED,
    history ruvector[] DEFAULT '{}'
);
INSERT INTO places (v, history) VALUES (DEFAULT, '{"[1,2]","[3,4,5]"}'), ('[3,4]', ARRAY['[1]'::ruvector]);
SELECT *, history[1] FROM places ORDER BY id;
SELECT places FROM places ORDER BY id;
SELECT to_jsonb(places) FROM places ORDER BY id;
ANALYZE places;
DROP TABLE places;
DROP DOMAIN unit_vector;
