/*
 * feedback_find.c - the search that a query id names.
 *
 * A search can be judged while its record lies in the window of the trajectory ring, whether the
 * worker has read it or not, and for as long as its row is among the stored trajectories. So
 * feedback may come before the worker has seen the search, for one that it did not sample, or hours
 * later.
 *
 * Ids are not secret and could be guessed, so an id gives no right: a search is found for the role
 * that made it, for members of that role, and for the owner of the table, who sees the recorded
 * searches anyway. To all others it does not exist.
 */
#include "learning/feedback.h"

#include "catalog/index.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

const char *
ruv_query_id_text(const uint64 *query_id)
{
    return psprintf("%08x-%04x-%04x-%04x-%012llx", (uint32)(query_id[0] >> 32),
                    (uint32)(query_id[0] >> 16) & 0xFFFF, (uint32)query_id[0] & 0xFFFF,
                    (uint32)(query_id[1] >> 48),
                    (unsigned long long)(query_id[1] & UINT64CONST(0xFFFFFFFFFFFF)));
}

/* ---- where a search is kept ---------------------------------------------------------------- */

bool
ruv_find_recorded(const uint64 *query_id, char *record, size_t capacity, size_t *size)
{
    const rv_trajectory *head;
    bool has_ring;
    int number;

    if (ruv_shared == NULL)
        return false;
    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    number = ruv_database_find(MyDatabaseId);
    has_ring = number >= 0 && ruv_shared->databases[number].ring_ready;
    LWLockRelease(ruv_shared->lock);
    return has_ring &&
           rv_ring_find(ruv_shared_ring(number), query_id, 2, record, capacity, size) == RV_OK &&
           rv_trajectory_view(record, *size, &head, NULL, NULL, NULL) == RV_OK &&
           head->database_oid == MyDatabaseId;
}

static bool
find_in_ring(RuvJudgedSearch *search)
{
    size_t capacity = rv_trajectory_size(RV_MAX_DIMENSIONS, RV_TRAJECTORY_MAX_HITS);
    char *record = palloc(capacity);
    const rv_trajectory *head;
    size_t size;

    if (!ruv_find_recorded(search->query_id, record, capacity, &size) ||
        rv_trajectory_view(record, size, &head, &search->query, (const rv_hit **)&search->hits,
                           NULL) != RV_OK)
        return false;
    search->index_oid = head->index_oid;
    search->user_oid = head->user_oid;
    search->k = head->k;
    search->dim = (int)head->dim;
    search->hit_count = head->result_count;
    return true;
}

/* The elements of an array column; 0 when it is null. */
static int
array_column(int column, Oid type, int16 size, bool by_value, char alignment, Datum **items)
{
    bool null;
    Datum value = ruv_store_value(0, column, &null);
    int count = 0;

    if (!null)
        deconstruct_array(DatumGetArrayTypeP(value), type, size, by_value, alignment, items, NULL,
                          &count);
    return count;
}

static void
take_stored_hits(RuvJudgedSearch *search, MemoryContext context)
{
    Datum *ids;
    Datum *distances;
    int count = array_column(5, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids);

    count = Min(count, array_column(6, FLOAT4OID, 4, true, TYPALIGN_INT, &distances));
    search->hits = MemoryContextAllocZero(context, sizeof(rv_hit) * Max(count, 1));
    search->hit_count = (uint32)count;
    for (int i = 0; i < count; i++) {
        search->hits[i].id = (uint64)DatumGetInt64(ids[i]);
        search->hits[i].distance = DatumGetFloat4(distances[i]);
    }
}

static void
take_stored_query(RuvJudgedSearch *search, MemoryContext context)
{
    bool null;
    Datum value = ruv_store_value(0, 4, &null);
    RuVector *vector;

    if (null)
        return;
    vector = DatumGetRuVector(value);
    search->dim = vector->dim;
    search->query = memcpy(MemoryContextAlloc(context, sizeof(float) * vector->dim), vector->x,
                           sizeof(float) * vector->dim);
}

