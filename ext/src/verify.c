/*
 * verify.c - ruvector_index_verify: who may ask, and which access method answers.
 */
#include "ruvector.h"

#include "as_owner.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/index.h"
#include "funcapi.h"
#include "index_api.h"
#include "miscadmin.h"
#include "ruhnsw/ruhnsw_api.h"
#include "ruivfflat/ruivfflat_api.h"
#include "utils/acl.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(ruv_index_verify);
Datum
ruv_index_verify(PG_FUNCTION_ARGS)
{
    Oid oid = PG_GETARG_OID(0);
    bool all_rows = PG_GETARG_BOOL(1);
    Oid table_oid = IndexGetRelation(oid, true);
    Relation table = OidIsValid(table_oid) ? table_open(table_oid, AccessShareLock) : NULL;
    Relation index = relation_open(oid, AccessShareLock);
    ReturnSetInfo *out = (ReturnSetInfo *)fcinfo->resultinfo;
    RuvFormerUser former;

    if (!ruv_is_index(index))
        ereport(ERROR,
                (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                 errmsg("\"%s\" is not an index of ruvector", RelationGetRelationName(index)),
                 errhint("Its access methods are ruhnsw and ruivfflat.")));
    if (!ruv_owns_relation(oid))
        aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_INDEX, RelationGetRelationName(index));
    if (RELATION_IS_OTHER_TEMP(index))
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("cannot verify temporary indexes of other sessions")));
    InitMaterializedSRF(fcinfo, 0);
    ruv_become_owner(table, &former);
    if (ruivf_is_index(index))
        ruivf_verify(index, all_rows ? table : NULL, out);
    else
        ruhnsw_verify(index, table, all_rows, out);
    ruv_resume_user(&former);
    relation_close(index, AccessShareLock);
    table_close(table, AccessShareLock);
    return (Datum)0;
}
