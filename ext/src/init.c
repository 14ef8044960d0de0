/*
 * init.c - what happens when the library is loaded.
 */
#include "ruvector.h"

#include "learning.h"
#include "miscadmin.h"

PG_MODULE_MAGIC;

bool ruv_preloaded = false;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
    ruv_preloaded = process_shared_preload_libraries_in_progress;
    ruv_define_settings();
    if (ruv_preloaded)
        ruv_learning_init();
}
