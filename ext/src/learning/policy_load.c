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
 * What it is made from is what the cluster has accepted (policy_share.c). The directory itself is
 * read
 *   - by a reload, which publishes it;
 *   - by the first process that loads after a start of the server, and by the first that sees
 *     another directory in the configuration: both publish it, or that it was refused;
 *   - without preloading, and where a session, a role or a database has a directory of its own:
 *     then nobody else is concerned, and it is read anew at every reload.
 * A process that has not seen the configuration's new directory yet keeps what it has.
 *
 * That a load failed is logged once in the whole cluster: shared memory has a hash of the failure
 * that was logged last.
 */
#include "learning/worker.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* A host, and the context that it lives in. */
typedef struct Built {
    rv_host *host; /* NULL: none */
    MemoryContext context;
} Built;

static Built serving;

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
    return serving.host != NULL && loaded.generation == shared_generation() &&
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

/* ---- building ------------------------------------------------------------------------------ */

/* A host that serves the built-in policies; NULL when memory is short. */
static rv_host_cause
new_host(Built *out, rv_host_failure *failure)
{
    rv_host_options options = {0};
    rv_allocator allocator; /* the host keeps a copy */
    rv_error err = {0};

    memset(failure, 0, sizeof(*failure));
    out->host = NULL;
    out->context =
        AllocSetContextCreate(TopMemoryContext, "ruvector policies", ALLOCSET_DEFAULT_SIZES);
    ruv_context_allocator(out->context, &allocator);
    options.fuel = (uint64)ruv_policy_fuel;
    options.memory = (size_t)ruv_policy_memory * 1024;
    options.allocator = &allocator;
    if (rv_host_create(&options, &out->host, &err) != RV_OK) {
        failure->cause = RV_HOST_MEMORY;
        strlcpy(failure->reason, err.message, sizeof(failure->reason));
        out->host = NULL;
        return RV_HOST_MEMORY;
    }
    rv_host_set_log(out->host, ruv_policy_remember_failure, NULL);
    return RV_HOST_OK;
}

/* A new host that has loaded the policy directory. On failure it serves built-ins. */
static rv_host_cause
build_from_directory(Built *out, rv_host_failure *failure)
{
    rv_host_cause cause = new_host(out, failure);

    if (cause != RV_HOST_OK)
        return cause;
    return rv_host_load(out->host, ruv_policy_directory_path(), failure);
}

/* The same from what the cluster has accepted. */
static rv_host_cause
build_from_block(Built *out, const RuvAcceptedPolicies *accepted, rv_host_failure *failure)
{
    rv_host_cause cause = new_host(out, failure);

    if (cause != RV_HOST_OK)
        return cause;
    if (accepted->block != NULL)
        return rv_host_import(out->host, accepted->block, accepted->size, failure);
    failure->cause = RV_HOST_MEMORY;
    strlcpy(failure->reason, "no memory for a copy of the policies", sizeof(failure->reason));
    return RV_HOST_MEMORY;
}

static void
discard(Built *built)
{
    if (built->host != NULL)
        rv_host_destroy(built->host);
    if (built->context != NULL)
        MemoryContextDelete(built->context);
    built->host = NULL;
    built->context = NULL;
}

static void
adopt(const Built *fresh)
{
    ruv_policy_forget_answers();
    discard(&serving);
    serving = *fresh;
}

/* A host that has loaded serves; one that has not does where there is none, with built-ins. */
static void
settle(Built *fresh, rv_host_cause cause, const rv_host_failure *failure)
{
    bool former = serving.host != NULL;

    if (cause == RV_HOST_OK || (!former && fresh->host != NULL))
        adopt(fresh);
    else
        discard(fresh);
    if (cause != RV_HOST_OK)
        log_failure(failure, former);
}

/* ---- following ----------------------------------------------------------------------------- */

/* Whether this process has the policies of the cluster, and not a directory of its own. */
static bool
has_cluster_policies(const char *directory)
{
    return ruv_shared != NULL && !ruv_policy_directory_is_own && strlen(directory) < MAXPGPATH;
}

/* Lack of memory or of instructions, which sessions may set, says nothing about the files. */
static bool
concerns_everybody(rv_host_cause cause)
{
    return cause != RV_HOST_MEMORY && cause != RV_HOST_FUEL;
}

