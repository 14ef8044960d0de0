/*
 * policy_choice.c - which policies serve an index, and which run in the shadow.
 *
 * The choices are rows of ruvector_policy_choices: for one table, or for the whole database. The
 * worker reads them with the rest of the configuration and writes the names that serve each index
 * into its slot in shared memory, where every session finds them when it next resolves the index;
 * so a change takes effect everywhere with the next search after the worker has seen it, and costs
 * a search nothing. A name that no file has is reported once, and the default policy serves.
 *
 * Shadows are the worker's alone: their answers are compared and counted (shadow.c), never used.
 */
#include "learning/worker.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

/* ---- the worker's view --------------------------------------------------------------------- */

typedef struct Choice {
    rv_policy_kind kind;
    bool shadow;
    Oid table_oid; /* InvalidOid: the whole database */
    char id[RUV_POLICY_ID];
} Choice;

int
ruv_policy_kind_by_name(const char *name)
{
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++)
        if (strcmp(name, rv_policy_kind_name((rv_policy_kind)kind)) == 0)
            return kind;
    return -1;
}

/* The present choices, those of the whole database first. */
static List *
read_choices(RuvStore *store)
{
    uint64 rows = ruv_store_run(store,
                                "SELECT kind, role = 'shadow', coalesce(table_id::oid, 0::oid), "
                                "policy FROM @.ruvector_policy_choices WHERE ended_at IS NULL "
                                "ORDER BY table_id IS NOT NULL",
                                0, NULL, NULL, NULL);
    List *choices = NIL;

    for (uint64 row = 0; row < rows; row++) {
        Choice *choice = palloc0(sizeof(*choice));
        int kind = ruv_policy_kind_by_name(TextDatumGetCString(ruv_store_value(row, 1, NULL)));

        if (kind < 0)
            continue;
        choice->kind = (rv_policy_kind)kind;
        choice->shadow = DatumGetBool(ruv_store_value(row, 2, NULL));
        choice->table_oid = DatumGetObjectId(ruv_store_value(row, 3, NULL));
        strlcpy(choice->id, TextDatumGetCString(ruv_store_value(row, 4, NULL)), sizeof(choice->id));
        choices = lappend(choices, choice);
    }
    return choices;
}

static void
resolve(List *choices, Oid table_oid, bool shadow, RuvPolicyNames *names)
{
    ListCell *cell;

    memset(names, 0, sizeof(*names));
    foreach (cell, choices) {
        const Choice *choice = lfirst(cell);

        if (choice->shadow == shadow &&
            (!OidIsValid(choice->table_oid) || choice->table_oid == table_oid))
            strlcpy(names->id[choice->kind], choice->id, RUV_POLICY_ID);
    }
}

void
ruv_policy_choices_of_database(RuvStore *store, RuvPolicyNames *names)
{
    resolve(read_choices(store), InvalidOid, false, names);
}

void
ruv_policy_choices_sync(RuvStore *store, List *states)
{
    List *choices = read_choices(store);
    ListCell *cell;

    foreach (cell, states) {
        RuvIndexState *state = lfirst(cell);
        RuvPolicyNames serving;
        RuvPolicyNames shadow;

        resolve(choices, state->table_oid, false, &serving);
        resolve(choices, state->table_oid, true, &shadow);
        ruv_registry_set_policies(state->slot, &serving);
        ruv_shadow_follow(&state->shadow, &shadow);
    }
}
