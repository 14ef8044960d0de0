/*
 * store_links.c - rounds of learned links as rows. A round that is being applied carries its links,
 * so that a worker that comes after a crash can take them away again.
 */
#include "learning/linking.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Rounds that are kept for people to read. */
#define RUV_KEPT_ROUNDS 100

static const char *const state_names[] = {"applying", "kept", "rolled back", "interrupted"};

const char *
ruv_link_round_state_name(RuvLinkRoundState state)
{
    return state_names[state];
}

void
ruv_links_save_reset(RuvStore *store, const RuvIndexState *state)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(state->index_oid)};

    if (state->linking.reset)
        ruv_store_run(store,
                      "UPDATE @.ruvector_link_rounds SET state = 'reset' "
                      "WHERE index_oid = $1 AND state = 'kept'",
                      1, types, values, NULL);
}

static Datum
link_ends(const RuvLinkRound *round, bool from)
{
    Datum *items =
        MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Datum) * Max(round->count, 1));
    ArrayType *array;

    for (int i = 0; i < round->count; i++)
        items[i] = Int64GetDatum((int64)(from ? round->links[i].from : round->links[i].to));
    array = construct_array(items, round->count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
    pfree(items);
    return PointerGetDatum(array);
}

static void
insert_round(RuvStore *store, const RuvIndexState *state, RuvLinkRound *round)
{
    Oid types[8] = {OIDOID, OIDOID, NAMEOID, INT8OID, TEXTOID, INT4OID, INT8ARRAYOID, INT8ARRAYOID};
    Datum values[8] = {ObjectIdGetDatum(state->index_oid),
                       ObjectIdGetDatum(state->table_oid),
                       NameGetDatum(&state->index_name),
                       Int64GetDatum((int64)state->identity.epoch),
                       CStringGetTextDatum(ruv_link_round_state_name(round->state)),
                       Int32GetDatum(round->queries),
                       link_ends(round, true),
                       link_ends(round, false)};

    ruv_store_run(store,
                  "INSERT INTO @.ruvector_link_rounds (index_oid, round, table_id, index_name, "
                  "index_epoch, state, queries, link_from, link_to) SELECT $1, "
                  "coalesce(max(r.round), 0) + 1, $2::regclass, $3, $4, $5, $6, $7, $8 "
                  "FROM @.ruvector_link_rounds r WHERE r.index_oid = $1 RETURNING round",
                  8, types, values, NULL);
    round->number = DatumGetInt32(ruv_store_value(0, 1, NULL));
    ruv_store_run(store,
                  psprintf("DELETE FROM @.ruvector_link_rounds WHERE index_oid = $1 AND "
                           "round <= %d AND state <> 'applying'",
                           round->number - RUV_KEPT_ROUNDS),
                  1, types, values, NULL);
}

static void
end_round(RuvStore *store, const RuvIndexState *state, const RuvLinkRound *round)
{
    Oid types[7] = {OIDOID, INT4OID, TEXTOID, INT4OID, INT4OID, FLOAT8OID, FLOAT8OID};
    Datum values[7] = {ObjectIdGetDatum(state->index_oid),
                       Int32GetDatum(round->number),
                       CStringGetTextDatum(ruv_link_round_state_name(round->state)),
                       Int32GetDatum(round->count),
                       Int32GetDatum(round->held_out),
                       Float8GetDatum(round->before),
                       Float8GetDatum(round->after)};
    char nulls[8] = "       ";

    if (round->held_out == 0)
        nulls[4] = nulls[5] = nulls[6] = 'n';
    ruv_store_run(store,
                  "UPDATE @.ruvector_link_rounds SET state = $3, links = $4, held_out = $5, "
                  "distances_before = $6, distances_after = $7, ended_at = clock_timestamp(), "
                  "link_from = NULL, link_to = NULL WHERE index_oid = $1 AND round = $2",
                  7, types, values, nulls);
}

