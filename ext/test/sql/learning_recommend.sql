-- Recommended parameters: with an index and without one, rights, and what is needed for them.

CREATE TABLE items (id bigint PRIMARY KEY, embedding ruvector(32));
CREATE TABLE loose (id bigint PRIMARY KEY, embedding ruvector);
SELECT * FROM ruvector_recommend_params('items');
ANALYZE items;
ANALYZE loose;
SELECT * FROM ruvector_recommend_params('loose');
SELECT parameter, current, recommended FROM ruvector_recommend_params('items');

INSERT INTO items SELECT n, array_fill(n, ARRAY[32])::ruvector FROM generate_series(1, 2000) n;
CREATE INDEX graph ON items USING ruhnsw (embedding ruvector_l2_ops) WITH (m = 8, ef_construction = 20);
CREATE INDEX lists ON items USING ruivfflat (embedding ruvector_l2_ops) WITH (lists = 20);
ANALYZE items;
SELECT index, parameter, current, recommended, reason FROM ruvector_recommend_params('items');

-- many recorded searches whose target no effort reaches
SELECT ruvector_enable_learning('items');
INSERT INTO ruvector_trajectory_log (query_id, table_id, index_oid, index_name, index_epoch, searched_at,
        user_id, mode, k, ef_search, slack, target_recall, distances, hops, pages, latency_us, recall,
        needed_distances)
    SELECT gen_random_uuid(), 'items', 'graph'::regclass, 'graph', 0, now(), 10, 'static', 10, 40, 0, 0.95,
           100, 10, 10, 50, CASE WHEN n % 10 = 0 THEN 0.5 ELSE 1 END, CASE WHEN n % 10 > 0 THEN 90 END
    FROM generate_series(1, 200) n;
SELECT parameter, current, recommended, reason, evidence FROM ruvector_recommend_params('items')
    WHERE index = 'graph'::regclass AND parameter IN ('m', 'ef_construction', 'target_recall', 'learning');

SELECT * FROM ruvector_recommend_params('graph');
SELECT * FROM ruvector_recommend_params('no_such_table');
SELECT count(*) FROM ruvector_recommend_params(NULL);
CREATE ROLE regress_recommend_reader;
SET ROLE regress_recommend_reader;
SELECT * FROM ruvector_recommend_params('items');
RESET ROLE;
DROP ROLE regress_recommend_reader;
SELECT ruvector_disable_learning('items');
