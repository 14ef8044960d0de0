-- Casts between ruvector and arrays of numbers.

-- array to vector
SELECT ARRAY[1, 2, -3]::ruvector;
SELECT ARRAY[1.5, 0.1]::real[]::ruvector;
SELECT ARRAY[1.5, 0.1]::double precision[]::ruvector;
SELECT ARRAY[1.5, 0.1, 1e-50]::numeric[]::ruvector;
SELECT '[5:6]={7,8}'::int[]::ruvector AS bounds_do_not_matter;
SELECT ARRAY[2147483647, -2147483648]::ruvector;
SELECT ARRAY[1e-60]::double precision[]::ruvector AS too_small_becomes_zero;

-- with a number of dimensions
SELECT ARRAY[1, 2, 3]::ruvector(3);
SELECT ARRAY[1, 2, 3]::ruvector(2);
SELECT ARRAY[1, 2, 3]::real[]::ruvector(2);
SELECT ARRAY[1, 2, 3]::double precision[]::ruvector(4);
SELECT ARRAY[1, 2, 3]::numeric[]::ruvector(4);

-- what no vector holds, and where it is
SELECT '{}'::int[]::ruvector;
SELECT '{{1,2},{3,4}}'::real[]::ruvector;
SELECT '{{{1}}}'::int[]::ruvector;
SELECT ARRAY[1, NULL, 3]::ruvector;
SELECT ARRAY[NULL]::numeric[]::ruvector;
SELECT ARRAY[1, 'NaN']::real[]::ruvector;
SELECT ARRAY['Infinity']::real[]::ruvector;
SELECT ARRAY[1, 2, '-Infinity']::real[]::ruvector;
SELECT ARRAY[1, 'NaN']::double precision[]::ruvector;
SELECT ARRAY[1, '-Infinity']::double precision[]::ruvector;
SELECT ARRAY[1, 4e38]::double precision[]::ruvector;
SELECT ARRAY[-1e300]::double precision[]::ruvector;
SELECT ARRAY[1, 'NaN']::numeric[]::ruvector;
SELECT ARRAY['Infinity']::numeric[]::ruvector;
SELECT ARRAY[1, '-Infinity']::numeric[]::ruvector;
SELECT ARRAY[1, -1e39]::numeric[]::ruvector;
SELECT array_agg(i)::ruvector FROM generate_series(1, 16001) i;
SELECT ARRAY['a']::text[]::ruvector;
SELECT ruvector_dims(array_agg(i)::ruvector) FROM generate_series(1, 16000) i;

-- vector to array
SELECT '[1.5,-0.1,3e38]'::ruvector::real[];
SELECT '[1.5,-0.25,1e30]'::ruvector::double precision[];
SELECT '[1.4,1.5,2.5,-1.5,-1.6]'::ruvector::int[];
SELECT '[1.5,-0.1,1.2345678,1e20,1e-10]'::ruvector::numeric[];
SELECT '[1,3e9]'::ruvector::int[];
SELECT '[-2147483648]'::ruvector::int[];
SELECT '[1,2147483648]'::ruvector::int[];

-- there and back
SELECT setseed(0.25);
SELECT count(*) AS vectors,
       count(*) FILTER (WHERE v::real[]::ruvector <> v) AS changed_by_real,
       count(*) FILTER (WHERE v::double precision[]::ruvector <> v) AS changed_by_double,
       count(*) FILTER (WHERE v::numeric[]::ruvector <> v) AS changed_by_numeric
FROM (SELECT array_agg(((random() - 0.5) * 10 ^ (random() * 60 - 30))::real)::ruvector AS v
      FROM generate_series(1, 1000) i GROUP BY i % 100) t;

-- arrays are assigned to a column; vectors are passed to functions on real[]
CREATE TABLE casts (v ruvector(2), r real[], d double precision[], i int[], n numeric[]);
INSERT INTO casts (v) VALUES (ARRAY[1, 2]), (ARRAY[1, 2]::real[]), (ARRAY[1, 2]::float8[]),
    (ARRAY[1.5, 2]), (NULL::int[]);
INSERT INTO casts (v) VALUES (ARRAY[1, 2, 3]);
UPDATE casts SET r = v, d = v, i = v, n = v;
SELECT * FROM casts;
SELECT array_length('[1,2,3]'::ruvector::real[], 1), unnest('[1,2]'::ruvector::real[]);
CREATE FUNCTION second(real[]) RETURNS real LANGUAGE sql AS 'SELECT $1[2]';
SELECT second('[1,2,3]'::ruvector);
DROP FUNCTION second;
DROP TABLE casts;

-- text, by the type's own input and output
SELECT '[1, 2]'::text::ruvector, '[1,2]'::ruvector::text || '!';
SELECT '[1,2]'::varchar::ruvector(3);

\set VERBOSITY sqlstate
SELECT '{{1,2},{3,4}}'::real[]::ruvector;
SELECT ARRAY[1, NULL, 3]::ruvector;
SELECT ARRAY[1e300]::double precision[]::ruvector;
SELECT ARRAY['NaN']::double precision[]::ruvector;
SELECT '[1,3e9]'::ruvector::int[];
