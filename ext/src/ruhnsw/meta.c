/*
 * meta.c - the meta page: what the index is, and where a search enters it.
 *
 * The content lock of the meta page is held only while its few fields are copied or changed. The
 * entry node is changed under the exclusive heavyweight lock as well (ruhnsw.h), so that a check of
 * the present entry and the change to it are one step.
 */
#include "ruhnsw/ruhnsw.h"

#include "opclass.h"

#include <math.h>

#include "access/xloginsert.h"
#include "miscadmin.h"

#define MetaOf(page) ((RuhnswMetaData *)PageGetContents(page))

const char *
ruhnsw_check_meta(const RuhnswMetaData *meta)
{
    if (meta->magic != RUHNSW_MAGIC)
        return "the meta page has no magic number of this access method";
    if (meta->version != RUHNSW_VERSION)
        return "the meta page has an unknown format version";
    if (meta->epoch == 0)
        return "the meta page has no epoch";
    if (meta->m < RUHNSW_MIN_M || meta->m > RUHNSW_MAX_M)
        return "m is out of range";
    if (meta->storage < RUHNSW_STORAGE_FLOAT32 || meta->storage > RUHNSW_STORAGE_INT8)
        return "the storage of vectors is unknown";
    if (meta->learned > RUHNSW_MAX_LEARNED)
        return "the number of learned links is out of range";
    if (meta->dim < 1 ||
        meta->dim > ruhnsw_max_dimensions(meta->m, meta->learned, (RuhnswStorage)meta->storage))
        return "the number of dimensions is out of range";
    if (meta->metric < RV_METRIC_L2 || meta->metric > RV_METRIC_L1)
        return "the metric is unknown";
    if ((meta->entry == RUHNSW_NO_REF) != (meta->entry_level == -1) || meta->entry_level < -1 ||
        meta->entry_level > ruhnsw_max_level(meta->m))
        return "the level of the entry point is out of range";
    if ((meta->entry == RUHNSW_NO_REF) != (meta->root == RUHNSW_NO_REF))
        return "the root of layer 0 is missing";
    if (!(meta->max_norm >= 0.0f) || !(meta->max_error >= 0.0f))
        return "the bound of the norms or of the codes' errors is negative";
    return NULL;
}

void
ruhnsw_read_meta(Relation index, RuhnswMetaData *meta)
{
    Buffer buffer = ruhnsw_read(index, RUHNSW_META_BLOCK, BUFFER_LOCK_SHARE);
    Page page = BufferGetPage(buffer);
    const char *problem;

    if (PageIsNew(page))
        ruhnsw_corrupt(index, RUHNSW_META_BLOCK, "the meta page is empty");
    *meta = *MetaOf(page);
    UnlockReleaseBuffer(buffer);
    problem = ruhnsw_check_meta(meta);
    if (problem)
        ruhnsw_corrupt(index, RUHNSW_META_BLOCK, "%s", problem);
}

/* AUTO takes the most exact storage whose slots fit a page, but for float32, which nobody needs who
 * does not ask for it: it is a quarter larger than fixed32. */
static RuhnswStorage
choose_storage(Relation index, int dim, int m, int learned)
{
    RuhnswStorage asked = ruhnsw_option_storage(index);
    RuhnswStorage storage = asked;
    int limit;

    if (asked == RUHNSW_STORAGE_AUTO)
        for (storage = RUHNSW_STORAGE_FIXED32; storage < RUHNSW_STORAGE_INT8; storage++)
            if (dim <= ruhnsw_max_dimensions(m, learned, storage))
                break;
    limit = ruhnsw_max_dimensions(m, learned, storage);
    if (dim > limit)
        ereport(ERROR,
                (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                 errmsg("column cannot have more than %d dimensions for a ruhnsw index", limit),
                 errdetail("The column has %d dimensions; the limit is that of m = %d, storage = "
                           "%s and learned_links = %d.",
                           dim, m, ruhnsw_storage_name(storage), learned),
                 asked == RUHNSW_STORAGE_AUTO || storage == RUHNSW_STORAGE_INT8
                     ? errhint("Index a part of the vector, for example "
                               "(subvector(column, 1, %d)::ruvector(%d)), or store reduced "
                               "vectors.",
                               limit, limit)
                     : errhint("With another storage more dimensions fit; auto chooses "
                               "by itself.")));
    return storage;
}

void
ruhnsw_make_meta(Relation index, RuhnswMetaData *meta)
{
    int m = ruhnsw_option_m(index);
    int ef_construction = ruhnsw_option_ef_construction(index);

    if (ef_construction < 2 * m)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("ef_construction must be at least 2 * m"),
                        errdetail("ef_construction is %d, m is %d.", ef_construction, m)));
    memset(meta, 0, sizeof(*meta));
    meta->magic = RUHNSW_MAGIC;
    meta->version = RUHNSW_VERSION;
    meta->epoch = ruv_draw_epoch();
    meta->entry = RUHNSW_NO_REF;
    meta->entry_level = -1;
    meta->dim = ruv_column_dimensions(index);
    meta->m = m;
    meta->learned = ruhnsw_option_learned(index);
    meta->storage = choose_storage(index, meta->dim, m, meta->learned);
    meta->ef_construction = ef_construction;
    meta->metric = ruv_index_metric(index);
}

static void
write_meta(Page page, const RuhnswMetaData *meta)
{
    ruhnsw_page_init(page, RUHNSW_PAGE_META);
    *MetaOf(page) = *meta;
    /* Generic WAL does not keep what lies between pd_lower and pd_upper. */
    ((PageHeader)page)->pd_lower = (char *)(MetaOf(page) + 1) - (char *)page;
}

