-- Tuning an index: arguments, what is set, and undoing it.

CREATE TABLE items (id bigint PRIMARY KEY, embedding ruvector(3));
CREATE INDEX graph ON items USING ruhnsw (embedding ruvector_l2_ops);
CREATE INDEX lists ON items USING ruivfflat (embedding ruvector_l2_ops) WITH (lists = 8);

SELECT * FROM ruvector_auto_tune('graph', 'speed');
SELECT * FROM ruvector_auto_tune('graph', '');
SELECT * FROM ruvector_auto_tune('graph', 'recall', 9);
SELECT * FROM ruvector_auto_tune('graph', 'recall', 10001);
SELECT * FROM ruvector_auto_tune('items_pkey');
SELECT * FROM ruvector_auto_tune('items');
SELECT count(*) FROM ruvector_auto_tune(NULL);
SELECT * FROM ruvector_auto_tune('graph');
SELECT ruvector_auto_tune_undo('graph');
SELECT ruvector_auto_tune_undo('items_pkey');

-- rows that are all alike: any effort finds them
INSERT INTO items SELECT n, '[1,2,3]' FROM generate_series(1, 50) n;
INSERT INTO items VALUES (51, NULL);
SELECT parameter, value, recall, queries, measured_with, chosen, target_recall
    FROM ruvector_auto_tune('graph', 'recall', 20);
SELECT parameter, value, recall, queries, measured_with, chosen, target_recall
    FROM ruvector_auto_tune('lists', 'latency', 20);
SELECT relname, reloptions FROM pg_class WHERE relname IN ('graph', 'lists') ORDER BY relname;

-- what was there before comes back, one tuning after the other
SELECT ruvector_auto_tune_undo('graph');
ALTER INDEX graph SET (ef_search = 77);
SELECT count(*) FROM ruvector_auto_tune('graph');
SELECT count(*) FROM ruvector_auto_tune('graph', 'recall');
SELECT optimized_for, effort_name, former_effort, former_target_recall, tuned_by
    FROM ruvector_tunings ORDER BY tuned_at;
SELECT ruvector_auto_tune_undo('graph');
SELECT ruvector_auto_tune_undo('graph');
SELECT ruvector_auto_tune_undo('graph');
SELECT reloptions FROM pg_class WHERE relname = 'graph';

-- rights, and transactions that may not write
CREATE ROLE regress_tuning_reader;
GRANT SELECT ON items TO regress_tuning_reader;
SET ROLE regress_tuning_reader;
SELECT * FROM ruvector_auto_tune('graph');
SELECT ruvector_auto_tune_undo('lists');
RESET ROLE;
BEGIN READ ONLY;
SELECT * FROM ruvector_auto_tune('graph');
ROLLBACK;
BEGIN;
SELECT count(*) FROM ruvector_auto_tune('graph');
ROLLBACK;
SELECT reloptions FROM pg_class WHERE relname = 'graph';

-- the row of a dropped index goes when another is tuned
DROP INDEX lists;
SELECT count(*) FROM ruvector_auto_tune('graph');
SELECT index_name FROM ruvector_tunings;

REVOKE SELECT ON items FROM regress_tuning_reader;
DROP ROLE regress_tuning_reader;
