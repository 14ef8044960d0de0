/*
 * healing.c - whether a round of learned links may begin: what the worker sees of its index and of
 * the server, to the healing policy (policies/healing.lua), which has no clock of its own.
 *
 * The policy is asked at every turn on which a round is possible at all: links are switched on, the
 * index has room for them, and at least one query waits. What remains here are no decisions: a
 * round that was cut short is taken back whatever the policy says, and the sizes that it gives stay
 * within those of host.h.
 *
 * The load is that of all indexes that learn in this database, and as the worker sees it: searches
 * as they come out of the ring, over the share of them that is recorded.
 */
#include "learning/linking.h"

#include <math.h>

#include "pgtime.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

/* Between two rounds at least, so that one that finds the index locked is not tried without end. */
#define RUV_LEAST_SPREAD_MS 100

static bool
possible(const RuvIndexState *state)
{
    return ruv_links_wanted(state) && state->linking.queries != NIL;
}

/* Samples that may judge links. */
static int
count_held_out(const RuvIndexState *state)
{
    int count = 0;
    ListCell *cell;

    foreach (cell, state->samples)
        count += ruv_held_out_judges(lfirst(cell));
    return count;
}

/* Hour and weekday where the server is (TimeZone, as the worker has it). */
static void
fill_time(TimestampTz now, rv_healing_input *in)
{
    struct pg_tm local;
    fsec_t fraction;
    int zone;
    int day;

    in->hour = 0;
    in->weekday = 1;
    if (timestamp2tm(now, &zone, &local, &fraction, NULL, NULL) != 0)
        return;
    in->hour = local.tm_hour + local.tm_min / 60.0 + (local.tm_sec + fraction / 1e6) / 3600.0;
    day = j2day(date2j(local.tm_year, local.tm_mon, local.tm_mday));
    in->weekday = day == 0 ? 7 : day;
}

static void
fill_load(TimestampTz now, rv_healing_input *in)
{
    double recorded = ruv_trajectory_sample_rate;

    in->load = in->searches_per_second = -1;
    if (!(recorded > 0))
        return;
    in->load = rv_rate_read(&ruv_worker.search_seconds, now) / recorded;
    in->searches_per_second = rv_rate_read(&ruv_worker.searches, now) / recorded;
}

static double
seconds_since(TimestampTz then, TimestampTz now)
{
    return then == 0 ? -1 : Max((double)(now - then) / USECS_PER_SEC, 0);
}

static void
fill_situation(const RuvIndexState *state, TimestampTz now, bool asked, rv_healing_input *in)
{
    const RuvLinking *linking = &state->linking;

    fill_time(now, in);
    fill_load(now, in);
    in->idle_s = seconds_since(state->last_drained, now);
    in->asked = asked ? 1 : 0;
    in->waiting = list_length(linking->queries);
    in->used = (double)linking->used;
    in->held_out = count_held_out(state);
    in->min_samples = state->min_samples;
    in->since_round_s = seconds_since(linking->ended, now);
    in->round_s = linking->seconds > 0 ? linking->seconds : -1;
    in->gain = linking->judged ? linking->gain : NAN;
    in->rows = state->rows > 0 ? state->rows : -1;
    in->links = state->rows > 0 ? (double)linking->links / state->rows : -1;
    in->room = state->identity.link_room;
    in->budget = ruv_learning_budget;
}

void
ruv_links_decide(RuvIndexState *state, TimestampTz now, bool asked)
{
    RuvLinking *linking = &state->linking;
    rv_healing_input in;

    linking->due = false;
    if (!asked && linking->ended != 0 &&
        !TimestampDifferenceExceeds(linking->ended, now, RUV_LEAST_SPREAD_MS))
        return;
    if (linking->unfinished) {
        linking->due = true;
    } else if (possible(state)) {
        fill_situation(state, now, asked, &in);
        (void)ruv_policy_heal(&state->slot->policies, &state->shadow, &in, &linking->answer);
        linking->due = linking->answer.run;
    }
}

void
ruv_links_ask_size(RuvIndexState *state)
{
    rv_healing_input in;

    if (!ruv_links_wanted(state))
        return;
    fill_situation(state, GetCurrentTimestamp(), false, &in);
    (void)ruv_policy_heal(&state->slot->policies, NULL, &in, &state->linking.answer);
}

bool
ruv_links_pending(const RuvIndexState *state)
{
    rv_healing_input in;
    rv_healing answer;

    if (state->linking.unfinished)
        return true;
    if (!possible(state))
        return false;
    fill_situation(state, GetCurrentTimestamp(), true, &in);
    (void)ruv_policy_heal(&state->slot->policies, NULL, &in, &answer);
    return answer.run;
}
