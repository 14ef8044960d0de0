/*
 * compat.h - the only place that knows PostgreSQL's major versions (13 to 17; 15 is tested).
 */
#ifndef RUVECTOR_COMPAT_H
#define RUVECTOR_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 130000 || PG_VERSION_NUM >= 180000
#error "ruvector needs PostgreSQL 13 to 17"
#endif

#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/* Before 16 PGDLLEXPORT is empty outside Windows, and -fvisibility=hidden would hide the module's
 * magic block, _PG_init and the SQL functions. */
#if PG_VERSION_NUM < 160000 && !defined(WIN32)
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif

#endif
