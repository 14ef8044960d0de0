-- An index's own effort and target: who wins, the session, the index or the server.

CREATE TABLE items (id bigint PRIMARY KEY, embedding ruvector(3));
INSERT INTO items SELECT n, ARRAY[n, n % 7, n % 3]::ruvector FROM generate_series(1, 300) n;
CREATE INDEX graph ON items USING ruhnsw (embedding ruvector_l2_ops);
CREATE INDEX lists ON items USING ruivfflat (embedding ruvector_cosine_ops) WITH (lists = 10);
CREATE VIEW efforts AS
    SELECT g.ef_search, g.target_recall AS graph_target, l.probes, l.target_recall AS lists_target
    FROM ruvector_get_search_params('graph', '[1,2,3]') g, ruvector_get_search_params('lists', '[1,2,3]') l;

-- the server
TABLE efforts;

-- the index
ALTER INDEX graph SET (ef_search = 80, target_recall = 0.9);
ALTER INDEX lists SET (probes = 4, target_recall = 0.85);
TABLE efforts;
SET enable_seqscan = off;
SELECT count(*) FROM (SELECT id FROM items ORDER BY embedding <-> '[50,1,2]' LIMIT 3) t;
SELECT index, ef_search, target_recall FROM ruvector_last_search();
RESET enable_seqscan;

-- the server still does not win
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET ruvector.ef_search = 77', current_database()); END $$;
\c -
SHOW ruvector.ef_search;
TABLE efforts;

-- the session wins, as long as it says so
SET ruvector.ef_search = 15;
SET ruvector.probes = 2;
SET ruvector.target_recall = 0.99;
TABLE efforts;
RESET ruvector.ef_search;
RESET ruvector.probes;
RESET ruvector.target_recall;
TABLE efforts;
BEGIN;
SET LOCAL ruvector.ef_search = 40;
TABLE efforts;
COMMIT;
TABLE efforts;
BEGIN;
SET ruvector.probes = 3;
ROLLBACK;
TABLE efforts;
CREATE FUNCTION effort_of_function() RETURNS integer LANGUAGE sql SET ruvector.ef_search = 33
    AS $$ SELECT ef_search FROM efforts $$;
SELECT effort_of_function();
TABLE efforts;

-- back to the server
ALTER INDEX graph RESET (ef_search, target_recall);
ALTER INDEX lists SET (probes = 0, target_recall = 0);
TABLE efforts;

-- ranges and names
ALTER INDEX graph SET (ef_search = -1);
ALTER INDEX graph SET (ef_search = 10001);
ALTER INDEX graph SET (target_recall = 0.3);
ALTER INDEX graph SET (target_recall = 1.01);
ALTER INDEX graph SET (probes = 3);
ALTER INDEX lists SET (probes = 32769);
ALTER INDEX lists SET (target_recall = 0.49);
ALTER INDEX lists SET (ef_search = 50);
