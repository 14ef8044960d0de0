/*
 * compat.h - the only place that knows PostgreSQL's major versions (13 to 17; 15 is tested).
 */
#ifndef RUVECTOR_COMPAT_H
#define RUVECTOR_COMPAT_H

#include "postgres.h"
#include "fmgr.h"

#if PG_VERSION_NUM < 130000 || PG_VERSION_NUM >= 180000
#error "ruvector needs PostgreSQL 13 to 17"
#endif

/* Memory for what travels with a setting's value. */
#if PG_VERSION_NUM >= 160000
#define ruv_guc_malloc(size) guc_malloc(LOG, size)
#else
#define ruv_guc_malloc(size) malloc(size)
#endif

#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/* Before 16 PGDLLEXPORT is empty outside Windows and SQL functions are declared without it, so
 * -fvisibility=hidden would hide the module's magic block, _PG_init and every SQL function. */
#if PG_VERSION_NUM < 160000 && !defined(WIN32)
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(function)                                                              \
    extern PGDLLEXPORT Datum function(PG_FUNCTION_ARGS);                                           \
    extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_, function)(void);                \
    const Pg_finfo_record *CppConcat(pg_finfo_, function)(void)                                    \
    {                                                                                              \
        static const Pg_finfo_record version_1 = {1};                                              \
        return &version_1;                                                                         \
    }                                                                                              \
    extern int no_such_variable
#endif

/* Whether a buffer descriptor names a block of a relation's main fork (storage/buf_internals.h and
 * utils/rel.h must be included where it is used). */
#if PG_VERSION_NUM >= 160000
#define ruv_buffer_holds(descriptor, relation, number)                                             \
    ((descriptor)->tag.blockNum == (number) &&                                                     \
     (descriptor)->tag.relNumber == (relation)->rd_locator.relNumber &&                            \
     (descriptor)->tag.dbOid == (relation)->rd_locator.dbOid &&                                    \
     (descriptor)->tag.spcOid == (relation)->rd_locator.spcOid &&                                  \
     (descriptor)->tag.forkNum == MAIN_FORKNUM)
#else
#define ruv_buffer_holds(descriptor, relation, number)                                             \
    ((descriptor)->tag.blockNum == (number) &&                                                     \
     (descriptor)->tag.rnode.relNode == (relation)->rd_node.relNode &&                             \
     (descriptor)->tag.rnode.dbNode == (relation)->rd_node.dbNode &&                               \
     (descriptor)->tag.rnode.spcNode == (relation)->rd_node.spcNode &&                             \
     (descriptor)->tag.forkNum == MAIN_FORKNUM)
#endif

/* Pins a buffer if it still holds a block of a relation's main fork. */
#if PG_VERSION_NUM >= 160000
#define ruv_read_recent(relation, number, buffer)                                                  \
    ReadRecentBuffer((relation)->rd_locator, MAIN_FORKNUM, number, buffer)
#elif PG_VERSION_NUM >= 140000
#define ruv_read_recent(relation, number, buffer)                                                  \
    ReadRecentBuffer((relation)->rd_node, MAIN_FORKNUM, number, buffer)
#else
#define ruv_read_recent(relation, number, buffer) false
#endif

/* 17 asks the access method; before, the build sees to its workers without being asked. */
#if PG_VERSION_NUM >= 170000
#define ruv_can_build_parallel(am) ((am)->amcanbuildparallel = true)
#else
#define ruv_can_build_parallel(am) ((void)(am))
#endif

/* How many backends there can be, asked while shared memory is sized, and the number of this one
 * among them, from 0 (miscadmin.h, storage/proc.h and their kin must be included where it is used).
 * Before 15 the limit is not known yet when a library asks for memory, but what it is made of is.
 */
#if PG_VERSION_NUM >= 150000
#define ruv_backend_limit() MaxBackends
#else
#define ruv_backend_limit()                                                                        \
    (MaxConnections + autovacuum_max_workers + 1 + max_worker_processes + max_wal_senders)
#endif
#if PG_VERSION_NUM >= 170000
#define ruv_backend_number() ((int)MyProcNumber)
#else
#define ruv_backend_number() ((int)MyBackendId - 1)
#endif

/* The bit of LWLock.state that says "held exclusively": LW_VAL_EXCLUSIVE, private to lwlock.c, the
 * same in 13 to 17. */
#define RUV_LWLOCK_EXCLUSIVE ((uint32)1 << 24)

#if PG_VERSION_NUM < 140000
#define ROLE_PG_READ_ALL_STATS DEFAULT_ROLE_READ_ALL_STATS
#define ROLE_PG_READ_ALL_SETTINGS DEFAULT_ROLE_READ_ALL_SETTINGS
#endif

/* Ownership checks of the present user. */
#if PG_VERSION_NUM >= 160000
#define ruv_owns_database(oid) object_ownercheck(DatabaseRelationId, oid, GetUserId())
#define ruv_owns_relation(oid) object_ownercheck(RelationRelationId, oid, GetUserId())
#else
#define ruv_owns_database(oid) pg_database_ownercheck(oid, GetUserId())
#define ruv_owns_relation(oid) pg_class_ownercheck(oid, GetUserId())
#endif

/* Parameters and arguments of a ProcessUtility hook. */
#if PG_VERSION_NUM >= 140000
#define RUV_UTILITY_PARAMETERS                                                                     \
    PlannedStmt *statement, const char *text, bool read_only_tree, ProcessUtilityContext context,  \
        ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *destination,        \
        QueryCompletion *completion
#define RUV_UTILITY_ARGUMENTS                                                                      \
    statement, text, read_only_tree, context, parameters, environment, destination, completion
#else
#define RUV_UTILITY_PARAMETERS                                                                     \
    PlannedStmt *statement, const char *text, ProcessUtilityContext context,                       \
        ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *destination,        \
        QueryCompletion *completion
#define RUV_UTILITY_ARGUMENTS                                                                      \
    statement, text, context, parameters, environment, destination, completion
#endif

#endif
