-- ruvector_pgvector 0.1.0: pgvector's type vector beside ruvector. Casts, and operator classes that
-- index a vector column as it is.

-- complain if the script is sourced in psql, rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION ruvector_pgvector" to load this file. \quit

-- Not trusted: the operators below are looked up by name, and the first schema of the search path may
-- belong to whoever asks for the extension.

-- Both types have one layout and the same rules (1 to 16,000 finite elements), so a value is passed on
-- as it is. A cast to ruvector(n) or vector(n) checks the number of dimensions, as that type always does.
--
-- Both are casts on assignment, and neither is implicit:
--   - With an implicit cast each way, vector <-> ruvector would fit the operators of both types, and
--     every mixed expression would be ambiguous.
--   - With one of them implicit, a mixed expression takes the operator of the other type, which no index
--     on the column serves, and a slow plan would be the only sign. PostgreSQL would also accept the
--     operator classes of ruvector for a vector column, where vector's own operators never use them.
--   - Functions called with a vector get no new candidates, so no statement that worked before means
--     something else or becomes ambiguous.
-- So a mixed comparison is an error that asks for a cast; cast the value, not the column, and the
-- column's index is used.
CREATE CAST (vector AS ruvector) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (ruvector AS vector) WITHOUT FUNCTION AS ASSIGNMENT;

---------------------------------------------------------------------------------------------------
-- ruhnsw on vector: pgvector's operators, ruvector's index. Names of operator classes belong to one
-- access method, so these are pgvector's own. L2 is the default, as for ruvector.
---------------------------------------------------------------------------------------------------

CREATE OPERATOR CLASS vector_l2_ops DEFAULT FOR TYPE vector USING ruhnsw AS
    OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 ruhnsw_metric_l2(internal);

CREATE OPERATOR CLASS vector_ip_ops FOR TYPE vector USING ruhnsw AS
    OPERATOR 1 <#> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 ruhnsw_metric_ip(internal);

CREATE OPERATOR CLASS vector_cosine_ops FOR TYPE vector USING ruhnsw AS
    OPERATOR 1 <=> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 ruhnsw_metric_cosine(internal);

CREATE OPERATOR CLASS vector_l1_ops FOR TYPE vector USING ruhnsw AS
    OPERATOR 1 <+> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 ruhnsw_metric_l1(internal);

---------------------------------------------------------------------------------------------------
-- ruivfflat on vector, likewise.
---------------------------------------------------------------------------------------------------

CREATE OPERATOR CLASS vector_l2_ops DEFAULT FOR TYPE vector USING ruivfflat AS
    OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 ruivfflat_metric_l2(internal);

CREATE OPERATOR CLASS vector_ip_ops FOR TYPE vector USING ruivfflat AS
    OPERATOR 1 <#> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 ruivfflat_metric_ip(internal);

CREATE OPERATOR CLASS vector_cosine_ops FOR TYPE vector USING ruivfflat AS
    OPERATOR 1 <=> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 ruivfflat_metric_cosine(internal);

CREATE OPERATOR CLASS vector_l1_ops FOR TYPE vector USING ruivfflat AS
    OPERATOR 1 <+> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 ruivfflat_metric_l1(internal);
