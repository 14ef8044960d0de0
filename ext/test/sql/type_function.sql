-- ruvector_dims, ruvector_norm, l2_normalize, subvector.

SELECT ruvector_dims('[1,2,3]'), ruvector_dims(NULL);

SELECT ruvector_norm('[3,4]'), ruvector_norm('[0,0]'), ruvector_norm('[-2]');
SELECT ruvector_norm('[3e38,3e38]') AS huge, ruvector_norm('[3e-40,4e-40]') AS tiny;

SELECT l2_normalize('[3,4]'::ruvector), l2_normalize('[0,0]'::ruvector), l2_normalize('[-5]'::ruvector);
SELECT l2_normalize('[3e38,4e37]'::ruvector), l2_normalize('[3e-45,0]'::ruvector);
SELECT abs(ruvector_norm(l2_normalize(array_agg(i)::ruvector)) - 1) < 1e-6
FROM generate_series(1, 2000) i;

-- subvector counts from 1, and is cut at the vector's ends as substring does
SELECT subvector('[1,2,3,4,5]'::ruvector, 1, 3);
SELECT subvector('[1,2,3,4,5]'::ruvector, 3, 2);
SELECT subvector('[1,2,3,4,5]'::ruvector, 5, 1);
SELECT subvector('[1,2,3,4,5]'::ruvector, 4, 9);
SELECT subvector('[1,2,3,4,5]'::ruvector, -1, 4);
SELECT subvector('[1,2,3,4,5]'::ruvector, 2, 2147483647);
SELECT subvector('[1,2,3,4,5]'::ruvector, start => 2, count => 1);
SELECT subvector('[1,2,3,4,5]'::ruvector, NULL, 1);
SELECT subvector('[1,2,3,4,5]'::ruvector, 6, 1);
SELECT subvector('[1,2,3,4,5]'::ruvector, 1, 0);
SELECT subvector('[1,2,3,4,5]'::ruvector, 1, -1);
SELECT subvector('[1,2,3,4,5]'::ruvector, -5, 3);
SELECT subvector('[1,2,3,4,5]'::ruvector, 2147483647, 2147483647);
SELECT subvector('[1,2,3,4,5]'::ruvector, -2147483648, -2147483648);
