/*
 * guc.c - every setting of the extension, grouped: search, learning, shared memory, policies.
 */
#include "ruvector.h"

#include <limits.h>
#include <stdlib.h>

#include "effort.h"
#include "pause.h"

#include "utils/guc.h"

int ruv_ef_search;
int ruv_probes;
bool ruv_adaptive_search;
double ruv_target_recall;
int ruv_iterative_scan;
int ruv_max_scan_tuples;
bool ruv_index_selection;
bool ruv_learning_enabled;
double ruv_learning_rate;
int ruv_min_samples;
int ruv_trajectory_buffer_size;
double ruv_trajectory_sample_rate;
bool ruv_trajectory_anonymize;
int ruv_feedback_rate;
int ruv_feedback_max_ids;
double ruv_feedback_share;
bool ruv_learned_links;
int ruv_consolidation_interval;
int ruv_learning_interval;
double ruv_learning_budget;
double ruv_exact_pass_limit;
double ruv_audit_pass_limit;
int ruv_bank_memory;
int ruv_max_learning_databases;
char *ruv_policy_directory;
bool ruv_policy_directory_is_own = false;
int ruv_policy_fuel;
int ruv_policy_memory;

static const struct config_enum_entry iterative_scan_options[] = {
    {"off", RUV_ITERATIVE_OFF, false},
    {"strict_order", RUV_ITERATIVE_STRICT, false},
    {"relaxed_order", RUV_ITERATIVE_RELAXED, false},
    {NULL, 0, false}};