/* Loads the directory, and for the cluster if it is the cluster's. False: others did meanwhile. */
static bool
follow_directory(const char *directory, uint64 generation)
{
    rv_host_failure failure;
    Built fresh;
    rv_host_cause cause = build_from_directory(&fresh, &failure);

    if (has_cluster_policies(directory) && concerns_everybody(cause) &&
        !ruv_publish_policies(cause == RV_HOST_OK ? fresh.host : NULL, directory, &generation)) {
        discard(&fresh);
        return false;
    }
    note_load(generation);
    settle(&fresh, cause, &failure);
    return true;
}

static void
follow_block(RuvAcceptedPolicies *accepted)
{
    rv_host_failure failure;
    Built fresh;
    rv_host_cause cause = build_from_block(&fresh, accepted, &failure);

    settle(&fresh, cause, &failure);
    if (accepted->block != NULL)
        pfree(accepted->block);
}

/* The directory was refused, which was logged then: without a former host the built-ins serve. */
static void
follow_refusal(void)
{
    rv_host_failure failure;
    rv_host_cause cause;
    Built fresh;

    if (serving.host != NULL)
        return;
    cause = new_host(&fresh, &failure);
    settle(&fresh, cause, &failure);
}

/* moved: the directory is not the one of the last load. False: it has to be called again. */
static bool
follow(bool moved)
{
    const char *directory = ruv_policy_directory_path();
    RuvAcceptedPolicies accepted;

    ruv_accepted_policies(directory, &accepted);
    note_load(accepted.generation);
    switch (accepted.state) {
        case RUV_POLICIES_ACCEPTED:
            follow_block(&accepted);
            return true;
        case RUV_POLICIES_REFUSED:
            follow_refusal();
            return true;
        case RUV_POLICIES_ELSEWHERE:
            if (!moved && serving.host != NULL && has_cluster_policies(directory))
                return true; /* the configuration has a new directory, unseen here */
            break;
        case RUV_POLICIES_NONE:
            break;
    }
    return follow_directory(directory, accepted.generation);
}

rv_host *
ruv_policy_host(void)
{
    bool moved;

    if (up_to_date())
        return serving.host;
    moved = loaded.generation == 0 ||
            strncmp(loaded.directory, ruv_policy_directory, MAXPGPATH - 1) != 0;
    while (!follow(moved))
        ;
    return serving.host;
}

/* ---- reloading ----------------------------------------------------------------------------- */

/* What was logged may be logged again: the policies are others. */
static void
forget_logged(void)
{
    if (ruv_shared == NULL)
        return;
    for (int i = 0; i < RV_POLICY_KINDS; i++)
        pg_atomic_write_u64(&ruv_shared->policies[i].logged, 0);
    for (int i = 0; i < RUV_NAMED_POLICIES; i++)
        pg_atomic_write_u64(&ruv_shared->named_policies[i].logged, 0);
    pg_atomic_write_u64(&ruv_shared->load_failure, 0);
}

/* Publishes what a reload accepted. A directory of this session's own concerns those that have it,
 * too: they read it anew. One that is the cluster's, by whatever setting, is the cluster's. False:
 * others reloaded meanwhile. */
static bool
announce(const Built *fresh, uint64 *generation)
{
    const char *directory = ruv_policy_directory_path();

    if (ruv_shared == NULL)
        return true;
    if (has_cluster_policies(directory) || ruv_is_published_directory(directory))
        return ruv_publish_policies(fresh->host, directory, generation);
    *generation = pg_atomic_add_fetch_u64(&ruv_shared->policy_generation, 1);
    return true;
}

rv_host_cause
ruv_policy_reload(rv_host_failure *failure)
{
    for (;;) {
        uint64 generation = shared_generation();
        Built fresh;
        rv_host_cause cause;

        CHECK_FOR_INTERRUPTS();
        cause = build_from_directory(&fresh, failure);
        if (cause != RV_HOST_OK) {
            discard(&fresh);
            return cause;
        }
        forget_logged(); /* before anybody can serve the new ones */
        if (announce(&fresh, &generation)) {
            note_load(generation);
            adopt(&fresh);
            return RV_HOST_OK;
        }
        discard(&fresh);
    }
}
