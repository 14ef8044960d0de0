/*
 * pause.h - named points at which a test can hold a backend.
 *
 * RUV_PAUSE("name") marks a place between two steps that another session may interleave with. It is
 * one branch on a flag that is false unless a superuser lists names in ruvector.debug_pause_points.
 * A backend that reaches a listed point waits until it can take the advisory lock of that name, in
 * share mode, and gives it back at once:
 *
 *   test       SELECT pg_advisory_lock(1381320283, hashtext('name'))    -- database-wide, "RUV["
 *   backend    waits; pg_locks shows its pid with granted = false and that classid and objid
 *   test       does the racing thing, then pg_advisory_unlock(1381320283, hashtext('name'))
 *
 * The wait is an ordinary lock wait: cancel, statement_timeout, lock_timeout and the deadlock
 * detector end it with an error.
 *
 * Locks: a point may be inside any heavyweight lock, and never inside a content lock (LWLock),
 * which nobody could be cancelled out of: with one held, a listed point is an error (elog), so that
 * every test that uses a misplaced point fails.
 */
#ifndef RUV_PAUSE_H
#define RUV_PAUSE_H

#include "postgres.h"

#define RUV_PAUSE_CLASS 1381320283 /* first key of the advisory locks */

extern char *ruv_pause_names; /* ruvector.debug_pause_points as listed; NULL or "" when off */
extern bool ruv_pause_active;

/* Waits if name is listed. */
extern void ruv_pause_at(const char *name);
/* Defines the setting; called once, by guc.c's ruv_define_settings. */
extern void ruv_define_pause_setting(void);

#define RUV_PAUSE(name)                                                                            \
    do {                                                                                           \
        if (unlikely(ruv_pause_active))                                                            \
            ruv_pause_at(name);                                                                    \
    } while (0)

#endif
