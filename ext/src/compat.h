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

#endif
