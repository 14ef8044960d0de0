/*
 * as_owner.c - see as_owner.h.
 */
#include "as_owner.h"

#include "miscadmin.h"
#include "utils/guc.h"

void
ruv_become_owner(Relation table, RuvFormerUser *former)
{
    GetUserIdAndSecContext(&former->user, &former->security);
    SetUserIdAndSecContext(table->rd_rel->relowner,
                           former->security | SECURITY_RESTRICTED_OPERATION);
    former->settings_level = NewGUCNestLevel();
}

void
ruv_resume_user(const RuvFormerUser *former)
{
    AtEOXact_GUC(false, former->settings_level);
    SetUserIdAndSecContext(former->user, former->security);
}