void
ruhnsw_create_meta(Relation index, ForkNumber fork, const RuhnswMetaData *meta)
{
    Buffer buffer = ReadBufferExtended(index, fork, P_NEW, RBM_NORMAL, NULL);

    Assert(BufferGetBlockNumber(buffer) == RUHNSW_META_BLOCK);
    LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    START_CRIT_SECTION();
    write_meta(BufferGetPage(buffer), meta);
    MarkBufferDirty(buffer);
    /* An init fork must survive a crash although the relation itself is not logged. */
    if (fork == INIT_FORKNUM)
        log_newpage_buffer(buffer, true);
    END_CRIT_SECTION();
    UnlockReleaseBuffer(buffer);
}

void
ruhnsw_set_entry(Relation index, uint64 entry, int level, bool first, bool building)
{
    Buffer buffer = ruhnsw_read(index, RUHNSW_META_BLOCK, BUFFER_LOCK_EXCLUSIVE);
    RuhnswChange change;
    RuhnswMetaData *meta;

    ruhnsw_change_begin(&change, index, building);
    meta = MetaOf(ruhnsw_change_page(&change, buffer));
    meta->entry = entry;
    meta->entry_level = level;
    if (first || entry == RUHNSW_NO_REF)
        meta->root = entry;
    ruhnsw_change_commit(&change);
    UnlockReleaseBuffer(buffer);
}

void
ruhnsw_set_root(Relation index, uint64 root)
{
    Buffer buffer = ruhnsw_read(index, RUHNSW_META_BLOCK, BUFFER_LOCK_EXCLUSIVE);
    RuhnswChange change;

    ruhnsw_change_begin(&change, index, false);
    MetaOf(ruhnsw_change_page(&change, buffer))->root = root;
    ruhnsw_change_commit(&change);
    UnlockReleaseBuffer(buffer);
}

void
ruhnsw_set_unlinked(Relation index, uint64 unlinked)
{
    Buffer buffer = ruhnsw_read(index, RUHNSW_META_BLOCK, BUFFER_LOCK_EXCLUSIVE);

    if (MetaOf(BufferGetPage(buffer))->unlinked != unlinked) {
        RuhnswChange change;

        ruhnsw_change_begin(&change, index, false);
        MetaOf(ruhnsw_change_page(&change, buffer))->unlinked = unlinked;
        ruhnsw_change_commit(&change);
    }
    UnlockReleaseBuffer(buffer);
}

void
ruhnsw_set_side_block(Relation index, BlockNumber block, bool building)
{
    Buffer buffer = ruhnsw_read(index, RUHNSW_META_BLOCK, BUFFER_LOCK_EXCLUSIVE);

    if (MetaOf(BufferGetPage(buffer))->side_block != block) {
        RuhnswChange change;

        ruhnsw_change_begin(&change, index, building);
        MetaOf(ruhnsw_change_page(&change, buffer))->side_block = block;
        ruhnsw_change_commit(&change);
    }
    UnlockReleaseBuffer(buffer);
}

void
ruhnsw_raise_bounds(Relation index, float norm, float error, bool building)
{
    Buffer buffer = ruhnsw_read(index, RUHNSW_META_BLOCK, BUFFER_LOCK_EXCLUSIVE);
    RuhnswMetaData *meta = MetaOf(BufferGetPage(buffer));

    if (meta->max_norm < norm || meta->max_error < error) {
        RuhnswChange change;

        ruhnsw_change_begin(&change, index, building);
        meta = MetaOf(ruhnsw_change_page(&change, buffer));
        meta->max_norm = Max(meta->max_norm, norm);
        meta->max_error = Max(meta->max_error, error);
        ruhnsw_change_commit(&change);
    }
    UnlockReleaseBuffer(buffer);
}

void
ruhnsw_identity(Relation index, const RuhnswMetaData *meta, RuvIndexIdentity *out)
{
    *out = (RuvIndexIdentity){
        .index_oid = RelationGetRelid(index),
        .epoch = meta->epoch,
        .metric = (rv_metric)meta->metric,
        .dim = meta->dim,
        .adaptive = ruhnsw_option_adaptive(index),
        .own = ruhnsw_option_effort(index),
        .link_room = meta->learned,
    };
}

void
ruhnsw_get_info(Relation index, RuhnswInfo *info)
{
    RuhnswMetaData meta;

    ruhnsw_read_meta(index, &meta);
    ruhnsw_identity(index, &meta, &info->identity);
    info->m = meta.m;
    info->storage = ruhnsw_storage_name((RuhnswStorage)meta.storage);
    info->ef_construction = ruhnsw_option_ef_construction(index);
    info->max_norm = meta.max_norm;
    info->entry_node = meta.entry;
    info->entry_level = meta.entry_level;
}

int
ruhnsw_results_per_window(Relation index, int k)
{
    RuhnswMetaData meta;

    ruhnsw_read_meta(index, &meta);
    return (int)ruhnsw_window_over((RuhnswStorage)meta.storage, (uint32)k);
}

const float *
ruhnsw_prepare_value(const RuvIndexIdentity *identity, Datum value)
{
    RuVector *vector = DatumGetRuVector(value);
    float *out = palloc(sizeof(float) * identity->dim);
    bool indexed = ruv_index_vector(identity->metric, identity->dim, vector, out);

    if ((Pointer)vector != DatumGetPointer(value))
        pfree(vector);
    if (!indexed) {
        pfree(out);
        return NULL;
    }
    return out;
}
