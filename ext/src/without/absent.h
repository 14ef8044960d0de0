/*
 * absent.h - SQL functions that a build was made without.
 *
 * The SQL scripts are the same for every build, so the C functions that they name have to be there.
 * lua/tools/absent.sh lists those that the chosen files do not define, and each becomes an error
 * that says how to build what is missing.
 */
#ifndef RUVECTOR_ABSENT_H
#define RUVECTOR_ABSENT_H

#include "ruvector.h"

/* Raises the error; name is the function's, what is missing "learning" or "clustering". */
pg_attribute_noreturn() extern void ruv_built_without(const char *what, const char *variable);

#define RUV_ABSENT(name, what, variable)                                                           \
    PG_FUNCTION_INFO_V1(name);                                                                     \
    Datum name(PG_FUNCTION_ARGS)                                                                   \
    {                                                                                              \
        ruv_built_without(what, variable);                                                         \
    }                                                                                              \
    extern int no_such_variable

#endif
