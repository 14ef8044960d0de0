-- ruvector 0.1.0: the vector type and the access methods ruhnsw and ruivfflat.

-- complain if the script is sourced in psql, rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION ruvector" to load this file. \quit

-- Names that pgvector defines too (l2_distance, avg, <-> and so on) are overloads on the ruvector
-- type, so both extensions can live in one database. Costs are in units of a simple operator: a
-- distance detoasts and reads a few hundred numbers.

---------------------------------------------------------------------------------------------------
-- Type ruvector
---------------------------------------------------------------------------------------------------

CREATE TYPE ruvector;

CREATE FUNCTION ruvector_in(cstring, oid, integer) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_in' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_out(ruvector) RETURNS cstring
    AS 'MODULE_PATHNAME', 'ruv_vector_out' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_typmod_in(cstring[]) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruv_vector_typmod_in' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ruvector_recv(internal, oid, integer) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_recv' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_send(ruvector) RETURNS bytea
    AS 'MODULE_PATHNAME', 'ruv_vector_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

-- Alignment is that of int4, which suits the header and the float4 elements. Storage is external:
-- float elements hardly compress, and trying to costs time. The modifier's default output, "(n)", is
-- what ruvector(n) needs, so there is no typmod_out.
CREATE TYPE ruvector (
    INPUT = ruvector_in,
    OUTPUT = ruvector_out,
    RECEIVE = ruvector_recv,
    SEND = ruvector_send,
    TYPMOD_IN = ruvector_typmod_in,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = external
);

-- Distances

CREATE FUNCTION l2_distance(ruvector, ruvector) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ruv_l2_distance' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION inner_product(ruvector, ruvector) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ruv_inner_product' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_negative_inner_product(ruvector, ruvector) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ruv_negative_inner_product' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION cosine_distance(ruvector, ruvector) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ruv_cosine_distance' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION l1_distance(ruvector, ruvector) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ruv_l1_distance' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE OPERATOR <-> (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = l2_distance, COMMUTATOR = '<->'
);

CREATE OPERATOR <#> (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_negative_inner_product,
    COMMUTATOR = '<#>'
);

CREATE OPERATOR <=> (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = cosine_distance, COMMUTATOR = '<=>'
);

CREATE OPERATOR <+> (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = l1_distance, COMMUTATOR = '<+>'
);

-- Functions

CREATE FUNCTION ruvector_dims(ruvector) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruv_vector_dims' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ruvector_norm(ruvector) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ruv_vector_norm' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION l2_normalize(ruvector) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_l2_normalize' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION subvector(ruvector, start integer, count integer) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_subvector' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

-- Arithmetic, element by element, and concatenation

CREATE FUNCTION ruvector_add(ruvector, ruvector) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_add' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_sub(ruvector, ruvector) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_sub' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_mul(ruvector, ruvector) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_mul' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_concat(ruvector, ruvector) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_concat' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE OPERATOR + (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_add, COMMUTATOR = +
);

CREATE OPERATOR - (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_sub
);

CREATE OPERATOR * (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_mul, COMMUTATOR = *
);

CREATE OPERATOR || (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_concat
);

-- Comparison: element by element, then by length

