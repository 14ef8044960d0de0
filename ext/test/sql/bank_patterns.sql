-- Patterns as a session sees them: consolidated, pruned, exported and imported; what is refused.
-- The patterns are made by hand here, since learning takes time.

CREATE TABLE items (id bigint PRIMARY KEY, embedding ruvector(2));
INSERT INTO items SELECT n, ARRAY[n, n % 7]::ruvector FROM generate_series(1, 50) n;
CREATE INDEX items_embedding ON items USING ruhnsw (embedding ruvector_cosine_ops);
CREATE INDEX items_lists ON items USING ruivfflat (embedding ruvector_l2_ops);

-- nothing before learning is enabled
SELECT ruvector_consolidate_patterns('items_embedding');
SELECT ruvector_export_patterns('items');
SELECT ruvector_import_patterns('items', '{}');
SELECT ruvector_enable_learning('items', min_samples => 1000);

-- an empty bank
SELECT ruvector_consolidate_patterns('items_embedding');
SELECT ruvector_prune_patterns('items_embedding', 1, 0.5);
SELECT jsonb_pretty(ruvector_export_patterns('items') #- '{indexes,0,bank,targets}' #- '{indexes,1}');

-- arguments
SELECT ruvector_consolidate_patterns('items_embedding', 1.5);
SELECT ruvector_consolidate_patterns('items_embedding', 'NaN');
SELECT ruvector_consolidate_patterns('items_pkey');
SELECT ruvector_consolidate_patterns('items');
SELECT ruvector_prune_patterns('items_embedding', -1, 0.5);
SELECT ruvector_prune_patterns('items_embedding', 1, -0.5);
SELECT ruvector_prune_patterns('items_embedding', NULL, 0.5) IS NULL AS nothing;
SELECT ruvector_import_patterns('items', '{}', 'append');

-- a document made by hand; its patterns are of another build of the index
CREATE FUNCTION pattern(id text, centroid text, usage text DEFAULT '0', confidence text DEFAULT '0.5')
RETURNS jsonb LANGUAGE sql AS $$
    SELECT format('{"id": "%s", "scope": "%s", "index_epoch": "77", "k": 10, "samples": 40,
        "usage": "%s", "created_us": "0", "updated_us": "1000000", "optimal_ef_search": 60,
        "optimal_probes": 1, "target_recall": 0.95, "slack": 0.1, "expected_recall": 0.96,
        "confidence": %s, "radius": %s, "mean_distances": 400.5,
        "table_slack": [0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 1e-45],
        "table_ef": [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21],
        "table_recall": [0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999],
        "entry_points": ["18446744073709551615"]%s}',
        id, CASE WHEN centroid IS NULL THEN 'index' ELSE 'region' END, usage, confidence,
        CASE WHEN centroid IS NULL THEN '0' ELSE '0.25' END,
        ', "centroid": ' || centroid)::jsonb #- '{table_slack,11}' #- '{table_slack,0}'
        || jsonb_build_object('table_slack', '[1e-45, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.333333343]'::jsonb)
$$;
CREATE FUNCTION bank(VARIADIC patterns jsonb[]) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('format', 'ruvector-bank', 'version', 1, 'metric', 'cosine',
        'dimensions', 2, 'max_patterns', 1000,
        'targets', '[0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999]'::jsonb,
        'patterns', to_jsonb(patterns))
$$;
CREATE FUNCTION document(bank jsonb, index text DEFAULT 'items_embedding') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('format', 'ruvector-patterns', 'version', 1, 'table', 'public.items',
        'indexes', jsonb_build_array(jsonb_build_object('index', index, 'method', 'ruhnsw',
            'memory', NULL, 'bank', bank)))
$$;
CREATE TABLE good AS SELECT document(bank(pattern('3', NULL, '9'), pattern('5', '[1, 0.1]', '7', '0.75'),
    pattern('6', '[1, 0.11]', '2', '0.125'), pattern('9', '[-3.4028234e38, 1e-45]'))) AS d;

-- a rolled back import leaves nothing
BEGIN;
SELECT * FROM ruvector_import_patterns('items', (SELECT d FROM good));
SELECT count(*) FROM ruvector_patterns;
ROLLBACK;
SELECT count(*) FROM ruvector_patterns;

-- round trip, exact
SELECT * FROM ruvector_import_patterns('items', (SELECT d FROM good), 'replace');
CREATE TABLE exported AS SELECT ruvector_export_patterns('items') AS d;
SELECT d #> '{indexes,0,bank,patterns,3,centroid}' AS centroid,
       d #> '{indexes,0,bank,patterns,0,table_slack,0}' AS smallest FROM exported;
SELECT * FROM ruvector_import_patterns('items', (SELECT d FROM exported), 'replace');
SELECT ruvector_export_patterns('items') = d AS exact FROM exported;
SELECT pattern_id, scope, usage, confidence, centroid FROM ruvector_patterns ORDER BY 1;

