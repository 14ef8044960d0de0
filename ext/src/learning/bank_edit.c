/*
 * bank_edit.c - the bank's lock, and a bank opened by a session. bank_edit.h says how it goes
 * together with the worker.
 */
#include "learning/bank_edit.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* Object locks on relations have sub-ids of columns at most; relations themselves have a kind of
 * lock of their own. */
#define RUV_BANK_LOCK_SUBID 0xBA4C

#define RUV_MAX_STORED_EFFORT 1000000
#define RUV_MAX_STORED_SLACK 1000

static bool
take_bank_lock(Oid index_oid, bool wait)
{
    LOCKTAG tag;

    SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, index_oid, RUV_BANK_LOCK_SUBID);
    return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

void
ruv_bank_lock(Oid index_oid)
{
    (void)take_bank_lock(index_oid, true);
}

bool
ruv_bank_try_lock(Oid index_oid)
{
    return take_bank_lock(index_oid, false);
}

/* Which remembered queries the patterns were calibrated with. */
static char *
memory_digest(RuvStore *store, const RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};
    char *digest;

    if (ruv_store_run(store,
                      "SELECT encode(sha256(flat), 'hex') FROM @.ruvector_memory "
                      "WHERE index_oid = $1 AND index_epoch = $2",
                      2, types, values, NULL) == 0)
        return NULL;
    digest = TextDatumGetCString(ruv_store_value(0, 1, NULL));
    return MemoryContextStrdup(state->context, digest);
}

static void
load_bank(RuvBankEdit *edit)
{
    RuvIndexState *state = &edit->state;
    rv_error err = {0};

    ruv_store_load_patterns(&edit->store, state);
    if (state->bank == NULL)
        ruv_check(rv_bank_create(&state->allocator, state->identity.metric,
                                 (uint32_t)state->identity.dim, RUV_BANK_LIMIT, &state->bank, &err),
                  &err, "loading the pattern bank");
    edit->memory_digest = memory_digest(&edit->store, state);
}

void
ruv_bank_edit_begin(RuvBankEdit *edit, Relation index, bool locked)
{
    RuvIndexState *state = &edit->state;

    memset(edit, 0, sizeof(*edit));
    if (locked)
        ruv_bank_lock(RelationGetRelid(index));
    state->index_oid = RelationGetRelid(index);
    state->table_oid = index->rd_index->indrelid;
    namestrcpy(&state->index_name, RelationGetRelationName(index));
    ruv_index_identity(index, &state->identity);
    ruv_policy_use_of(state->index_oid);
    state->context =
        AllocSetContextCreate(CurrentMemoryContext, "ruvector bank", ALLOCSET_DEFAULT_SIZES);
    ruv_context_allocator(state->context, &state->allocator);
    ruv_store_open_or_fail(&edit->store);
    load_bank(edit);
}

void
ruv_bank_edit_save(RuvBankEdit *edit)
{
    ruv_store_save_patterns(&edit->store, &edit->state);
    ruv_registry_touch_at_commit(edit->state.index_oid);
}

void
ruv_bank_edit_end(RuvBankEdit *edit)
{
    ruv_store_close(&edit->store);
    MemoryContextDelete(edit->state.context);
}

/* ---- limits -------------------------------------------------------------------------------- */

static rv_status
check_at_most(const char *name, double value, double most, rv_error *err)
{
    if (value <= most)
        return RV_OK;
    snprintf(err->message, sizeof(err->message), "%s is %.17g; must be at most %.17g", name, value,
             most);
    err->status = RV_ERR_RANGE;
    return RV_ERR_RANGE;
}

static rv_status
check_moment(const char *name, int64 moment, rv_error *err)
{
    if (IS_VALID_TIMESTAMP(moment))
        return RV_OK;
    snprintf(err->message, sizeof(err->message),
             "%s is " INT64_FORMAT "; must be a moment that a timestamp can hold", name, moment);
    err->status = RV_ERR_RANGE;
    return RV_ERR_RANGE;
}

rv_status
ruv_bank_check_storable(const rv_pattern *p, rv_error *err)
{
    rv_status status;

    if ((status = check_at_most("id", (double)p->id, (double)(PG_INT64_MAX / 2), err)) != RV_OK ||
        (status = check_at_most("k", p->k, RV_TRAJECTORY_MAX_HITS, err)) != RV_OK ||
        (status = check_at_most("samples", p->samples, PG_INT32_MAX, err)) != RV_OK ||
        (status = check_at_most("usage", (double)p->usage, (double)(PG_INT64_MAX / 2), err)) !=
            RV_OK ||
        (status = check_at_most("optimal_ef_search", p->optimal_ef_search, RUV_MAX_STORED_EFFORT,
                                err)) != RV_OK ||
        (status = check_at_most("optimal_probes", p->optimal_probes, RUV_MAX_STORED_EFFORT, err)) !=
            RV_OK ||
        (status = check_at_most("table_ef[11]", p->table_ef[RV_TARGETS - 1], RUV_MAX_STORED_EFFORT,
                                err)) != RV_OK ||
        (status = check_at_most("slack", p->slack, RUV_MAX_STORED_SLACK, err)) != RV_OK ||
        (status = check_at_most("table_slack[11]", p->table_slack[RV_TARGETS - 1],
                                RUV_MAX_STORED_SLACK, err)) != RV_OK ||
        (status = check_moment("created_us", p->created_us, err)) != RV_OK)
        return status;
    return check_moment("updated_us", p->updated_us, err);
}
