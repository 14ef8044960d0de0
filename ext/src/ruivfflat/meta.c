/*
 * meta.c - the meta page: what the index is, and how values become vectors of it.
 *
 * Only max_norm changes after the build. It is raised before the row that needs it is added, so it
 * is a bound at any time.
 */
#include "ruivfflat/ruivfflat.h"

#include "opclass.h"

#include <math.h>

#include "miscadmin.h"

#define MetaOf(page) ((RuivfMetaData *)PageGetContents(page))

void
ruivf_read_meta(Relation index, RuivfMetaData *meta)
{
    Buffer buffer = ruivf_read(index, RUIVF_META_BLOCK, RUIVF_PAGE_META, BUFFER_LOCK_SHARE);
    const char *problem;

    *meta = *MetaOf(BufferGetPage(buffer));
    UnlockReleaseBuffer(buffer);
    problem = ruivf_check_meta(meta);
    if (problem)
        ruivf_corrupt(index, RUIVF_META_BLOCK, "%s", problem);
}

static int
checked_dimensions(Relation index)
{
    int dim = ruv_column_dimensions(index);

    if (dim > RUIVF_MAX_DIMENSIONS)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("column cannot have more than %d dimensions for a ruivfflat index",
                               RUIVF_MAX_DIMENSIONS),
                        errdetail("The column has %d dimensions.", dim),
                        errhint("Index a part of the vector, for example "
                                "(subvector(column, 1, %d)::ruvector(%d)), or store reduced "
                                "vectors.",
                                RUIVF_MAX_DIMENSIONS, RUIVF_MAX_DIMENSIONS)));
    return dim;
}

void
ruivf_make_meta(Relation index, RuivfMetaData *meta)
{
    memset(meta, 0, sizeof(*meta));
    meta->magic = RUIVF_MAGIC;
    meta->version = RUIVF_VERSION;
    meta->epoch = ruv_draw_epoch();
    meta->dim = checked_dimensions(index);
    meta->metric = ruv_index_metric(index);
    meta->storage = ruivf_option_storage(index, meta->dim);
    meta->lists = 1;
}

void
ruivf_write_meta(Page page, const RuivfMetaData *meta)
{
    ruivf_page_init(page, RUIVF_PAGE_META);
    *MetaOf(page) = *meta;
}

void
ruivf_raise_max_norm(Relation index, float norm)
{
    Buffer buffer = ruivf_read(index, RUIVF_META_BLOCK, RUIVF_PAGE_META, BUFFER_LOCK_EXCLUSIVE);

    if (MetaOf(BufferGetPage(buffer))->max_norm < norm) {
        GenericXLogState *xlog = GenericXLogStart(index);

        MetaOf(GenericXLogRegisterBuffer(xlog, buffer, 0))->max_norm = norm;
        GenericXLogFinish(xlog);
    }
    UnlockReleaseBuffer(buffer);
}

void
ruivf_identity(Relation index, const RuivfMetaData *meta, RuvIndexIdentity *out)
{
    *out = (RuvIndexIdentity){
        .index_oid = RelationGetRelid(index),
        .epoch = meta->epoch,
        .metric = (rv_metric)meta->metric,
        .dim = meta->dim,
        .adaptive = ruivf_option_adaptive(index),
        .own = ruivf_option_effort(index),
    };
}

void
ruivf_get_info(Relation index, RuivfInfo *info)
{
    RuivfMetaData meta;

    ruivf_read_meta(index, &meta);
    ruivf_identity(index, &meta, &info->identity);
    info->lists = meta.lists;
    info->storage = ruivf_storage_name((RuivfStorage)meta.storage);
    info->max_norm = meta.max_norm;
}

float
ruivf_norm_bound(const float *vector, int dim)
{
    return nextafterf(rv_norm(vector, dim), INFINITY);
}
