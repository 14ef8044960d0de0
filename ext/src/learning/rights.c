/*
 * rights.c - who may ask what.
 *
 *   searching plans   whoever may SELECT from the table
 *   statistics        the same, and members of pg_read_all_stats (so of pg_monitor)
 *   recorded queries, changes of what is learned
 *                     the owner of the table (sql_learning.c, ruvector_trajectories)
 *   policies, moving patterns in and out
 *                     superusers
 */
#include "learning/learning_internal.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

bool
ruv_reads_all_statistics(void)
{
    return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

void
ruv_require_reader(Oid table_oid)
{
    AclResult allowed = pg_class_aclcheck(table_oid, GetUserId(), ACL_SELECT);

    if (allowed != ACLCHECK_OK)
        aclcheck_error(allowed, OBJECT_TABLE, get_rel_name(table_oid));
}

void
ruv_require_statistics_reader(Oid table_oid)
{
    if (!ruv_reads_all_statistics())
        ruv_require_reader(table_oid);
}
