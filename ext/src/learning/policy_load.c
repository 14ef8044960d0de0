/*
 * policy_load.c - the policy host of this process: made, and made anew when it is out of date.
 *
 * Every process that needs a policy has a host of its own, made at the first call. It is made anew
 * when the shared generation has moved on (ruvector_reload_policies() somewhere), and when a
 * setting that it was made with has changed, by SIGHUP or SET: directory, budget, memory. The new
 * one is built and self-tested beside the old one, which keeps serving if that fails; in a process
 * that has none, the built-in policies then serve. A load that failed is not tried again before the
 * next change.
 *
 * That a load failed is logged once in the whole cluster: shared memory has a hash of the failure
 * that was logged last.
 */
#include "learning/worker.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

static rv_host *host = NULL;
static MemoryContext host_context = NULL;

/* What the last load, good or bad, went by. */
static struct {
    uint64 generation; /* 0: there was none */
    char directory[MAXPGPATH];
    int fuel;
    int memory;
} loaded;

static uint64
shared_generation(void)
{
    return ruv_shared ? pg_atomic_read_u64(&ruv_shared->policy_generation) : 1;
}

int64
ruv_policy_generation(void)
{
    return (int64)shared_generation();
}

const char *
ruv_policy_directory_path(void)
{
    static char path[MAXPGPATH];
    char share[MAXPGPATH];

    if (ruv_policy_directory != NULL && ruv_policy_directory[0] != '\0')
        return ruv_policy_directory;
    get_share_path(my_exec_path, share);
    snprintf(path, sizeof(path), "%s/ruvector/policies", share);
    return path;
}

static bool
up_to_date(void)
{
    return host != NULL && loaded.generation == shared_generation() &&
           loaded.fuel == ruv_policy_fuel && loaded.memory == ruv_policy_memory &&
           strncmp(loaded.directory, ruv_policy_directory, MAXPGPATH - 1) == 0;
}

static void
note_load(uint64 generation)
{
    loaded.generation = generation;
    loaded.fuel = ruv_policy_fuel;
    loaded.memory = ruv_policy_memory;
    strlcpy(loaded.directory, ruv_policy_directory, MAXPGPATH);
}

/* former: policies that were loaded before go on serving. */
static void
log_failure(const rv_host_failure *failure, bool former)
{
    if (ruv_shared != NULL) {
        uint64 hash = hash_bytes_extended((const unsigned char *)failure->file,
                                          (int)strlen(failure->file), failure->cause) ^
                      hash_bytes_extended((const unsigned char *)failure->reason,
                                          (int)strlen(failure->reason), failure->line);

        if (pg_atomic_exchange_u64(&ruv_shared->load_failure, hash | 1) == (hash | 1))
            return;
    }
    ereport(LOG, (errmsg("the policies were not loaded (%s): %s",
                         rv_host_cause_name(failure->cause), failure->reason),
                  errdetail("File %s, line %d.", failure->file, failure->line),
                  former ? errhint("The former policies serve. Mend the file and call "
                                   "ruvector_reload_policies().")
                         : errhint("The built-in policies serve. Mend the file and call "
                                   "ruvector_reload_policies().")));
}

/* A new host that has loaded the policy directory, in a context of its own. On failure *out serves
 * built-ins (or is NULL when memory is short) and the cause is returned. */
static rv_host_cause
build_host(rv_host **out, MemoryContext *context, rv_host_failure *failure)
{
    rv_host_options options = {0};
    rv_allocator allocator; /* the host keeps a copy */
    rv_error err = {0};

    memset(failure, 0, sizeof(*failure));
    *out = NULL;
    *context = AllocSetContextCreate(TopMemoryContext, "ruvector policies", ALLOCSET_DEFAULT_SIZES);
    ruv_context_allocator(*context, &allocator);
    options.fuel = (uint64)ruv_policy_fuel;
    options.memory = (size_t)ruv_policy_memory * 1024;
    options.allocator = &allocator;
    if (rv_host_create(&options, out, &err) != RV_OK) {
        failure->cause = RV_HOST_MEMORY;
        strlcpy(failure->reason, err.message, sizeof(failure->reason));
        *out = NULL;
        return RV_HOST_MEMORY;
    }
    rv_host_set_log(*out, ruv_policy_remember_failure, NULL);
    return rv_host_load(*out, ruv_policy_directory_path(), failure);
}

rv_host_cause
ruv_policy_reload(rv_host_failure *failure)
{
    rv_host *fresh;
    MemoryContext context;
    rv_host_cause cause = build_host(&fresh, &context, failure);

    /* A process that has no host yet takes one that serves built-ins only. */
    if (cause != RV_HOST_OK && (host != NULL || fresh == NULL)) {
        if (fresh != NULL)
            rv_host_destroy(fresh);
        MemoryContextDelete(context);
        return cause;
    }
    ruv_policy_forget_answers();
    if (host != NULL) {
        rv_host_destroy(host);
        MemoryContextDelete(host_context);
    }
    host = fresh;
    host_context = context;
    return cause;
}

rv_host *
ruv_policy_host(void)
{
    rv_host_failure failure;
    uint64 generation;
    bool former;

    if (up_to_date())
        return host;
    generation = shared_generation();
    former = host != NULL;
    note_load(generation);
    if (ruv_policy_reload(&failure) != RV_HOST_OK)
        log_failure(&failure, former);
    return host;
}

void
ruv_policy_announce(void)
{
    if (ruv_shared == NULL)
        return;
    for (int i = 0; i < RV_POLICY_KINDS; i++)
        pg_atomic_write_u64(&ruv_shared->policies[i].logged, 0);
    for (int i = 0; i < RUV_NAMED_POLICIES; i++)
        pg_atomic_write_u64(&ruv_shared->named_policies[i].logged, 0);
    pg_atomic_write_u64(&ruv_shared->load_failure, 0);
    note_load(pg_atomic_add_fetch_u64(&ruv_shared->policy_generation, 1));
}