-- merge: alike ones become one, by the policy retention
SELECT * FROM ruvector_import_patterns('items', (SELECT d FROM good));
SELECT scope, samples, usage FROM ruvector_patterns ORDER BY pattern_id;

-- consolidate and prune
SELECT * FROM ruvector_import_patterns('items', (SELECT d FROM good), 'replace');
SELECT ruvector_consolidate_patterns('items_embedding', 0.99999), ruvector_consolidate_patterns('items_embedding');
SELECT pattern_id, scope, usage, samples FROM ruvector_patterns ORDER BY 1;
SELECT ruvector_prune_patterns('items_embedding', 9, 0), ruvector_prune_patterns('items_embedding', 9, 0);
SELECT pattern_id, scope, usage FROM ruvector_patterns ORDER BY 1;

-- searches do not use a prior
SELECT mode FROM ruvector_get_search_params('items_embedding', '[1,2]');

-- what a document must be
\set VERBOSITY terse
SELECT ruvector_import_patterns('items', '[]');
SELECT ruvector_import_patterns('items', '7');
SELECT ruvector_import_patterns('items', 'null');
SELECT ruvector_import_patterns('items', '{"format": "ruvector-patterns"}');
SELECT ruvector_import_patterns('items', d || '{"more": 1}') FROM good;
SELECT ruvector_import_patterns('items', d || '{"format": "patterns"}') FROM good;
SELECT ruvector_import_patterns('items', d || '{"version": 2}') FROM good;
SELECT ruvector_import_patterns('items', d || '{"version": "1"}') FROM good;
SELECT ruvector_import_patterns('items', d || '{"table": {}}') FROM good;
SELECT ruvector_import_patterns('items', d || '{"indexes": {}}') FROM good;
SELECT ruvector_import_patterns('items', d || '{"indexes": [1]}') FROM good;
SELECT ruvector_import_patterns('items', d #- '{indexes,0,bank}') FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,method}', '"hnsw"')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,index}', to_jsonb(repeat('x', 300)))) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,version}', '3')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,slack}', '"NaN"')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,slack}', '-0.5')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,2,centroid}', '[1,2,3]')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,k}', '129')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,id}', '"18446744073709551615"')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,usage}', '"18446744073709551615"')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,created_us}', '"-9223372036854775808"')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,table_slack,11}', '1001')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,slack}', '1e131000')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,scope}', to_jsonb(repeat('x', 1000)))) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns,1,slack}', (repeat('[', 1000) || repeat(']', 1000))::jsonb)) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,metric}', '"l2"')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,1}', d #> '{indexes,0}')) FROM good;
SELECT ruvector_import_patterns('items', jsonb_set(document(bank(VARIADIC (SELECT array_agg(
    pattern((n + 1)::text, '[1,' || n || ']')) FROM generate_series(1, 1001) n))), '{indexes,0,bank,max_patterns}', '2000'));
SELECT ruvector_import_patterns('items', jsonb_set(d, '{indexes,0,bank,patterns}',
    (SELECT jsonb_agg(repeat('x', 250)) FROM generate_series(1, 600000)))) FROM good;
\set VERBOSITY default
SELECT pattern_id, scope, usage FROM ruvector_patterns ORDER BY 1; -- as before

-- two-phase commit
BEGIN;
SELECT ruvector_consolidate_patterns('items_embedding', 0);
SELECT ruvector_import_patterns('items', d) FROM good;
PREPARE TRANSACTION 'bank';

-- who may
CREATE ROLE regress_bank_owner;
CREATE ROLE regress_bank_other;
ALTER TABLE items OWNER TO regress_bank_owner;
GRANT SELECT ON items, good TO regress_bank_other;
SET ROLE regress_bank_other;
SELECT ruvector_consolidate_patterns('items_embedding');
SELECT ruvector_prune_patterns('items_embedding', 1, 0.5);
SELECT ruvector_export_patterns('items');
SELECT ruvector_import_patterns('items', '{}');
SET ROLE regress_bank_owner;
SELECT ruvector_prune_patterns('items_embedding', 0, 0);
SELECT ruvector_export_patterns('items');
RESET ROLE;
GRANT EXECUTE ON FUNCTION ruvector_export_patterns(regclass), ruvector_import_patterns(regclass, jsonb, text)
    TO regress_bank_other;
SET ROLE regress_bank_other;
SELECT state FROM ruvector_import_patterns('items', (SELECT d FROM good), 'replace');
SELECT jsonb_array_length(ruvector_export_patterns('items') -> 'indexes');
RESET ROLE;
DROP TABLE items, good, exported;
DROP FUNCTION document, bank, pattern;
REVOKE ALL ON FUNCTION ruvector_export_patterns(regclass), ruvector_import_patterns(regclass, jsonb, text)
    FROM regress_bank_other;
DROP ROLE regress_bank_owner;
DROP ROLE regress_bank_other;
