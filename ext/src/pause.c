/*
 * pause.c - the named points of pause.h: the setting, and the wait.
 *
 * The lock is the one that pg_advisory_lock(int, int) takes: database, class, key, and 2 in the
 * last field. It is taken for the transaction (not the session) and released at once, so an error
 * while waiting leaves nothing behind.
 */
#include "pause.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#define ADVISORY_TWO_KEYS 2

char *ruv_pause_names = NULL;
bool ruv_pause_active = false;

/* Whether a comma list without blanks around its names has the name. */
static bool
is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = list; *at; at += strcspn(at, ","), at += (*at == ',')) {
        at += strspn(at, " ");
        if (strncmp(at, name, length) == 0 && strchr(", ", at[length]) != NULL)
            return true;
    }
    return false;
}

void
ruv_pause_at(const char *name)
{
    LOCKTAG tag;

    if (!is_listed(ruv_pause_names, name))
        return;
    if (InterruptHoldoffCount > 0)
        elog(ERROR, "pause point \"%s\" was reached while a content lock was held", name);
    /* hashtext() of the name. */
    SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, RUV_PAUSE_CLASS,
                         hash_bytes((const unsigned char *)name, (int)strlen(name)),
                         ADVISORY_TWO_KEYS);
    LockAcquire(&tag, ShareLock, false, false);
    LockRelease(&tag, ShareLock, false);
    CHECK_FOR_INTERRUPTS();
}

static bool
check_names(char **value, void **extra, GucSource source)
{
    char *copy = pstrdup(*value);
    List *names;
    bool good = SplitIdentifierString(copy, ',', &names);

    if (!good)
        GUC_check_errdetail("It must be a comma-separated list of the names of pause points.");
    return good;
}

static void
assign_names(const char *value, void *extra)
{
    ruv_pause_active = value && value[0] != '\0';
}

void
ruv_define_pause_setting(void)
{
    DefineCustomStringVariable(
        "ruvector.debug_pause_points", "Points of the code at which this session waits, for tests.",
        "A comma-separated list; pause.h says which lock a point waits for.", &ruv_pause_names, "",
        PGC_SUSET, GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL, check_names, assign_names, NULL);
}
