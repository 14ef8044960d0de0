/*
 * contract.c - the versions of what a policy of each kind gets and returns.
 *
 * A policy says with its field 'contract' for which version it was written; one that does not say
 * was written for version 1. Fields may be added to what a policy gets without a new version. A
 * new version begins where a policy that was right before would now be wrong: a field that is gone
 * or means something else, a result that must have more. Then a policy for another version is
 * refused, and told what changed, rather than misread. lua/README.md has the present contracts.
 */
#include "host/internal.h"

#define RV_CONTRACT_MAX 8

/* changes[kind][i]: what version i + 2 changed; the last one is the present version. */
static const char *const changes[RV_POLICY_KINDS][RV_CONTRACT_MAX] = {{NULL}};

int
rv_policy_contract(rv_policy_kind kind)
{
    int version = 1;

    while (version <= RV_CONTRACT_MAX && changes[kind][version - 1] != NULL)
        version++;
    return version;
}

const char *
rv_policy_contract_change(rv_policy_kind kind, int version)
{
    if (version < 2 || version > RV_CONTRACT_MAX + 1)
        return NULL;
    return changes[kind][version - 2];
}
