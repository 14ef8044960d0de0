-- Distance functions and operators.

SELECT l2_distance('[0,0]'::ruvector, '[3,4]'), '[0,0]'::ruvector <-> '[3,4]';
SELECT inner_product('[1,2]'::ruvector, '[3,4]'), '[1,2]'::ruvector <#> '[3,4]',
       ruvector_negative_inner_product('[1,2]', '[3,4]');
SELECT cosine_distance('[1,0]'::ruvector, '[0,2]'), '[1,0]'::ruvector <=> '[5,0]',
       '[1,0]'::ruvector <=> '[-3,0]';
SELECT l1_distance('[0,0]'::ruvector, '[3,-4]'), '[0,0]'::ruvector <+> '[3,-4]';

-- the distance of a vector to itself
SELECT v <-> v AS l2, v <=> v < 1e-6 AS cosine, v <+> v AS l1
FROM (SELECT array_agg(i / 7.0)::ruvector AS v FROM generate_series(1, 300) i) t;

-- orthogonal vectors have inner product 0, not -0
SELECT '[1,0]'::ruvector <#> '[0,1]';

-- a zero vector has no direction
SELECT '[0,0]'::ruvector <=> '[1,2]', '[1,2]'::ruvector <=> '[0,0]', '[0,0]'::ruvector <=> '[0,0]';
SELECT '[0,0]'::ruvector <-> '[0,0]', '[0,0]'::ruvector <#> '[1,2]', '[0,0]'::ruvector <+> '[0,0]';

-- huge and tiny elements, whose squares no float holds
SELECT '[3e38]'::ruvector <-> '[-3e38]' AS l2, '[3e38]'::ruvector <#> '[3e38]' AS ip,
       '[3e38,0]'::ruvector <=> '[3e38,3e38]' AS cosine, '[3e38,3e38]'::ruvector <+> '[-3e38,0]' AS l1;
SELECT '[1e-30]'::ruvector <-> '[0]' AS l2, '[1e-30]'::ruvector <#> '[1e-30]' AS ip,
       '[1e-30,0]'::ruvector <=> '[1e-30,1e-30]' AS cosine, '[1e-45]'::ruvector <+> '[0]' AS l1;

-- against the definition, at many dimensions
SELECT setseed(0.125);
CREATE TABLE pairs AS
SELECT d, array_agg((random() - 0.5)::real)::ruvector AS a, array_agg((random() - 0.5)::real)::ruvector AS b
FROM unnest(ARRAY[1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 129, 384, 768, 1536, 2000, 16000]) d,
     generate_series(1, d) GROUP BY d;
SELECT d,
       abs((a <-> b) - l2) <= 1e-5 * l2 AS l2,
       abs((a <#> b) + ip) <= 1e-5 * sqrt(aa * bb) AS ip,
       abs((a <=> b) - (1 - ip / sqrt(aa * bb))) <= 1e-5 AS cosine,
       abs((a <+> b) - l1) <= 1e-5 * l1 AS l1,
       (a <-> b) = (b <-> a) AND (a <+> b) = (b <+> a) AS symmetric
FROM pairs, LATERAL (
    SELECT sqrt(sum((x - y) ^ 2)) AS l2, sum(x * y) AS ip, sum(x * x) AS aa, sum(y * y) AS bb,
           sum(abs(x - y)) AS l1
    FROM unnest(a::double precision[], b::double precision[]) u (x, y)) exact
ORDER BY d;
DROP TABLE pairs;

-- NULL and unequal dimensions
SELECT '[1]'::ruvector <-> NULL, NULL::ruvector <=> '[1]';
SELECT '[1,2]'::ruvector <-> '[1]';
SELECT '[1,2]'::ruvector <#> '[1]';
SELECT '[1,2]'::ruvector <=> '[1]';
SELECT '[1,2]'::ruvector <+> '[1]';
SELECT inner_product('[1,2]'::ruvector, '[1,2,3]');
\set VERBOSITY sqlstate
SELECT '[1,2]'::ruvector <-> '[1]';
