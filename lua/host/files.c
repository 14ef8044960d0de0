/*
 * files.c - which policy files a directory holds, and their text.
 *
 * verdict.lua, distillation.lua ... serve by default. Any other NAME.lua is an alternative that a
 * table may use, or that runs in the shadow; its field 'kind' says what it decides. Every file
 * takes part in a load, so a broken alternative is found now and not when a table begins to use it.
 * Left out are hidden files and specs (NAME_spec.lua), which authors keep beside their policy.
 * Files are taken in the order of their names, so that a load does not depend on the file system.
 */
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/internal.h"

static bool
refuse(rv_host_failure *failure, rv_host_cause cause, const rv_policy *policy, const char *reason)
{
    rv_policy_kind kind = policy->kind < RV_POLICY_KINDS ? policy->kind : RV_POLICY_VERDICT;

    rv_failure_set(failure, cause, kind, policy->file, 0, reason);
    return false;
}

/* ---- one file ------------------------------------------------------------------------------ */

/* Reads an open file of at most RV_POLICY_MAX_BYTES into policy->source. */
static bool
read_open(const rv_host *host, FILE *stream, rv_policy *policy, rv_host_failure *failure)
{
    char reason[128];
    char *text = host->allocator.alloc(host->allocator.ctx, RV_POLICY_MAX_BYTES + 1);
    size_t size;

    if (text == NULL)
        return refuse(failure, RV_HOST_MEMORY, policy, "no memory to read the file");
    size = fread(text, 1, RV_POLICY_MAX_BYTES + 1, stream);
    if (ferror(stream) || size > RV_POLICY_MAX_BYTES) {
        if (size > RV_POLICY_MAX_BYTES)
            snprintf(reason, sizeof reason, "the file is larger than %d bytes",
                     RV_POLICY_MAX_BYTES);
        else
            snprintf(reason, sizeof reason, "cannot read: %s", strerror(errno));
        host->allocator.free(host->allocator.ctx, text);
        return refuse(failure, RV_HOST_IO, policy, reason);
    }
    policy->source = host->allocator.alloc(host->allocator.ctx, size + 1);
    if (policy->source != NULL)
        memcpy(policy->source, text, size);
    policy->source_size = size;
    host->allocator.free(host->allocator.ctx, text);
    if (policy->source == NULL)
        return refuse(failure, RV_HOST_MEMORY, policy, "no memory to keep the file");
    return true;
}

/* Reads directory/id.lua into policy, whose id is set. */
static bool
read_policy(const rv_host *host, const char *directory, rv_policy *policy, rv_host_failure *failure)
{
    size_t size = strlen(directory) + strlen(policy->id) + sizeof "/.lua";
    char reason[128];
    struct stat status;
    FILE *stream;
    bool read;

    if (size > RV_POLICY_MAX_PATH)
        return refuse(failure, RV_HOST_IO, policy, "the name of the directory is too long");
    policy->file = host->allocator.alloc(host->allocator.ctx, size);
    if (policy->file == NULL)
        return refuse(failure, RV_HOST_MEMORY, policy, "no memory for the file's name");
    snprintf(policy->file, size, "%s/%s.lua", directory, policy->id);
    stream = fopen(policy->file, "rb");
    if (stream == NULL || fstat(fileno(stream), &status) != 0 || !S_ISREG(status.st_mode)) {
        snprintf(reason, sizeof reason, "cannot read: %s",
                 stream == NULL ? strerror(errno) : "not a regular file");
        if (stream != NULL)
            fclose(stream);
        return refuse(failure, RV_HOST_IO, policy, reason);
    }
    read = read_open(host, stream, policy, failure);
    fclose(stream);
    return read;
}

/* ---- the directory ------------------------------------------------------------------------- */

static bool
ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);

    return length >= tail && strcmp(name + length - tail, end) == 0;
}

static bool
is_policy_file(const char *name)
{
    return name[0] != '.' && ends_with(name, ".lua") && !ends_with(name, "_spec.lua");
}

bool
rv_policy_valid_id(const char *id, size_t length)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

    return length > 0 && length <= RV_POLICY_MAX_ID && strspn(id, letters) >= length;
}

rv_policy_kind
rv_policy_kind_by_id(const char *id)
{
    int kind = 0;

    while (kind < RV_POLICY_KINDS && strcmp(id, rv_policy_kind_name((rv_policy_kind)kind)) != 0)
        kind++;
    return (rv_policy_kind)kind;
}

/* Adds an entry of the directory to the list, its text unread. */
static bool
add_file(rv_serving *serving, const char *directory, const char *name, rv_host_failure *failure)
{
    size_t length = strlen(name) - strlen(".lua");
    char reason[400];
    rv_policy *policy;

    if (!rv_policy_valid_id(name, length)) {
        snprintf(reason, sizeof reason,
                 "the file name \"%.200s\" cannot name a policy: letters, digits, '_' and '-', at "
                 "most %d before \".lua\"",
                 name, RV_POLICY_MAX_ID);
        rv_failure_set(failure, RV_HOST_IO, RV_POLICY_VERDICT, directory, 0, reason);
        return false;
    }
    if (serving->loaded_count == RV_POLICY_MAX_FILES) {
        snprintf(reason, sizeof reason, "more than %d policy files", RV_POLICY_MAX_FILES);
        rv_failure_set(failure, RV_HOST_IO, RV_POLICY_VERDICT, directory, 0, reason);
        return false;
    }
    policy = &serving->loaded[serving->loaded_count++];
    memcpy(policy->id, name, length);
    policy->kind = rv_policy_kind_by_id(policy->id);
    return true;
}

static bool
list_files(rv_serving *serving, const char *directory, rv_host_failure *failure)
{
    char reason[128];
    DIR *stream = opendir(directory);
    struct dirent *entry;
    bool listed = true;

    if (stream == NULL) {
        snprintf(reason, sizeof reason, "cannot read the policy directory: %s",
                 errno == ENOTDIR ? "not a directory" : strerror(errno));
        rv_failure_set(failure, RV_HOST_IO, RV_POLICY_VERDICT, directory, 0, reason);
        return false;
    }
    while (listed && (entry = readdir(stream)) != NULL)
        if (is_policy_file(entry->d_name))
            listed = add_file(serving, directory, entry->d_name, failure);
    closedir(stream);
    return listed;
}

/* The default files first, by kind, then the alternatives by name: what a table may come to use
 * never changes the state in which the default ones are loaded. */
int
rv_policy_compare(const void *a, const void *b)
{
    const rv_policy *first = a, *second = b;

    if (first->kind != second->kind)
        return first->kind < second->kind ? -1 : 1;
    return strcmp(first->id, second->id);
}

bool
rv_files_read(const rv_host *host, const char *directory, rv_serving *serving,
              rv_host_failure *failure)
{
    if (!list_files(serving, directory, failure))
        return false;
    qsort(serving->loaded, serving->loaded_count, sizeof *serving->loaded, rv_policy_compare);
    for (uint32_t i = 0; i < serving->loaded_count; i++)
        if (!read_policy(host, directory, &serving->loaded[i], failure))
            return false;
    return true;
}

void
rv_files_free(const rv_host *host, rv_serving *serving)
{
    const rv_allocator *allocator = &host->allocator;

    for (uint32_t i = 0; i < serving->loaded_count; i++) {
        if (serving->loaded[i].source != NULL)
            allocator->free(allocator->ctx, serving->loaded[i].source);
        if (serving->loaded[i].file != NULL)
            allocator->free(allocator->ctx, serving->loaded[i].file);
    }
}