static bool
find_in_store(RuvJudgedSearch *search)
{
    MemoryContext context = CurrentMemoryContext;
    Oid types[1] = {UUIDOID};
    Datum values[1] = {ruv_query_id_datum(search->query_id)};
    RuvStore store;
    bool found;

    ruv_store_open_or_fail(&store);
    found = ruv_store_run(&store,
                          "SELECT index_oid, user_id, k, query, result_ids, result_distances "
                          "FROM @.ruvector_trajectory_log WHERE query_id = $1",
                          1, types, values, NULL) > 0;
    if (found) {
        search->index_oid = DatumGetObjectId(ruv_store_value(0, 1, NULL));
        search->user_oid = DatumGetObjectId(ruv_store_value(0, 2, NULL));
        search->k = (uint32)DatumGetInt32(ruv_store_value(0, 3, NULL));
        take_stored_query(search, context);
        take_stored_hits(search, context);
    }
    ruv_store_close(&store);
    return found;
}

/* ---- who may judge it ---------------------------------------------------------------------- */

static bool
may_judge(const RuvJudgedSearch *search)
{
    return has_privs_of_role(GetUserId(), search->user_oid) || ruv_owns_relation(search->table_oid);
}

/* Why the last search of this session is not to be found. */
static const char *
why_not_recorded(const RuvLastSearch *last)
{
    RuvIndexCache *cache = ruv_index_cache(last->index_oid);
    Oid table_oid = IndexGetRelation(last->index_oid, true);

    if (!ruv_learning_enabled)
        return "ruvector.learning_enabled is off.";
    if (cache == NULL || cache->slot == NULL)
        return psprintf("Learning is not enabled for \"%s\".",
                        OidIsValid(table_oid) ? get_rel_name(table_oid) : "its table");
    if (ruv_trajectory_sample_rate < 1.0)
        return psprintf("ruvector.trajectory_sample_rate is %g, and it was not drawn.",
                        ruv_trajectory_sample_rate);
    return "Later searches have pushed it out of the recorded ones.";
}

static void
report_unknown(const RuvJudgedSearch *search)
{
    const RuvLastSearch *last = ruv_last_search();
    const char *id = ruv_query_id_text(search->query_id);

    if (last != NULL && last->user_oid == GetUserId() && last->query_id[0] == search->query_id[0] &&
        last->query_id[1] == search->query_id[1])
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("search %s was not recorded", id),
                        errdetail("%s", why_not_recorded(last))));
    if (!ruv_is_own_query_id(search->query_id))
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("search %s is not known", id),
                        errdetail("It was made in another run of the server. Of former runs only "
                                  "stored searches can be judged, the last trajectory_window "
                                  "sampled ones of each index.")));
    ereport(ERROR,
            (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("search %s is not known", id),
             errdetail("It is no longer among the recorded searches, or was made by a role that "
                       "you are not a member of."),
             errhint("Give feedback sooner, or raise ruvector.trajectory_buffer_size, which "
                     "bounds the searches that are kept in memory.")));
}

/* Of version 8 and the variant of RFC 9562, as capture.c makes them. */
static void
check_form(const uint64 *query_id)
{
    if ((query_id[0] & 0xF000) == 0x8000 && query_id[1] >> 62 == 2)
        return;
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("%s is not the id of a search", ruv_query_id_text(query_id)),
                    errhint("ruvector_last_query_id() gives the id of this session's last search "
                            "that used an index of ruvector.")));
}

void
ruv_find_judged_search(const uint64 *query_id, RuvJudgedSearch *search)
{
    memset(search, 0, sizeof(*search));
    memcpy(search->query_id, query_id, sizeof(search->query_id));
    check_form(query_id);
    if (!find_in_ring(search) && !find_in_store(search))
        report_unknown(search);
    search->table_oid = IndexGetRelation(search->index_oid, true);
    if (!OidIsValid(search->table_oid) || !may_judge(search))
        report_unknown(search);
    ruv_require_reader(search->table_oid);
}
