/*
 * as_owner.h - running what a table's owner has written as that owner.
 *
 * Index expressions and predicates call functions that the owner of the table chose. Whoever makes
 * PostgreSQL evaluate them (the learning worker, a superuser who verifies an index) must not lend
 * them its own rights, and evaluation begins earlier than it seems: already building an IndexInfo
 * folds constants. So everything between opening such a relation and closing it runs as its owner,
 * in a security-restricted operation, as in CREATE INDEX and ANALYZE.
 */
#ifndef RUVECTOR_AS_OWNER_H
#define RUVECTOR_AS_OWNER_H

#include "ruvector.h"
#include "utils/rel.h"

typedef struct RuvFormerUser {
    Oid user;
    int security;
    int settings_level;
} RuvFormerUser;

/* From here on as the owner of the table; *former is for ruv_resume_user. Settings that the owner's
 * functions change go back too. An error between the two is undone by the end of its
 * (sub)transaction. */
extern void ruv_become_owner(Relation table, RuvFormerUser *former);
extern void ruv_resume_user(const RuvFormerUser *former);

#endif
