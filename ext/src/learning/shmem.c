/*
 * shmem.c - the learning engine's shared memory.
 */
#include "learning/learning_internal.h"

void
ruv_learning_init(void)
{
    ruv_preloaded = true;
}