static void
define_search_settings(void)
{
    DefineCustomIntVariable("ruvector.ef_search", "Size of the candidate list of a static search.",
                            "Valid range is 1..10000.", &ruv_ef_search, 40, 1, RUV_MAX_EF_SEARCH,
                            PGC_USERSET, 0, ruv_check_int_source, ruv_assign_ef_search, NULL);
    DefineCustomIntVariable("ruvector.probes", "Number of lists a static ruivfflat search visits.",
                            "Valid range is 1..32768.", &ruv_probes, 1, 1, RUV_MAX_PROBES,
                            PGC_USERSET, 0, ruv_check_int_source, ruv_assign_probes, NULL);
    DefineCustomBoolVariable("ruvector.adaptive_search",
                             "Search with what was learned instead of the static effort.", NULL,
                             &ruv_adaptive_search, true, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomRealVariable("ruvector.target_recall", "The recall that searches should reach.",
                             "Valid range is 0.5..1.0.", &ruv_target_recall, 0.95,
                             RUV_LEAST_TARGET_RECALL, 1.0, PGC_USERSET, 0, ruv_check_real_source,
                             ruv_assign_target_recall, NULL);
    DefineCustomBoolVariable("ruvector.index_selection",
                             "Choose between a ruhnsw and a ruivfflat index by learned costs.",
                             NULL, &ruv_index_selection, true, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomEnumVariable("ruvector.iterative_scan",
                             "Whether a scan goes on when its first results are used up.", NULL,
                             &ruv_iterative_scan, RUV_ITERATIVE_RELAXED, iterative_scan_options,
                             PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("ruvector.max_scan_tuples",
                            "Nodes after which a scan that goes on stops looking for more.",
                            "Valid range is 1..2147483647.", &ruv_max_scan_tuples, 20000, 1,
                            INT_MAX, PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_learning_settings(void)
{
    DefineCustomBoolVariable("ruvector.learning_enabled", "Capture searches and learn from them.",
                             "The cluster-wide switch; tables ask with ruvector_enable_learning().",
                             &ruv_learning_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
    DefineCustomRealVariable(
        "ruvector.learning_rate", "Least weight of new evidence when patterns are merged.",
        "Default of ruvector_enable_learning(). Valid range is 0.0001..1.", &ruv_learning_rate,
        0.01, 0.0001, 1.0, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("ruvector.min_samples",
                            "Judged searches before patterns are distilled.",
                            "Default of ruvector_enable_learning(). Valid range is 10..1000000.",
                            &ruv_min_samples, 100, 10, 1000000, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomRealVariable("ruvector.trajectory_sample_rate",
                             "Share of searches that are recorded.", "Valid range is 0..1.",
                             &ruv_trajectory_sample_rate, 1.0, 0.0, 1.0, PGC_USERSET, 0, NULL, NULL,
                             NULL);
    DefineCustomBoolVariable("ruvector.trajectory_anonymize",
                             "Store a keyed hash of the query vector instead of the vector.", NULL,
                             &ruv_trajectory_anonymize, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
    DefineCustomBoolVariable("ruvector.learned_links",
                             "Add links to graphs where recorded searches need them.",
                             "Links that are there stay; ruvector_heal_index(reset => true) takes "
                             "them away.",
                             &ruv_learned_links, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("ruvector.pattern_consolidation_interval",
                            "Time between consolidations of the pattern bank.", NULL,
                            &ruv_consolidation_interval, 3600, 10, INT_MAX / 1000, PGC_SIGHUP,
                            GUC_UNIT_S, NULL, NULL, NULL);
    DefineCustomIntVariable("ruvector.learning_interval", "Pause between two rounds of the worker.",
                            NULL, &ruv_learning_interval, 1000, 10, 3600 * 1000, PGC_SIGHUP,
                            GUC_UNIT_MS, NULL, NULL, NULL);
    DefineCustomRealVariable("ruvector.learning_budget",
                             "Share of one processor core that learning may use.",
                             "Valid range is 0.001..1.", &ruv_learning_budget, 0.1, 0.001, 1.0,
                             PGC_SIGHUP, 0, NULL, NULL, NULL);
    DefineCustomRealVariable("ruvector.exact_pass_limit",
                             "Longest pass over a table that learning takes for a few searches.",
                             "Where it would take longer, searches are judged by a search of large "
                             "effort. Valid range is 0..86400.",
                             &ruv_exact_pass_limit, 4.0, 0.0, 86400.0, PGC_SIGHUP, GUC_UNIT_S, NULL,
                             NULL, NULL);
    DefineCustomRealVariable(
        "ruvector.audit_pass_limit", "Longest pass over a table that audits those judgements.",
        "Valid range is 0..86400; 0 switches audits off.", &ruv_audit_pass_limit, 300.0, 0.0,
        86400.0, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

static void
define_feedback_settings(void)
{
    DefineCustomIntVariable("ruvector.feedback_rate",
                            "Searches that one role may judge within a minute.",
                            "Valid range is 0..1000000; 0 accepts no feedback.", &ruv_feedback_rate,
                            600, 0, 1000000, PGC_SIGHUP, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("ruvector.feedback_max_ids",
                            "Ids of relevant rows, and of irrelevant ones, in one feedback.",
                            "Valid range is 1..100000.", &ruv_feedback_max_ids, 1000, 1, 100000,
                            PGC_SIGHUP, 0, NULL, NULL, NULL);
    DefineCustomRealVariable("ruvector.feedback_share",
                             "Weight that the feedback of one role may have in a calibration.",
                             "As a share of the searches that were sampled without regard to "
                             "feedback. Valid range is 0..1; with 0 feedback shows in verdicts "
                             "only.",
                             &ruv_feedback_share, 0.1, 0.0, 1.0, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_memory_settings(void)
{
    DefineCustomIntVariable(
        "ruvector.trajectory_buffer_size", "Cells of the trajectory ring, of 1 kB each.",
        "A search takes one cell up to about 160 dimensions and one more for "
        "every 256 further dimensions. Valid range is 16..1048576.",
        &ruv_trajectory_buffer_size, 10000, 16, 1048576, PGC_POSTMASTER, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("ruvector.max_learning_databases",
                            "Databases of the cluster that may learn; each has its own ring.",
                            "Valid range is 1..64.", &ruv_max_learning_databases, 4, 1, 64,
                            PGC_POSTMASTER, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("ruvector.bank_memory", "Shared memory for the published banks.", NULL,
                            &ruv_bank_memory, 32 * 1024, 1024, 16 * 1024 * 1024, PGC_POSTMASTER,
                            GUC_UNIT_KB, NULL, NULL, NULL);
}

/* A directory that was set for a session, a role or a database is not the cluster's. */
static bool
check_policy_directory(char **value, void **extra, GucSource source)
{
    bool *own = ruv_guc_malloc(sizeof(*own));

    if (own == NULL)
        return false;
    *own = source > PGC_S_ARGV;
    *extra = own;
    return true;
}

static void
assign_policy_directory(const char *value, void *extra)
{
    ruv_policy_directory_is_own = *(bool *)extra;
}

static void
define_policy_settings(void)
{
    DefineCustomStringVariable("ruvector.policy_directory",
                               "Directory of the policy files; empty means the installed ones.",
                               NULL, &ruv_policy_directory, "", PGC_SUSET, GUC_SUPERUSER_ONLY,
                               check_policy_directory, assign_policy_directory, NULL);
    DefineCustomIntVariable("ruvector.policy_fuel", "Instructions that one policy call may use.",
                            "Distillation may use 100 times as many.", &ruv_policy_fuel, 1000000,
                            1000, INT_MAX, PGC_SUSET, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("ruvector.policy_memory", "Memory that the policies may use.", NULL,
                            &ruv_policy_memory, 32 * 1024, 1024, 1024 * 1024, PGC_SUSET,
                            GUC_UNIT_KB, NULL, NULL, NULL);
}

void
ruv_define_settings(void)
{
    define_search_settings();
    define_learning_settings();
    define_feedback_settings();
    /* Restart-only settings can be defined by the postmaster only; without preloading nothing uses
     * them. */
    if (ruv_preloaded)
        define_memory_settings();
    define_policy_settings();
    ruv_define_pause_setting();
    MarkGUCPrefixReserved("ruvector");
}
