/*
 * bank_edit.h - an index's bank, changed by a session instead of by the worker.
 *
 * The tables are the truth. A session that changes a bank changes its rows, in its transaction:
 *
 *   lock     the bank's lock, an object lock beside the index's own, held to the end of the
 *            transaction. A round of the worker holds it too, so what is read is what the worker
 *            last stored and nothing is stored in between. The session waits for a round (a
 *            second); the worker waits for nobody: it leaves the index alone until the lock is free
 *   rows     read, changed, written
 *   commit   counts the slot's bank_revision up, before the lock is let go. The worker compares it
 *            with what it has loaded, at the start of a round and when it reads the configuration,
 *            loads the rows again and publishes them
 *
 * ROLLBACK leaves the rows and the revision as they were. A crash after the commit loses nothing:
 * the next worker loads the rows.
 */
#ifndef RUVECTOR_LEARNING_BANK_EDIT_H
#define RUVECTOR_LEARNING_BANK_EDIT_H

#include "learning/worker.h"

typedef struct RuvBankEdit {
    RuvStore store;
    RuvIndexState state; /* index, table, identity, allocator, bank; nothing else */
    char *memory_digest; /* of the remembered queries it was calibrated with; NULL: none */
} RuvBankEdit;

/* Loads the bank of an index, an empty one when nothing is learned; locked: to change it. */
extern void ruv_bank_edit_begin(RuvBankEdit *edit, Relation index, bool locked);
/* Writes the bank (it was locked) and lets the worker know when the transaction commits. */
extern void ruv_bank_edit_save(RuvBankEdit *edit);
extern void ruv_bank_edit_end(RuvBankEdit *edit);

/* The limits of the tables' columns, for a pattern that came from elsewhere; the message begins
 * with the field's name. */
extern rv_status ruv_bank_check_storable(const rv_pattern *pattern, rv_error *err);

#endif
