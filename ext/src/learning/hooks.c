/*
 * hooks.c - keeps workers away from commands that need a database without connections.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME / SET TABLESPACE and CREATE DATABASE ... TEMPLATE fail
 * while anybody is connected to the database. A learning worker is nobody whom a user could ask to
 * leave, so it is held for the duration of the command: told to end, waited for, and started again
 * afterwards (unless the database is gone). Only somebody who owns the database can have it held.
 *
 * Locks: see shmem.c.
 */
#include "learning/learning_internal.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/wait_event.h"

/* DROP DATABASE itself gives up after five seconds. */
#define RUV_HOLD_WAIT_MS 5000

static ProcessUtility_hook_type previous_utility_hook = NULL;

static const char *
template_of(CreatedbStmt *statement)
{
    ListCell *cell;

    foreach (cell, statement->options) {
        DefElem *option = lfirst_node(DefElem, cell);

        if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
            return defGetString(option);
    }
    return "template1";
}

/* The database that must be without connections for this statement; InvalidOid: none. */
static Oid
quiet_database(Node *statement, bool *dropped)
{
    const char *name = NULL;

    *dropped = false;
    switch (nodeTag(statement)) {
        case T_DropdbStmt:
            name = ((DropdbStmt *)statement)->dbname;
            *dropped = true;
            break;
        case T_RenameStmt:
            if (((RenameStmt *)statement)->renameType == OBJECT_DATABASE)
                name = ((RenameStmt *)statement)->subname;
            break;
        case T_AlterDatabaseStmt:
            name = ((AlterDatabaseStmt *)statement)->dbname;
            break;
        case T_CreatedbStmt:
            name = template_of((CreatedbStmt *)statement);
            break;
        default:
            break;
    }
    return name != NULL ? get_database_oid(name, true) : InvalidOid;
}

/* Sends the worker away. Returns the number of the database's slot, -1 when there is none. */
static int
hold_database(Oid database)
{
    int number;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    number = ruv_database_find(database);
    if (number >= 0) {
        ruv_shared->databases[number].held = true;
        if (ruv_shared->databases[number].worker_pid != 0)
            kill(ruv_shared->databases[number].worker_pid, SIGTERM);
    }
    LWLockRelease(ruv_shared->lock);
    return number;
}

static bool
worker_gone(int number)
{
    bool gone;

    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    gone = ruv_shared->databases[number].worker_pid == 0;
    LWLockRelease(ruv_shared->lock);
    return gone;
}

static void
wait_for_worker(int number)
{
    int waited = 0;

    ConditionVariablePrepareToSleep(&ruv_shared->worker_changed);
    while (!worker_gone(number) && waited < RUV_HOLD_WAIT_MS) {
        (void)ConditionVariableTimedSleep(&ruv_shared->worker_changed, 100, PG_WAIT_EXTENSION);
        waited += 100;
    }
    ConditionVariableCancelSleep();
}

static void
release_database(int number, bool forget)
{
    Oid database;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    database = ruv_shared->databases[number].database;
    ruv_shared->databases[number].held = false;
    if (forget) {
        ruv_shared->databases[number].wanted = false;
        ruv_shared->databases[number].database = InvalidOid;
    }
    ruv_launcher_wake_locked();
    LWLockRelease(ruv_shared->lock);
    if (forget)
        ruv_registry_forget(database, NULL, NULL);
}

static void
release_on_error(int code, Datum number)
{
    release_database(DatumGetInt32(number), false);
}

static void
run_utility(RUV_UTILITY_PARAMETERS)
{
    if (previous_utility_hook)
        previous_utility_hook(RUV_UTILITY_ARGUMENTS);
    else
        standard_ProcessUtility(RUV_UTILITY_ARGUMENTS);
}

static void
run_held(int number, RUV_UTILITY_PARAMETERS)
{
    PG_ENSURE_ERROR_CLEANUP(release_on_error, Int32GetDatum(number));
    {
        wait_for_worker(number);
        run_utility(RUV_UTILITY_ARGUMENTS);
    }
    PG_END_ENSURE_ERROR_CLEANUP(release_on_error, Int32GetDatum(number));
}

static void
process_utility(RUV_UTILITY_PARAMETERS)
{
    bool dropped = false;
    Oid database = InvalidOid;
    int number = -1;

    if (ruv_shared != NULL && IsTransactionState())
        database = quiet_database(statement->utilityStmt, &dropped);
    if (OidIsValid(database) && ruv_owns_database(database))
        number = hold_database(database);
    if (number < 0) {
        run_utility(RUV_UTILITY_ARGUMENTS);
        return;
    }
    run_held(number, RUV_UTILITY_ARGUMENTS);
    release_database(number, dropped);
}

void
ruv_hooks_init(void)
{
    previous_utility_hook = ProcessUtility_hook;
    ProcessUtility_hook = process_utility;
}
