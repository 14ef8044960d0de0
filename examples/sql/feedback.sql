-- Relevance feedback with psql: what a user says of the rows that a search returned.
--
--     psql -X -f examples/sql/feedback.sql          (in a database without a table named notes)
--
-- The server needs shared_preload_libraries = 'ruvector'. What it prints is in README.md beside this
-- file.

\set QUIET on
\pset footer off
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS ruvector;

-- 3,000 notes with made-up embeddings, the same in every run.
CREATE FUNCTION embed(text) RETURNS ruvector LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY(SELECT (('x' || substr(md5($1 || d), 1, 4))::bit(16)::int / 65536.0)::real
                 FROM generate_series(1, 24) d)::ruvector
$$;
CREATE TABLE notes (id int PRIMARY KEY, embedding ruvector(24));
INSERT INTO notes SELECT n, embed('note ' || n) FROM generate_series(1, 3000) n;
CREATE INDEX notes_embedding ON notes USING ruhnsw (embedding ruvector_l2_ops);
ANALYZE notes;
\o /dev/null
SELECT ruvector_enable_learning('notes', min_samples => 10);
\o
SET enable_seqscan = off;
SET ruvector.ef_search = 5;
\set ECHO all

-- A search, at very little effort. An application keeps its id with the page that it shows.
SELECT id FROM notes ORDER BY embedding <-> embed('question 8') LIMIT 5;
SELECT ruvector_last_query_id() AS search \gset

-- The user was glad of 2025, and not of 480. Two more notes would have been welcome: 1929, which is
-- nearer than the last row shown, so the index missed it; and 1050, which the embedding puts far off.
SELECT * FROM ruvector_record_feedback(:'search', '{2025,1929,1050}', '{480}') \gx

-- The same again changes nothing. Something else takes its place.
SELECT status FROM ruvector_record_feedback(:'search', '{1050,1929,2025}', '{480}');
SELECT status, unknown_ids FROM ruvector_record_feedback(:'search', '{2025,1903,1929,1050,99999}', '{480}');

-- What cannot be meant is refused.
SELECT * FROM ruvector_record_feedback(:'search', '{2025,480}', '{480}');

-- The worker takes it into the verdict on the search. Only this script waits for the worker.
\o /dev/null
SELECT ruvector_extract_patterns('notes');
\o
SELECT success, feedback_relevant AS relevant, feedback_irrelevant AS irrelevant,
       feedback_missed_near AS near, feedback_missed_far AS far
FROM ruvector_trajectories WHERE query_id = :'search';
SELECT unnest(recommendations) AS recommendation
FROM ruvector_trajectories WHERE query_id = :'search';

-- The query, moved towards what was relevant: used where it is asked for, and nowhere else.
SELECT id FROM notes ORDER BY embedding <-> ruvector_refine_query(:'search') LIMIT 5;
