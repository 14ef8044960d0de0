/*
 * policy_share.c - the policies that the cluster has accepted, in shared memory.
 *
 * A reload is all or nothing everywhere: what one process loaded and tested (rv_host_export: ids,
 * file names, texts) is kept here, and every other process builds its host from that instead of
 * from the directory, which somebody may be editing. What is here changes when a reload succeeds,
 * when the first process after a start of the server has loaded, and when the setting
 * ruvector.policy_directory of the cluster changed. A directory that was refused on the last two
 * occasions is noted as such, so that nobody tries it again before the next reload.
 *
 * The segment is of fixed size and holds whatever a load takes; what was never written costs
 * address space only. It is written and copied out under a lock of its own, together with the
 * generation, and no Lua runs meanwhile. Whoever publishes says which generation it saw before it
 * read the directory: when that has moved on, what it read may be older than what is here, and it
 * starts again.
 */
#include "learning/worker.h"

#include "utils/memutils.h"

/* Fills *out for a process with this directory. */
static void
look_locked(const char *directory, RuvAcceptedPolicies *out)
{
    Size size = ruv_shared->policy_block_size;

    out->generation = pg_atomic_read_u64(&ruv_shared->policy_generation);
    out->state = (RuvPolicyState)ruv_shared->policy_state;
    if (out->state == RUV_POLICIES_NONE)
        return;
    if (strcmp(ruv_shared->policy_directory, directory) != 0) {
        out->state = RUV_POLICIES_ELSEWHERE;
        return;
    }
    if (out->state != RUV_POLICIES_ACCEPTED)
        return;
    /* raises no error, so it may be done here */
    out->block =
        MemoryContextAllocExtended(CurrentMemoryContext, size, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
    out->size = size;
    if (out->block != NULL)
        memcpy(out->block, ruv_shared_policy_block(), size);
}

void
ruv_accepted_policies(const char *directory, RuvAcceptedPolicies *out)
{
    memset(out, 0, sizeof(*out));
    out->state = RUV_POLICIES_NONE;
    out->generation = 1;
    if (ruv_shared == NULL)
        return;
    LWLockAcquire(ruv_shared->policy_lock, LW_SHARED);
    look_locked(directory, out);
    LWLockRelease(ruv_shared->policy_lock);
}

bool
ruv_is_published_directory(const char *directory)
{
    bool is;

    LWLockAcquire(ruv_shared->policy_lock, LW_SHARED);
    is = ruv_shared->policy_state != RUV_POLICIES_NONE &&
         strcmp(ruv_shared->policy_directory, directory) == 0;
    LWLockRelease(ruv_shared->policy_lock);
    return is;
}

static void
write_locked(const rv_host *accepted, const char *directory)
{
    size_t size = 0;

    ruv_shared->policy_state = RUV_POLICIES_REFUSED;
    ruv_shared->policy_block_size = 0;
    strlcpy(ruv_shared->policy_directory, directory, sizeof(ruv_shared->policy_directory));
    if (accepted == NULL)
        return;
    /* There is room: ruv_shared_policy_block has rv_host_export_limit() bytes. */
    if (rv_host_export(accepted, ruv_shared_policy_block(), rv_host_export_limit(), &size, NULL) !=
        RV_OK)
        return;
    ruv_shared->policy_block_size = size;
    ruv_shared->policy_state = RUV_POLICIES_ACCEPTED;
}

bool
ruv_publish_policies(const rv_host *accepted, const char *directory, uint64 *generation)
{
    bool first;

    if (ruv_shared == NULL)
        return true;
    LWLockAcquire(ruv_shared->policy_lock, LW_EXCLUSIVE);
    first = pg_atomic_read_u64(&ruv_shared->policy_generation) == *generation;
    if (first) {
        write_locked(accepted, directory);
        *generation = pg_atomic_add_fetch_u64(&ruv_shared->policy_generation, 1);
    }
    LWLockRelease(ruv_shared->policy_lock);
    return first;
}
