-- sum and avg.

CREATE TABLE agg (g int, v ruvector);
SELECT sum(v), avg(v) FROM agg;
INSERT INTO agg VALUES (1, '[1,2]'), (1, '[3,5]'), (1, NULL), (2, '[10,20,30]'), (3, NULL);
SELECT g, sum(v), avg(v), count(v) FROM agg GROUP BY g ORDER BY g;
SELECT sum(v) FILTER (WHERE g = 1), avg(v) FILTER (WHERE g = 9), sum(DISTINCT v) FILTER (WHERE g = 1)
FROM agg;
SELECT g, sum(v) OVER (ORDER BY v NULLS LAST ROWS UNBOUNDED PRECEDING),
       avg(v) OVER (ORDER BY v NULLS LAST ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
FROM agg WHERE g = 1;

-- different dimensions
SELECT sum(v) FROM agg;
SELECT avg(v) FROM agg;

-- doubles carry what floats would lose or could not hold
SELECT sum(v), avg(v) FROM (VALUES ('[16777216]'::ruvector), ('[1]'), ('[1]')) t (v);
SELECT sum(v), avg(v) FROM (VALUES ('[1,3e38]'::ruvector), ('[1,3e38]'), ('[1,-3e38]')) t (v);
SELECT avg(v) FROM (VALUES ('[1,3e38]'::ruvector), ('[1,3e38]')) t (v);
SELECT sum(v) FROM (VALUES ('[1,3e38]'::ruvector), ('[1,3e38]')) t (v);

-- against sums of elements, serially and in parallel
CREATE TABLE many AS
SELECT i % 3 AS g, CASE WHEN i % 7 > 0 THEN ARRAY[i, -i, i % 10, 1]::ruvector END AS v
FROM generate_series(1, 20000) i;
CREATE VIEW expected AS
SELECT g, array_agg(total ORDER BY n) AS sum, array_agg(total / rows ORDER BY n) AS avg
FROM (SELECT g, n, sum(x) AS total, count(*) AS rows
      FROM many, unnest(v::double precision[]) WITH ORDINALITY u (x, n) GROUP BY g, n) t
GROUP BY g;
ANALYZE many;
SET max_parallel_workers_per_gather = 0;
EXPLAIN (COSTS OFF) SELECT sum(v), avg(v) FROM many;
CREATE TABLE serial AS SELECT g, sum(v), avg(v) FROM many GROUP BY g;
SELECT g, s.sum = e.sum::ruvector AS sum, s.avg = e.avg::ruvector AS avg
FROM serial s JOIN expected e USING (g) ORDER BY g;
SELECT sum(v), avg(v) FROM many;
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT sum(v), avg(v) FROM many;
SELECT sum(v), avg(v) FROM many;
SELECT g, s.sum = p.sum AS sum, s.avg = p.avg AS avg
FROM serial s JOIN (SELECT g, sum(v), avg(v) FROM many GROUP BY g) p USING (g) ORDER BY g;
-- a worker that saw no row adds nothing
SELECT sum(v), avg(v) FROM many WHERE v = '[1,-1,1,1]';
SELECT sum(v), avg(v) FROM many WHERE v IS NULL;
RESET ALL;
DROP VIEW expected;
DROP TABLE many, serial, agg;

-- large vectors
SELECT ruvector_dims(sum(v)), subvector(avg(v), 15999, 2)
FROM (SELECT (SELECT array_agg(i * g)::ruvector FROM generate_series(1, 16000) i) AS v
      FROM generate_series(1, 3) g) t;

-- the state functions accept a state only
SELECT ruvector_accum('{0}', '[1,2]'), ruvector_accum('{1,1,2}', '[1,2]');
SELECT ruvector_combine('{1,1,2}', '{2,3,4}'), ruvector_combine('{0}', '{1,5}'),
       ruvector_combine('{1,5}', '{0}'), ruvector_combine('{0}', '{0}');
SELECT ruvector_avg('{0}'), ruvector_sum('{0}'), ruvector_avg('{0,1}');
SELECT ruvector_accum('{}', '[1]');
SELECT ruvector_accum('{{1,2}}', '[1]');
SELECT ruvector_accum('{1,NULL}', '[1]');
SELECT ruvector_accum('{1,1,1}', '[1]');
SELECT ruvector_combine('{1,1,1}', '{1,1}');
SELECT ruvector_avg('{1,NaN}');
SELECT ruvector_sum('{1,1e39}');
