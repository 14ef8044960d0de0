-- Recall certificates: who may ask, of what.

CREATE TABLE items (id bigint PRIMARY KEY, embedding ruvector(3));
CREATE INDEX items_embedding ON items USING ruhnsw (embedding ruvector_l2_ops);

SELECT * FROM ruvector_recall_certificate('items_embedding');
SELECT ruvector_enable_learning('items');
SELECT * FROM ruvector_recall_certificate('items_embedding');
SET ruvector.target_recall = 0.99;
SELECT target_recall, queries, verdict FROM ruvector_recall_certificate('items_embedding');
SELECT * FROM ruvector_recall_certificate('items_pkey');
SELECT * FROM ruvector_recall_certificate('items');
SELECT * FROM ruvector_recall_certificate('no_such_index');
SELECT count(*) FROM ruvector_recall_certificate(NULL);

CREATE ROLE regress_certificate_reader;
GRANT SELECT ON items TO regress_certificate_reader;
SET ROLE regress_certificate_reader;
SELECT * FROM ruvector_recall_certificate('items_embedding');
SELECT * FROM ruvector_recall_checks;
RESET ROLE;

SELECT ruvector_disable_learning('items');
REVOKE SELECT ON items FROM regress_certificate_reader;
DROP ROLE regress_certificate_reader;
