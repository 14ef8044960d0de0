-- Text and binary input and output of ruvector, and ruvector(n).

-- text in, text out
SELECT '[1,2,3]'::ruvector;
SELECT '[-1,+2.5,.5,4.]'::ruvector;
SELECT '[1e3,-2.5E-3,0.1e+1]'::ruvector;
SELECT E' \t\n\r\x0b\f[ 1 ,\t2\n,3 ] '::ruvector;
SELECT '[0,-0]'::ruvector;
SELECT '[1]'::ruvector;

-- output is the shortest text that reads back as the same float, whatever extra_float_digits says
SELECT '[0.1,1.2345678,16777217,123456.789,1e20]'::ruvector;
SET extra_float_digits = -10;
SELECT '[0.1,1.2345678]'::ruvector;
RESET extra_float_digits;
SELECT '[3.4028235e38,-3.4028235e38,1.1754944e-38,1e-45]'::ruvector;
SELECT '[1e-60,-1e-60]'::ruvector AS too_small_becomes_zero;
SELECT '[1.0000000000000000000000000000000000000000000000000000000000001]'::ruvector;
-- halfway between two floats (to the even one), and just beside it
SELECT '[16777217,16777219,16777217.0000001,16777216.9999999]'::ruvector;
SELECT '[16777217.0000000000000000000000001,16777218.9999999999999999999999999]'::ruvector;
SELECT '[00000000000000000000000000002,0.000000000000000000000000000003,4000e-3,.5E+1]'::ruvector;
SELECT setseed(0.5);
SELECT count(*) AS vectors, count(*) FILTER (WHERE v::text::ruvector <> v) AS changed
FROM (SELECT array_agg(((random() - 0.5) * 10 ^ (random() * 70 - 35))::real)::ruvector AS v
      FROM generate_series(1, 10000) i GROUP BY i % 100) t;

-- malformed text: what and where
SELECT ''::ruvector;
SELECT 'hello'::ruvector;
SELECT '1,2,3'::ruvector;
SELECT '(1,2,3)'::ruvector;
SELECT '{1,2,3}'::ruvector;
SELECT '['::ruvector;
SELECT '[1'::ruvector;
SELECT '[1,'::ruvector;
SELECT '[1,2'::ruvector;
SELECT '[1,2  '::ruvector;
SELECT '[1,,3]'::ruvector;
SELECT '[,1]'::ruvector;
SELECT '[1,2,]'::ruvector;
SELECT '[1, ]'::ruvector;
SELECT '[1 2,3]'::ruvector;
SELECT '[1,two,3]'::ruvector;
SELECT '[1,2x,3]'::ruvector;
SELECT '[1,2.5.5]'::ruvector;
SELECT '[1,0x10]'::ruvector;
SELECT '[1,-]'::ruvector;
SELECT '[1,.]'::ruvector;
SELECT '[1,1e]'::ruvector;
SELECT '[1,- 1]'::ruvector;
SELECT '[[1,2]]'::ruvector;
SELECT '[1,2]]'::ruvector;
SELECT '[1,2] x'::ruvector;
SELECT '[1,2][3]'::ruvector;
SELECT '[1,äöü]'::ruvector;

-- no vector holds these
SELECT '[]'::ruvector;
SELECT '[ ]'::ruvector;
SELECT '[1,NaN,3]'::ruvector;
SELECT '[1,-nan]'::ruvector;
SELECT '[Infinity]'::ruvector;
SELECT '[1,2,-inf]'::ruvector;
SELECT '[1,4e38]'::ruvector;
SELECT '[-1e400,1]'::ruvector;

-- a long input is quoted in part
SELECT ('[1,' || repeat('x', 100000) || ']')::ruvector;
SELECT ('[1,' || repeat('ä', 100000) || ']')::ruvector;
SELECT ('[' || repeat('9', 100000) || ']')::ruvector;
SELECT repeat('[', 100000)::ruvector;
SELECT repeat('1', 1000000)::ruvector;

