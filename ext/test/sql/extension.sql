-- The extension as a whole: what it installs, and that it goes without a trace.

-- every function of the type is immutable, strict and parallel safe
SELECT p.oid::regprocedure
FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'ruvector' AND p.prokind = 'f' AND p.prosrc ~ '^ruv_(vector|l2_|l1_|inner|negative|cosine|sub)'
  AND (p.provolatile <> 'i' OR NOT p.proisstrict OR p.proparallel <> 's');

-- every operator: commutator and negator point back
SELECT o.oid::regoperator, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprrest, o.oprjoin
FROM pg_operator o WHERE o.oprleft = 'ruvector'::regtype ORDER BY o.oprname COLLATE "C";
SELECT a.oid::regoperator FROM pg_operator a JOIN pg_operator b ON b.oid = a.oprcom
WHERE a.oprleft = 'ruvector'::regtype AND b.oprcom <> a.oid;

-- the casts
SELECT castsource::regtype, casttarget::regtype, castcontext FROM pg_cast
WHERE 'ruvector'::regtype IN (castsource, casttarget)
ORDER BY castsource::regtype::text COLLATE "C", casttarget::regtype::text COLLATE "C";

-- the operator family holds together
SELECT amvalidate(c.oid), c.opcname, c.opcdefault FROM pg_opclass c JOIN pg_am a ON a.oid = c.opcmethod
WHERE c.opcintype = 'ruvector'::regtype AND a.amname = 'btree';

SELECT extversion AS version FROM pg_extension WHERE extname = 'ruvector' \gset

-- a table keeps the extension
CREATE TABLE keeps (v ruvector);
DROP EXTENSION ruvector;
DROP EXTENSION ruvector CASCADE;
SELECT attname FROM pg_attribute WHERE attrelid = 'keeps'::regclass AND attnum > 0 AND NOT attisdropped;
SELECT count(*) FROM pg_proc WHERE prosrc LIKE 'ruv_vector%';
SELECT '[1]'::ruvector;

-- it can come back, also into another schema, and twice is an error
CREATE SCHEMA elsewhere;
CREATE EXTENSION ruvector SCHEMA elsewhere VERSION :'version';
SELECT '[1,2]'::elsewhere.ruvector OPERATOR(elsewhere.<->) '[1,2]';
CREATE EXTENSION ruvector VERSION :'version';
ALTER EXTENSION ruvector SET SCHEMA public;
DROP EXTENSION ruvector;
DROP SCHEMA elsewhere;
