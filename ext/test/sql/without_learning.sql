-- A build with WITH_LEARNING=no: the type and the indexes work, learning says that it is not there.
CREATE TABLE items (id bigint PRIMARY KEY, embedding ruvector(3));
INSERT INTO items SELECT n, ARRAY[n, n % 7, n % 3]::ruvector FROM generate_series(1, 200) n;
CREATE INDEX items_graph ON items USING ruhnsw (embedding ruvector_l2_ops);
SET enable_seqscan = off;
EXPLAIN (COSTS off) SELECT id FROM items ORDER BY embedding <-> '[50,1,2]' LIMIT 3;
SELECT id FROM items ORDER BY embedding <-> '[50,1,2]' LIMIT 3;
DROP INDEX items_graph;
CREATE INDEX items_lists ON items USING ruivfflat (embedding ruvector_l2_ops) WITH (lists = 4);
SET ruvector.probes = 4;
SELECT id FROM items ORDER BY embedding <-> '[50,1,2]' LIMIT 3;
SELECT * FROM ruvector_index_verify('items_lists', true);

SELECT ruvector_enable_learning('items');
SELECT ruvector_learning_stats('items');
SELECT ruvector_last_query_id();
SELECT * FROM ruvector_policies();
SELECT count(*) FROM ruvector_trajectories;

-- every function that is missing says the same
DO $$
DECLARE
    missing regprocedure;
    refused integer := 0;
BEGIN
    FOR missing IN SELECT p.oid::regprocedure FROM pg_proc p
        JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
        WHERE p.pronargs = 0 AND p.prorettype <> 'trigger'::regtype LOOP
        BEGIN
            EXECUTE 'SELECT ' || missing;
        EXCEPTION WHEN feature_not_supported THEN
            refused := refused + 1;
        END;
    END LOOP;
    RAISE NOTICE 'several refused: %', refused >= 4;
END $$;
