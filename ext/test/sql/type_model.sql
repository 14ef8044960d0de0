-- The type against a model of it, PostgreSQL's own arrays; damaged inputs; arrays of vectors, storage, COPY.

SELECT setseed(0.7);
CREATE TABLE model AS
SELECT i AS id, (SELECT array_agg(floor(random() * 5 - 2)::real) FROM generate_series(1, 1 + i % 4)) AS a
FROM generate_series(1, 2000) i;

-- comparison is that of arrays, in every form
SELECT count(*) AS pairs, count(*) FILTER (WHERE sign(ruvector_cmp(x.a::ruvector, y.a::ruvector)) <> sign(btarraycmp(x.a, y.a))) AS cmp,
       count(*) FILTER (WHERE (x.a::ruvector < y.a::ruvector) <> (x.a < y.a)
                           OR (x.a::ruvector <= y.a::ruvector) <> (x.a <= y.a)
                           OR (x.a::ruvector = y.a::ruvector) <> (x.a = y.a)
                           OR (x.a::ruvector <> y.a::ruvector) <> (x.a <> y.a)
                           OR (x.a::ruvector >= y.a::ruvector) <> (x.a >= y.a)
                           OR (x.a::ruvector > y.a::ruvector) <> (x.a > y.a)) AS operators
FROM model x, model y WHERE y.id <= 40;

-- the cosine distance stays between its bounds, whatever rounding does
SELECT cosine_distance('[1,1]', '[-1.1,-1.1]'::ruvector), cosine_distance('[1,1]', '[1.1,1.1]'::ruvector),
       cosine_distance('[1,2,3,4,5,6,7,8,9]', '[-1,-2,-3,-4,-5,-6,-7,-8,-9]'::ruvector);
SELECT count(*), bool_and(x.a::ruvector <=> y.a::ruvector BETWEEN 0 AND 2) AS bounded
FROM model x JOIN model y ON cardinality(x.a) = cardinality(y.a)
WHERE y.id <= 40 AND ruvector_norm(x.a::ruvector) > 0 AND ruvector_norm(y.a::ruvector) > 0;

-- arrays of vectors, with and without a number of dimensions
SELECT v, ruvector_dims(v) FROM unnest('{"[1,2,3]","[4,5]",NULL}'::ruvector[]) v;
SELECT '{"[1,2]","[3,4]"}'::ruvector(2)[];
SELECT '{"[1,2]","[3,4,5]"}'::ruvector(2)[];
SELECT '[1,2,3]'::ruvector(3, 2);

-- damaged input is refused with a message about the type or about the number, or is a vector all the same
CREATE TABLE damaged (input text, said text);
DO $$
DECLARE
    subs text[] := ARRAY[' ', ',', ':', '-', '+', '.', 'e', '[', ']', '1', '9', 'x', '2147483648', '-2147483649', ''];
    input text;
    at int;
    said text;
BEGIN
    FOR round IN 1..2000 LOOP
        input := '[1.23,4.56,7.89]';
        FOR change IN 1..1 + round % 3 LOOP
            at := 1 + floor(random() * length(input))::int;
            IF random() < 0.1 THEN
                input := left(input, at - 1);
            ELSE
                input := overlay(input PLACING subs[1 + floor(random() * array_length(subs, 1))::int]
                                 FROM at FOR round % 2);
            END IF;
        END LOOP;
        BEGIN
            said := input::ruvector::text;
            -- what is accepted is a vector whose text is accepted again
            IF said::ruvector::text <> said THEN
                said := 'another vector';
            END IF;
        EXCEPTION WHEN data_exception OR invalid_text_representation OR numeric_value_out_of_range THEN
            said := sqlerrm;
        END;
        INSERT INTO damaged VALUES (input, said);
    END LOOP;
END $$;
SELECT count(*), count(*) FILTER (WHERE said ~ '^\[') > 50 AS some_accepted, count(*) FILTER (WHERE said ~ 'ruvector') > 500 AS many_refused
FROM damaged;
SELECT input, said FROM damaged WHERE said !~ 'ruvector' AND said !~ '^\[[-0-9.,e+]*\]$' ORDER BY 1 LIMIT 5;

-- a row that does not fit on a page is refused where the column may not be stored elsewhere
CREATE TABLE plain (a ruvector(1024), b ruvector(1024), c ruvector(1024));
INSERT INTO plain SELECT v, v, v FROM (SELECT array_agg(i) AS v FROM generate_series(1, 1024) i) t;
ALTER TABLE plain ALTER a SET STORAGE plain, ALTER b SET STORAGE plain, ALTER c SET STORAGE plain;
INSERT INTO plain SELECT v, v, v FROM (SELECT array_agg(i) AS v FROM generate_series(1, 1024) i) t;
SELECT count(*), bool_and(a = b AND b = c) FROM plain;

-- binary COPY there and back, NULLs included
CREATE TABLE copied (id int, v ruvector(3));
INSERT INTO copied VALUES (1, '[0,-0,1e-40]'), (2, '[1,2,3]'), (3, NULL), (4, '[-3e38,3e38,1]');
CREATE TABLE again (LIKE copied);
\getenv abs_builddir PG_ABS_BUILDDIR
\set file :abs_builddir '/ruvector_binary.data'
COPY copied TO :'file' (FORMAT binary);
COPY again FROM :'file' (FORMAT binary);
SELECT id, c.v, ruvector_send(c.v) = ruvector_send(a.v) AS same FROM copied c JOIN again a USING (id) ORDER BY id;
CREATE TABLE shorter (id int, v ruvector(2));
COPY shorter FROM :'file' (FORMAT binary);
DROP TABLE model, damaged, plain, copied, again, shorter;