void
ruv_store_save_link_round(RuvStore *store, const RuvIndexState *state, RuvLinkRound *round)
{
    if (round->state == RUV_LINKS_APPLYING)
        insert_round(store, state, round);
    else
        end_round(store, state, round);
}

/* When the last round of this build ended, and what it gained. */
static void
load_last_round(RuvStore *store, RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};
    bool unknown;

    if (ruv_store_run(store,
                      "SELECT ended_at, 1 - distances_after / nullif(distances_before, 0) "
                      "FROM @.ruvector_link_rounds WHERE index_oid = $1 AND index_epoch = $2 "
                      "AND ended_at IS NOT NULL ORDER BY round DESC LIMIT 1",
                      2, types, values, NULL) == 0)
        return;
    state->linking.ended = DatumGetTimestampTz(ruv_store_value(0, 1, NULL));
    state->linking.gain = DatumGetFloat8(ruv_store_value(0, 2, &unknown));
    state->linking.judged = !unknown;
}

void
ruv_store_load_links(RuvStore *store, RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};

    ruv_store_run(store,
                  "SELECT coalesce(sum(queries), 0), coalesce(bool_or(state = 'applying'), false), "
                  "coalesce(bool_or(state = 'kept'), false), "
                  "coalesce(sum(links) FILTER (WHERE state = 'kept'), 0) "
                  "FROM @.ruvector_link_rounds WHERE index_oid = $1 AND index_epoch = $2 "
                  "AND state <> 'reset'",
                  2, types, values, NULL);
    state->linking.used = (uint64)DatumGetInt64(ruv_store_value(0, 1, NULL));
    state->linking.unfinished = DatumGetBool(ruv_store_value(0, 2, NULL));
    state->linking.linked = DatumGetBool(ruv_store_value(0, 3, NULL));
    state->linking.links = (uint64)DatumGetInt64(ruv_store_value(0, 4, NULL));
    load_last_round(store, state);
}

/* Reads the links of the present SPI row into the round. */
static void
read_links(RuvLinkRound *round)
{
    MemoryContext former = MemoryContextSwitchTo(round->context);
    Datum *from;
    Datum *to;
    int from_count;
    int to_count;

    deconstruct_array(DatumGetArrayTypeP(ruv_store_value(0, 3, NULL)), INT8OID, 8, FLOAT8PASSBYVAL,
                      TYPALIGN_DOUBLE, &from, NULL, &from_count);
    deconstruct_array(DatumGetArrayTypeP(ruv_store_value(0, 4, NULL)), INT8OID, 8, FLOAT8PASSBYVAL,
                      TYPALIGN_DOUBLE, &to, NULL, &to_count);
    round->count = Min(from_count, to_count);
    round->links = MemoryContextAllocHuge(round->context, sizeof(rv_link) * Max(round->count, 1));
    for (int i = 0; i < round->count; i++) {
        memset(&round->links[i], 0, sizeof(rv_link));
        round->links[i].from = (uint64)DatumGetInt64(from[i]);
        round->links[i].to = (uint64)DatumGetInt64(to[i]);
    }
    MemoryContextSwitchTo(former);
}

bool
ruv_links_load_unfinished(const RuvIndexState *state, RuvLinkRound *round)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};
    bool found = false;
    RuvStore store;

    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    if (ruv_store_open(&store)) {
        found = ruv_store_run(&store,
                              "SELECT round, queries, link_from, link_to "
                              "FROM @.ruvector_link_rounds WHERE index_oid = $1 "
                              "AND index_epoch = $2 AND state = 'applying' ORDER BY round LIMIT 1",
                              2, types, values, NULL) > 0;
        if (found) {
            round->number = DatumGetInt32(ruv_store_value(0, 1, NULL));
            round->queries = DatumGetInt32(ruv_store_value(0, 2, NULL));
            round->held_out = 0;
            read_links(round);
        }
        ruv_store_close(&store);
    }
    PopActiveSnapshot();
    CommitTransactionCommand();
    MemoryContextSwitchTo(round->context);
    return found;
}
