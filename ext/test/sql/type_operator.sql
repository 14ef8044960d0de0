-- Arithmetic, concatenation and comparison of vectors.

SELECT '[1,2,3]'::ruvector + '[4,5,6]';
SELECT '[1,2,3]'::ruvector - '[4,5.5,3]';
SELECT '[1,2,3]'::ruvector * '[4,5,-6]';
SELECT '[1,2]'::ruvector || '[3]';
SELECT '[1,2]'::ruvector || '[3]' || '[4,5]';
SELECT NULL::ruvector + '[1]', '[1]'::ruvector * NULL, '[1]'::ruvector || NULL;

-- every element, also beyond one machine register
SELECT bool_and(s = i * 3 AND d = -i AND p = i * i * 2)
FROM (SELECT array_agg(i ORDER BY i)::ruvector AS a, array_agg(i * 2 ORDER BY i)::ruvector AS b
      FROM generate_series(1, 1001) i) t,
     unnest((a + b)::real[], (a - b)::real[], (a * b)::real[]) WITH ORDINALITY AS u (s, d, p, i);

-- unequal dimensions
SELECT '[1,2]'::ruvector + '[1]';
SELECT '[1,2]'::ruvector - '[1]';
SELECT '[1,2]'::ruvector * '[1,2,3]';

-- beyond the range of a float; too small becomes zero
SELECT '[1,3e38]'::ruvector + '[1,3e38]';
SELECT '[-3e38]'::ruvector - '[3e38]';
SELECT '[1,1,1e20]'::ruvector * '[1,1,-1e20]';
SELECT '[1e-30]'::ruvector * '[1e-30]';
SELECT array_agg(i)::ruvector || '[1]' FROM generate_series(1, 16000) i;
SELECT ruvector_dims(array_agg(i)::ruvector || '[1]') FROM generate_series(1, 15999) i;

-- comparison: element by element, then by length
SELECT a, b, a < b AS lt, a <= b AS le, a = b AS eq, a <> b AS ne, a >= b AS ge, a > b AS gt,
       ruvector_cmp(a, b) AS cmp
FROM (VALUES ('[1,2,3]'::ruvector, '[1,2,3]'::ruvector),
             ('[1,2,3]', '[1,2,4]'),
             ('[2]', '[1,9]'),
             ('[1,2]', '[1,2,0]'),
             ('[1,2,-5]', '[1,2]'),
             ('[-0]', '[0]'),
             ('[1]', NULL)) t (a, b);

-- operators know their commutators and negators
EXPLAIN (COSTS OFF) SELECT 1 FROM (SELECT '[1]'::ruvector AS v OFFSET 0) t WHERE NOT v < '[2]';
EXPLAIN (COSTS OFF) SELECT 1 FROM (SELECT '[1]'::ruvector AS v OFFSET 0) t WHERE NOT v = '[2]';

\set VERBOSITY sqlstate
SELECT '[1,2]'::ruvector + '[1]';
SELECT '[3e38]'::ruvector + '[3e38]';
SELECT array_agg(i)::ruvector || '[1]' FROM generate_series(1, 16000) i;
