/*
 * absent.c - the error of what a build was made without.
 */
#include "without/absent.h"

void
ruv_built_without(const char *what, const char *variable)
{
    ereport(ERROR,
            (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("ruvector was built without %s", what),
             errhint("Build and install it with make %s=yes.", variable)));
}