CREATE FUNCTION ruvector_lt(ruvector, ruvector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ruv_vector_lt' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ruvector_le(ruvector, ruvector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ruv_vector_le' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ruvector_eq(ruvector, ruvector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ruv_vector_eq' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ruvector_ne(ruvector, ruvector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ruv_vector_ne' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ruvector_ge(ruvector, ruvector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ruv_vector_ge' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ruvector_gt(ruvector, ruvector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ruv_vector_gt' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ruvector_cmp(ruvector, ruvector) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruv_vector_cmp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE OPERATOR < (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_lt,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);

CREATE OPERATOR <= (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_le,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);

CREATE OPERATOR = (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, MERGES
);

CREATE OPERATOR <> (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel
);

CREATE OPERATOR >= (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_ge,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel
);

CREATE OPERATOR > (
    LEFTARG = ruvector, RIGHTARG = ruvector, FUNCTION = ruvector_gt,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);

CREATE OPERATOR CLASS ruvector_ops
    DEFAULT FOR TYPE ruvector USING btree AS
    OPERATOR 1 <,
    OPERATOR 2 <=,
    OPERATOR 3 =,
    OPERATOR 4 >=,
    OPERATOR 5 >,
    FUNCTION 1 ruvector_cmp(ruvector, ruvector);

-- Aggregates

CREATE FUNCTION ruvector_accum(double precision[], ruvector) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'ruv_vector_accum' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_combine(double precision[], double precision[]) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'ruv_vector_combine' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_avg(double precision[]) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_avg' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_sum(double precision[]) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_sum' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE AGGREGATE avg(ruvector) (
    SFUNC = ruvector_accum,
    STYPE = double precision[],
    FINALFUNC = ruvector_avg,
    COMBINEFUNC = ruvector_combine,
    INITCOND = '{0}',
    PARALLEL = SAFE
);

CREATE AGGREGATE sum(ruvector) (
    SFUNC = ruvector_accum,
    STYPE = double precision[],
    FINALFUNC = ruvector_sum,
    COMBINEFUNC = ruvector_combine,
    INITCOND = '{0}',
    PARALLEL = SAFE
);

-- Casts: an array is stored into a ruvector column as it is; a vector is passed to a function on
-- real[] as it is. Everything else is assigned or asked for.

CREATE FUNCTION ruvector(ruvector, integer, boolean) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_typmod_cast' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION array_to_ruvector(integer[], integer, boolean) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_from_array' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION array_to_ruvector(real[], integer, boolean) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_from_array' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION array_to_ruvector(double precision[], integer, boolean) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_from_array' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION array_to_ruvector(numeric[], integer, boolean) RETURNS ruvector
    AS 'MODULE_PATHNAME', 'ruv_vector_from_array' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION ruvector_to_float4(ruvector) RETURNS real[]
    AS 'MODULE_PATHNAME', 'ruv_vector_to_float4' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_to_float8(ruvector) RETURNS double precision[]
    AS 'MODULE_PATHNAME', 'ruv_vector_to_float8' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_to_int4(ruvector) RETURNS integer[]
    AS 'MODULE_PATHNAME', 'ruv_vector_to_int4' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;

CREATE FUNCTION ruvector_to_numeric(ruvector) RETURNS numeric[]
    AS 'MODULE_PATHNAME', 'ruv_vector_to_numeric' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE CAST (ruvector AS ruvector) WITH FUNCTION ruvector(ruvector, integer, boolean) AS IMPLICIT;

CREATE CAST (integer[] AS ruvector)
    WITH FUNCTION array_to_ruvector(integer[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (real[] AS ruvector)
    WITH FUNCTION array_to_ruvector(real[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (double precision[] AS ruvector)
    WITH FUNCTION array_to_ruvector(double precision[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (numeric[] AS ruvector)
    WITH FUNCTION array_to_ruvector(numeric[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (ruvector AS real[]) WITH FUNCTION ruvector_to_float4(ruvector) AS IMPLICIT;

CREATE CAST (ruvector AS double precision[]) WITH FUNCTION ruvector_to_float8(ruvector) AS ASSIGNMENT;

CREATE CAST (ruvector AS integer[]) WITH FUNCTION ruvector_to_int4(ruvector) AS ASSIGNMENT;

CREATE CAST (ruvector AS numeric[]) WITH FUNCTION ruvector_to_numeric(ruvector) AS ASSIGNMENT;

-- ---------------------------------------------------------------------------------------------
-- Access method ruhnsw
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION ruhnswhandler(internal) RETURNS index_am_handler
    AS 'MODULE_PATHNAME', 'ruhnsw_handler' LANGUAGE C;

CREATE ACCESS METHOD ruhnsw TYPE INDEX HANDLER ruhnswhandler;

COMMENT ON ACCESS METHOD ruhnsw IS 'hierarchical navigable small world graph that learns';

-- Support functions of the operator classes: each names its metric.

CREATE FUNCTION ruhnsw_metric_l2(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruhnsw_metric_l2' LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE FUNCTION ruhnsw_metric_ip(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruhnsw_metric_ip' LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE FUNCTION ruhnsw_metric_cosine(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruhnsw_metric_cosine' LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE FUNCTION ruhnsw_metric_l1(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruhnsw_metric_l1' LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE OPERATOR CLASS ruvector_l2_ops DEFAULT FOR TYPE ruvector USING ruhnsw AS
    OPERATOR 1 <-> (ruvector, ruvector) FOR ORDER BY float_ops,
    FUNCTION 1 ruhnsw_metric_l2(internal);

CREATE OPERATOR CLASS ruvector_ip_ops FOR TYPE ruvector USING ruhnsw AS
    OPERATOR 1 <#> (ruvector, ruvector) FOR ORDER BY float_ops,
    FUNCTION 1 ruhnsw_metric_ip(internal);

CREATE OPERATOR CLASS ruvector_cosine_ops FOR TYPE ruvector USING ruhnsw AS
    OPERATOR 1 <=> (ruvector, ruvector) FOR ORDER BY float_ops,
    FUNCTION 1 ruhnsw_metric_cosine(internal);

CREATE OPERATOR CLASS ruvector_l1_ops FOR TYPE ruvector USING ruhnsw AS
    OPERATOR 1 <+> (ruvector, ruvector) FOR ORDER BY float_ops,
    FUNCTION 1 ruhnsw_metric_l1(internal);

-- ---------------------------------------------------------------------------------------------
-- Access method ruivfflat
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION ruivfflathandler(internal) RETURNS index_am_handler
    AS 'MODULE_PATHNAME', 'ruivfflat_handler' LANGUAGE C;

CREATE ACCESS METHOD ruivfflat TYPE INDEX HANDLER ruivfflathandler;

COMMENT ON ACCESS METHOD ruivfflat IS 'inverted file of vectors in lists around centres, that learns';

CREATE FUNCTION ruivfflat_metric_l2(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruivfflat_metric_l2' LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE FUNCTION ruivfflat_metric_ip(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruivfflat_metric_ip' LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE FUNCTION ruivfflat_metric_cosine(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruivfflat_metric_cosine' LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE FUNCTION ruivfflat_metric_l1(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ruivfflat_metric_l1' LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE OPERATOR CLASS ruvector_l2_ops DEFAULT FOR TYPE ruvector USING ruivfflat AS
    OPERATOR 1 <-> (ruvector, ruvector) FOR ORDER BY float_ops,
    FUNCTION 1 ruivfflat_metric_l2(internal);

CREATE OPERATOR CLASS ruvector_ip_ops FOR TYPE ruvector USING ruivfflat AS
    OPERATOR 1 <#> (ruvector, ruvector) FOR ORDER BY float_ops,
    FUNCTION 1 ruivfflat_metric_ip(internal);

CREATE OPERATOR CLASS ruvector_cosine_ops FOR TYPE ruvector USING ruivfflat AS
    OPERATOR 1 <=> (ruvector, ruvector) FOR ORDER BY float_ops,
    FUNCTION 1 ruivfflat_metric_cosine(internal);

CREATE OPERATOR CLASS ruvector_l1_ops FOR TYPE ruvector USING ruivfflat AS
    OPERATOR 1 <+> (ruvector, ruvector) FOR ORDER BY float_ops,
    FUNCTION 1 ruivfflat_metric_l1(internal);

-- ---------------------------------------------------------------------------------------------
-- Checks of both access methods
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION ruvector_index_verify(index regclass, heapallindexed boolean DEFAULT false,
                                      OUT severity text, OUT block bigint, OUT message text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruv_index_verify' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_index_verify(regclass, boolean) IS
    'checks the pages and the rules of an index of ruvector, and whether every row is in it';

CREATE FUNCTION ruvector_heal_index(index regclass, reset boolean DEFAULT false,
                                    OUT checked bigint, OUT missed bigint, OUT links bigint)
    AS 'MODULE_PATHNAME', 'ruhnsw_heal_index' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION ruvector_heal_index(regclass, boolean) IS
    'links rows of a ruhnsw index that a search at the present ef_search does not find; reset takes all learned links away';

---------------------------------------------------------------------------------------------------
-- Comments, as psql's \d commands with + show them
---------------------------------------------------------------------------------------------------

COMMENT ON TYPE ruvector IS 'vector of 1 to 16,000 finite single-precision numbers';
COMMENT ON FUNCTION ruvector_in(cstring, oid, integer) IS 'input: [1,2,3]';
COMMENT ON FUNCTION ruvector_out(ruvector) IS 'output: [1,2,3]';
COMMENT ON FUNCTION ruvector_typmod_in(cstring[]) IS 'modifier: the number of dimensions';
COMMENT ON FUNCTION ruvector_recv(internal, oid, integer) IS 'binary input';
COMMENT ON FUNCTION ruvector_send(ruvector) IS 'binary output';
COMMENT ON FUNCTION l2_distance(ruvector, ruvector) IS 'Euclidean distance';
COMMENT ON FUNCTION inner_product(ruvector, ruvector) IS 'inner product';
COMMENT ON FUNCTION ruvector_negative_inner_product(ruvector, ruvector) IS 'negative inner product';
COMMENT ON FUNCTION cosine_distance(ruvector, ruvector) IS '1 - cosine similarity';
COMMENT ON FUNCTION l1_distance(ruvector, ruvector) IS 'sum of the absolute differences';
COMMENT ON FUNCTION ruvector_dims(ruvector) IS 'number of dimensions';
COMMENT ON FUNCTION ruvector_norm(ruvector) IS 'Euclidean norm';
COMMENT ON FUNCTION l2_normalize(ruvector) IS 'the vector of the same direction with norm 1';
COMMENT ON FUNCTION subvector(ruvector, integer, integer) IS
    'count elements from start on, the first one being 1';
COMMENT ON FUNCTION ruvector_add(ruvector, ruvector) IS 'implementation of + operator';
COMMENT ON FUNCTION ruvector_sub(ruvector, ruvector) IS 'implementation of - operator';
COMMENT ON FUNCTION ruvector_mul(ruvector, ruvector) IS 'implementation of * operator';
COMMENT ON FUNCTION ruvector_concat(ruvector, ruvector) IS 'implementation of || operator';
COMMENT ON FUNCTION ruvector_lt(ruvector, ruvector) IS 'implementation of < operator';
COMMENT ON FUNCTION ruvector_le(ruvector, ruvector) IS 'implementation of <= operator';
COMMENT ON FUNCTION ruvector_eq(ruvector, ruvector) IS 'implementation of = operator';
COMMENT ON FUNCTION ruvector_ne(ruvector, ruvector) IS 'implementation of <> operator';
COMMENT ON FUNCTION ruvector_ge(ruvector, ruvector) IS 'implementation of >= operator';
COMMENT ON FUNCTION ruvector_gt(ruvector, ruvector) IS 'implementation of > operator';
COMMENT ON FUNCTION ruvector_cmp(ruvector, ruvector) IS
    'comparison, element by element and then by length: -1, 0 or 1';
COMMENT ON FUNCTION ruvector_accum(double precision[], ruvector) IS 'aggregate transition function';
COMMENT ON FUNCTION ruvector_combine(double precision[], double precision[]) IS
    'aggregate combine function';
COMMENT ON FUNCTION ruvector_avg(double precision[]) IS 'aggregate final function';
COMMENT ON FUNCTION ruvector_sum(double precision[]) IS 'aggregate final function';
COMMENT ON FUNCTION ruvector(ruvector, integer, boolean) IS 'checks the number of dimensions';
COMMENT ON FUNCTION array_to_ruvector(integer[], integer, boolean) IS
    'the elements of an array as a vector';
COMMENT ON FUNCTION array_to_ruvector(real[], integer, boolean) IS
    'the elements of an array as a vector';
COMMENT ON FUNCTION array_to_ruvector(double precision[], integer, boolean) IS
    'the elements of an array as a vector';
COMMENT ON FUNCTION array_to_ruvector(numeric[], integer, boolean) IS
    'the elements of an array as a vector';
COMMENT ON FUNCTION ruvector_to_float4(ruvector) IS 'the elements of a vector as an array';
COMMENT ON FUNCTION ruvector_to_float8(ruvector) IS 'the elements of a vector as an array';
COMMENT ON FUNCTION ruvector_to_int4(ruvector) IS 'the elements of a vector, rounded, as an array';
COMMENT ON FUNCTION ruvector_to_numeric(ruvector) IS 'the elements of a vector as an array';
COMMENT ON FUNCTION ruhnswhandler(internal) IS 'handler of the access method ruhnsw';
COMMENT ON FUNCTION ruivfflathandler(internal) IS 'handler of the access method ruivfflat';
COMMENT ON FUNCTION ruhnsw_metric_l2(internal) IS
    'support function of the operator class for Euclidean distance';
COMMENT ON FUNCTION ruhnsw_metric_ip(internal) IS
    'support function of the operator class for inner product';
COMMENT ON FUNCTION ruhnsw_metric_cosine(internal) IS
    'support function of the operator class for cosine distance';
COMMENT ON FUNCTION ruhnsw_metric_l1(internal) IS
    'support function of the operator class for L1 distance';
COMMENT ON FUNCTION ruivfflat_metric_l2(internal) IS
    'support function of the operator class for Euclidean distance';
COMMENT ON FUNCTION ruivfflat_metric_ip(internal) IS
    'support function of the operator class for inner product';
COMMENT ON FUNCTION ruivfflat_metric_cosine(internal) IS
    'support function of the operator class for cosine distance';
COMMENT ON FUNCTION ruivfflat_metric_l1(internal) IS
    'support function of the operator class for L1 distance';
COMMENT ON AGGREGATE avg(ruvector) IS 'mean, element by element';
COMMENT ON AGGREGATE sum(ruvector) IS 'sum, element by element';
COMMENT ON OPERATOR <-> (ruvector, ruvector) IS 'Euclidean distance';
COMMENT ON OPERATOR <#> (ruvector, ruvector) IS 'negative inner product';
COMMENT ON OPERATOR <=> (ruvector, ruvector) IS 'cosine distance';
COMMENT ON OPERATOR <+> (ruvector, ruvector) IS 'L1 distance';
COMMENT ON OPERATOR + (ruvector, ruvector) IS 'sum, element by element';
COMMENT ON OPERATOR - (ruvector, ruvector) IS 'difference, element by element';
COMMENT ON OPERATOR * (ruvector, ruvector) IS 'product, element by element';
COMMENT ON OPERATOR || (ruvector, ruvector) IS 'concatenation';
COMMENT ON OPERATOR < (ruvector, ruvector) IS 'less than';
COMMENT ON OPERATOR <= (ruvector, ruvector) IS 'less than or equal';
COMMENT ON OPERATOR = (ruvector, ruvector) IS 'equal';
COMMENT ON OPERATOR >= (ruvector, ruvector) IS 'greater than or equal';
COMMENT ON OPERATOR > (ruvector, ruvector) IS 'greater than';
COMMENT ON OPERATOR <> (ruvector, ruvector) IS 'not equal';
COMMENT ON CAST (ruvector AS ruvector) IS 'checks the number of dimensions';
COMMENT ON CAST (integer[] AS ruvector) IS 'an array as a vector';
COMMENT ON CAST (real[] AS ruvector) IS 'an array as a vector';
COMMENT ON CAST (double precision[] AS ruvector) IS 'an array as a vector';
COMMENT ON CAST (numeric[] AS ruvector) IS 'an array as a vector';
COMMENT ON CAST (ruvector AS real[]) IS 'a vector as an array';
COMMENT ON CAST (ruvector AS double precision[]) IS 'a vector as an array';
COMMENT ON CAST (ruvector AS integer[]) IS 'a vector as an array';
COMMENT ON CAST (ruvector AS numeric[]) IS 'a vector as an array';
COMMENT ON OPERATOR CLASS ruvector_ops USING btree IS 'order of vectors, element by element';
COMMENT ON OPERATOR FAMILY ruvector_ops USING btree IS 'order of vectors, element by element';
COMMENT ON OPERATOR CLASS ruvector_l2_ops USING ruhnsw IS 'nearest by Euclidean distance (<->)';
COMMENT ON OPERATOR FAMILY ruvector_l2_ops USING ruhnsw IS 'nearest by Euclidean distance (<->)';
COMMENT ON OPERATOR CLASS ruvector_ip_ops USING ruhnsw IS 'nearest by inner product (<#>)';
COMMENT ON OPERATOR FAMILY ruvector_ip_ops USING ruhnsw IS 'nearest by inner product (<#>)';
COMMENT ON OPERATOR CLASS ruvector_cosine_ops USING ruhnsw IS 'nearest by cosine distance (<=>)';
COMMENT ON OPERATOR FAMILY ruvector_cosine_ops USING ruhnsw IS 'nearest by cosine distance (<=>)';
COMMENT ON OPERATOR CLASS ruvector_l1_ops USING ruhnsw IS 'nearest by L1 distance (<+>)';
COMMENT ON OPERATOR FAMILY ruvector_l1_ops USING ruhnsw IS 'nearest by L1 distance (<+>)';
COMMENT ON OPERATOR CLASS ruvector_l2_ops USING ruivfflat IS 'nearest by Euclidean distance (<->)';
COMMENT ON OPERATOR FAMILY ruvector_l2_ops USING ruivfflat IS 'nearest by Euclidean distance (<->)';
COMMENT ON OPERATOR CLASS ruvector_ip_ops USING ruivfflat IS 'nearest by inner product (<#>)';
COMMENT ON OPERATOR FAMILY ruvector_ip_ops USING ruivfflat IS 'nearest by inner product (<#>)';
COMMENT ON OPERATOR CLASS ruvector_cosine_ops USING ruivfflat IS 'nearest by cosine distance (<=>)';
COMMENT ON OPERATOR FAMILY ruvector_cosine_ops USING ruivfflat IS 'nearest by cosine distance (<=>)';
COMMENT ON OPERATOR CLASS ruvector_l1_ops USING ruivfflat IS 'nearest by L1 distance (<+>)';
COMMENT ON OPERATOR FAMILY ruvector_l1_ops USING ruivfflat IS 'nearest by L1 distance (<+>)';