-- up to 16,000 dimensions
SELECT ruvector_dims(('[' || repeat('1,', 15999) || '1]')::ruvector);
SELECT ('[' || repeat('1,', 16000) || '1]')::ruvector;
SELECT ('[' || repeat('1,', 1000000) || '1]')::ruvector;

-- ruvector(n)
SELECT '[1,2,3]'::ruvector(3);
SELECT '[1,2,3]'::ruvector(2);
SELECT '[1,2,3]'::ruvector::ruvector(4);
SELECT '[1]'::ruvector(0);
SELECT '[1]'::ruvector(-1);
SELECT '[1]'::ruvector(16001);
SELECT '[1]'::ruvector(1, 2);
SELECT '[1]'::ruvector('a');
CREATE TABLE typed (id int, v ruvector(3));
SELECT format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = 'typed'::regclass AND attname = 'v';
INSERT INTO typed VALUES (1, '[1,2,3]'), (2, NULL);
INSERT INTO typed VALUES (3, '[1,2]');
INSERT INTO typed VALUES (3, ARRAY[1, 2, 3, 4]);
UPDATE typed SET v = '[1,2]'::ruvector || '[3,4]';
ALTER TABLE typed ALTER v TYPE ruvector(2);
ALTER TABLE typed ALTER v TYPE ruvector;
INSERT INTO typed VALUES (3, '[1,2]');
ALTER TABLE typed ALTER v TYPE ruvector(3);
SELECT * FROM typed ORDER BY id;
DROP TABLE typed;

-- COPY as text
CREATE TABLE copied (id int, v ruvector(3));
COPY copied FROM stdin;
1	[1,2,3]
2	\N
3	[0.1,-0.2,1e-7]
\.
COPY copied TO stdout;
COPY copied FROM stdin;
4	[1,2,3]
5	[1,2,oops]
\.
COPY copied FROM stdin;
4	[1,2]
\.

-- binary: int16 dimensions, int16 zero, float4 values in network order
SELECT ruvector_send('[1,-2.5]');
\getenv abs_builddir PG_ABS_BUILDDIR
\set file :abs_builddir '/ruvector_binary.data'
COPY copied TO :'file' (FORMAT binary);
CREATE TABLE copied_back (LIKE copied);
COPY copied_back FROM :'file' (FORMAT binary);
SELECT id, b.v, ruvector_send(b.v) = ruvector_send(a.v) AS same
FROM copied a JOIN copied_back b USING (id) ORDER BY id;
CREATE TABLE wrong_length (id int, v ruvector(2));
COPY wrong_length FROM :'file' (FORMAT binary);

-- malformed binary: bytes written as bytea are read as a ruvector
CREATE TABLE received (v ruvector);
COPY (SELECT '\x000200003f800000c0200000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
SELECT * FROM received;
-- no dimensions, a negative number of them, one too many
COPY (SELECT '\x00000000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
COPY (SELECT '\xffff0000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
COPY (SELECT '\x3e810000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
-- the second field is not zero
COPY (SELECT '\x000100013f800000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
-- too short, too long, empty
COPY (SELECT '\x000200003f800000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
COPY (SELECT '\x000100003f8000003f800000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
COPY (SELECT '\x'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
-- NaN, Infinity, -Infinity
COPY (SELECT '\x000200003f8000007fc00000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
COPY (SELECT '\x000200007f8000003f800000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
COPY (SELECT '\x00010000ff800000'::bytea) TO :'file' (FORMAT binary);
COPY received FROM :'file' (FORMAT binary);
SELECT count(*) FROM received;
DROP TABLE copied, copied_back, wrong_length, received;

-- SQLSTATEs
\set VERBOSITY sqlstate
SELECT '[1'::ruvector;
SELECT '[]'::ruvector;
SELECT '[nan]'::ruvector;
SELECT '[1e39]'::ruvector;
SELECT '[1,2]'::ruvector(3);
SELECT '[1]'::ruvector(0);
SELECT ('[' || repeat('1,', 16000) || '1]')::ruvector;
