/*
 * links.c - reading the links of a node: on layer 0 and learned ones from its slot, of upper levels
 * from a SIDE page.
 *
 * They change in place, so they are copied in a peek that sees a change (ruv_peek_stable), and what
 * was copied counts only when the peek has ended well; otherwise the page is read again under a pin
 * and a lock, with all checks.
 */
#include "ruhnsw/ruhnsw.h"

/* What a node says about its links. */
typedef struct LinkSource {
    int level; /* of the node */
    uint64 upper;
    uint16 flags;
    int count; /* links copied; -1: the node vanished; -2: a peek showed what cannot be */
} LinkSource;

static int
copy_learned(const RuhnswGraph *graph, const RuhnswNode *node, uint32 *out)
{
    const uint32 *learned = ruhnsw_learned_links(&graph->geometry, node);
    int count = 0;

    for (int i = 0; i < graph->geometry.learned; i++)
        if (learned[i] != RUHNSW_NO_LINK)
            out[count++] = learned[i];
    return count;
}

/* Copies from a slot that may change under our eyes. */
static void
copy_base(const RuhnswGraph *graph, const RuhnswNode *node, int level, bool learned, uint32 *out,
          LinkSource *source)
{
    RuhnswNode head = *node;

    source->flags = head.flags;
    source->level = head.level;
    source->count = 0;
    source->upper = 0;
    if (!(head.flags & RUHNSW_NODE_USED) || level > head.level) {
        source->count = -1;
    } else if (head.link_count > ruhnsw_level_limit(graph->meta.m, 0)) {
        source->count = -2;
    } else if (level > 0) {
        source->upper = ruhnsw_tail(&graph->geometry, node)->upper;
    } else {
        source->count = head.link_count;
        memcpy(out, ruhnsw_base_links(&graph->geometry, node), sizeof(uint32) * head.link_count);
        if (learned)
            source->count += copy_learned(graph, node, out + head.link_count);
    }
}

static LinkSource
load_base(RuhnswGraph *graph, uint64 ref, int level, bool learned, uint32 *out)
{
    BlockNumber block = ruhnsw_ref_block(ref);
    uint32 start = ruhnsw_slot_start(&graph->geometry, ruhnsw_ref_offset(ref));
    LinkSource source = {.count = -1};
    RuvPeek peek;
    Page page = ruv_peek_stable(&graph->reader, block, &peek);

    if (page == NULL)
        ruhnsw_no_such_block(graph, block);
    copy_base(graph, (RuhnswNode *)((char *)page + start), level, learned, out, &source);
    if (ruv_peek_stable_end(&graph->reader, &peek) && source.count >= 0)
        return source;

    /* A change in the middle, or something odd: with all checks. */
    page = ruhnsw_lock_page(graph, block, &peek);
    source.count = -1;
    if (ruhnsw_get_node(graph->index, &graph->geometry, page, ref))
        copy_base(graph, (RuhnswNode *)((char *)page + start), level, learned, out, &source);
    ruv_peek_end(&graph->reader, &peek);
    return source;
}

/* Copies a level's links from a SIDE page that may change under our eyes; -1: not as it should be.
 */
static int
copy_upper(const RuhnswGraph *graph, Page page, uint64 position, uint64 owner, int level,
           uint32 *out)
{
    OffsetNumber offset = ruhnsw_ref_offset(position);
    ItemIdData id;
    const RuhnswLinks *links;
    int count;

    if (offset < 1 || offset > MaxOffsetNumber)
        return -1;
    id = *PageGetItemId(page, offset);
    if (!ItemIdIsNormal(&id) || id.lp_off % MAXIMUM_ALIGNOF != 0 ||
        id.lp_len < ruhnsw_links_size(graph->meta.m, level) || id.lp_off + id.lp_len > BLCKSZ)
        return -1;
    links = (const RuhnswLinks *)((char *)page + id.lp_off);
    count = links->counts[level];
    if (links->type != RUHNSW_TUPLE_LINKS || links->owner != owner || count > graph->meta.m ||
        level > links->level)
        return -1;
    memcpy(out, links->links + ruhnsw_level_start(graph->meta.m, level), sizeof(uint32) * count);
    return count;
}

static int
load_upper(RuhnswGraph *graph, uint64 ref, uint64 position, int level, uint32 *out)
{
    BlockNumber block = ruhnsw_ref_block(position);
    int count;
    RuvPeek peek;
    RuhnswLinks *links;
    Page page = ruv_peek_stable(&graph->reader, block, &peek);

    if (page == NULL)
        ruhnsw_no_such_block(graph, block);
    count = copy_upper(graph, page, position, ref, level, out);
    if (ruv_peek_stable_end(&graph->reader, &peek) && count >= 0)
        return count;

    page = ruhnsw_lock_page(graph, block, &peek);
    links = ruhnsw_get_links(graph->index, page, position, ref, graph->meta.m);
    count =
        links && level <= links->level ? copy_upper(graph, page, position, ref, level, out) : -1;
    ruv_peek_end(&graph->reader, &peek);
    return count;
}

int
ruhnsw_graph_links(RuhnswGraph *graph, uint64 ref, int level, bool learned, uint32 *out,
                   uint64 *position, uint16 *node_flags)
{
    LinkSource source = load_base(graph, ref, level, learned, out);

    if (source.count < 0)
        return -1;
    if (position)
        *position = level > 0 ? source.upper : ref;
    if (node_flags)
        *node_flags = source.flags;
    return level > 0 ? load_upper(graph, ref, source.upper, level, out) : source.count;
}

int
ruhnsw_load_links(RuhnswGraph *graph, uint64 ref, int level, uint64 *links, uint64 *position,
                  uint16 *node_flags)
{
    int count = ruhnsw_graph_links(graph, ref, level, false, graph->links, position, node_flags);

    for (int i = 0; i < count; i++)
        links[i] = ruhnsw_number_ref(&graph->geometry, graph->links[i]);
    return count;
}

int
ruhnsw_load_learned(RuhnswGraph *graph, uint64 ref, uint64 *links)
{
    BlockNumber block = ruhnsw_ref_block(ref);
    RuvPeek peek;
    Page page = ruhnsw_lock_page(graph, block, &peek);
    RuhnswNode *node = ruhnsw_get_node(graph->index, &graph->geometry, page, ref);
    int count = node ? copy_learned(graph, node, graph->links) : -1;

    ruv_peek_end(&graph->reader, &peek);
    for (int i = 0; i < count; i++)
        links[i] = ruhnsw_number_ref(&graph->geometry, graph->links[i]);
    return count;
}
