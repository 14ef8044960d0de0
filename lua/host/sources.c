/*
 * sources.c - what was loaded as one block of bytes, and back.
 *
 * Processes that must serve the same policies cannot each read a directory, which somebody may be
 * editing. One of them loads it and hands its block to the others, who load the very texts that it
 * accepted. The kind of a policy is not in the block: it follows from id and text.
 *
 *   Head | for each policy, in the order of loading: Entry, file name, text
 *
 * Byte order and sizes are those of the machine: a block never leaves it. Nothing in it is aligned,
 * so that its parts are copied out before they are looked at, and it is checked as a whole first.
 */
#include <stdio.h>
#include <string.h>

#include "host/internal.h"

#define BLOCK_MAGIC UINT32_C(0x52565053) /* "RVPS" */
#define BLOCK_FORMAT 1

typedef struct Head {
    uint32_t magic;
    uint32_t format;
    uint64_t size;     /* of the block */
    uint64_t checksum; /* of what follows the head */
    uint32_t count;
    uint32_t unused; /* 0 */
} Head;

typedef struct Entry {
    char id[RV_POLICY_MAX_ID + 1];
    uint32_t file_size; /* without a terminator */
    uint32_t source_size;
} Entry;

/* FNV-1a, 64 bits (Fowler, Noll and Vo). */
static uint64_t
checksum_of(const char *bytes, size_t size)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(1099511628211);
    return hash;
}

/* ---- writing ------------------------------------------------------------------------------- */

size_t
rv_host_export_limit(void)
{
    return sizeof(Head) +
           (size_t)RV_POLICY_MAX_FILES * (sizeof(Entry) + RV_POLICY_MAX_PATH + RV_POLICY_MAX_BYTES);
}

static size_t
exported_size(const rv_serving *serving)
{
    size_t size = sizeof(Head);

    for (uint32_t i = 0; serving != NULL && i < serving->loaded_count; i++)
        size += sizeof(Entry) + strlen(serving->loaded[i].file) + serving->loaded[i].source_size;
    return size;
}

static char *
put(char *at, const void *bytes, size_t size)
{
    memcpy(at, bytes, size);
    return at + size;
}

static char *
put_policy(char *at, const rv_policy *policy)
{
    Entry entry;

    memset(&entry, 0, sizeof entry);
    memcpy(entry.id, policy->id, sizeof entry.id);
    entry.file_size = (uint32_t)strlen(policy->file);
    entry.source_size = (uint32_t)policy->source_size;
    at = put(at, &entry, sizeof entry);
    at = put(at, policy->file, entry.file_size);
    return put(at, policy->source, policy->source_size);
}

rv_status
rv_host_export(const rv_host *host, void *block, size_t capacity, size_t *size, rv_error *err)
{
    const rv_serving *serving = host->serving;
    char *first, *at;
    Head head;

    *size = exported_size(serving);
    if (block == NULL || *size > capacity) {
        if (err != NULL) {
            err->status = RV_ERR_FULL;
            snprintf(err->message, sizeof err->message,
                     "the loaded policies take %zu bytes, there is room for %zu", *size, capacity);
        }
        return RV_ERR_FULL;
    }
    first = at = (char *)block + sizeof head;
    for (uint32_t i = 0; serving != NULL && i < serving->loaded_count; i++)
        at = put_policy(at, &serving->loaded[i]);
    memset(&head, 0, sizeof head);
    head.magic = BLOCK_MAGIC;
    head.format = BLOCK_FORMAT;
    head.size = *size;
    head.checksum = checksum_of(first, *size - sizeof head);
    head.count = serving == NULL ? 0 : serving->loaded_count;
    memcpy(block, &head, sizeof head);
    return RV_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool
refuse(rv_host_failure *failure, rv_host_cause cause, const char *file, const char *reason)
{
    rv_failure_set(failure, cause, RV_POLICY_VERDICT, file, 0, reason);
    return false;
}

static bool
damaged(rv_host_failure *failure, const char *what)
{
    char reason[128];

    snprintf(reason, sizeof reason, "the block of loaded policies is damaged: %s", what);
    return refuse(failure, RV_HOST_IO, NULL, reason);
}

static bool
read_head(const char *block, size_t size, Head *head, rv_host_failure *failure)
{
    if (size < sizeof *head)
        return damaged(failure, "it has no head");
    memcpy(head, block, sizeof *head);
    if (head->magic != BLOCK_MAGIC || head->format != BLOCK_FORMAT || head->unused != 0)
        return damaged(failure, "its head is none");
    if (head->size != size)
        return damaged(failure, "its size is another");
    if (head->count > RV_POLICY_MAX_FILES)
        return damaged(failure, "it has too many policies");
    if (head->checksum != checksum_of(block + sizeof *head, size - sizeof *head))
        return damaged(failure, "its checksum is another");
    return true;
}

/* A copy of size bytes and a terminator. */
static char *
copy_text(const rv_host *host, const char *bytes, size_t size)
{
    char *text = host->allocator.alloc(host->allocator.ctx, size + 1);

    if (text == NULL)
        return NULL;
    memcpy(text, bytes, size);
    text[size] = '\0';
    return text;
}

static bool
check_entry(const Entry *entry, const char *file, size_t left, rv_host_failure *failure)
{
    if (memchr(entry->id, '\0', sizeof entry->id) == NULL ||
        !rv_policy_valid_id(entry->id, strlen(entry->id)))
        return damaged(failure, "an id is none");
    if (entry->file_size == 0 || entry->file_size > RV_POLICY_MAX_PATH ||
        entry->source_size > RV_POLICY_MAX_BYTES ||
        left < (size_t)entry->file_size + entry->source_size)
        return damaged(failure, "a policy reaches beyond its end");
    if (memchr(file, '\0', entry->file_size) != NULL)
        return damaged(failure, "a file name is none");
    return true;
}

/* Takes the policy at *at, of *left bytes, and steps over it. */
static bool
take_policy(const rv_host *host, rv_serving *serving, const char **at, size_t *left,
            rv_host_failure *failure)
{
    rv_policy *policy = &serving->loaded[serving->loaded_count];
    Entry entry;

    if (*left < sizeof entry)
        return damaged(failure, "a policy is missing");
    memcpy(&entry, *at, sizeof entry);
    *at += sizeof entry;
    *left -= sizeof entry;
    if (!check_entry(&entry, *at, *left, failure))
        return false;
    memcpy(policy->id, entry.id, strlen(entry.id) + 1);
    policy->kind = rv_policy_kind_by_id(policy->id);
    if (serving->loaded_count > 0 && rv_policy_compare(policy - 1, policy) >= 0)
        return damaged(failure, "its policies are not in order");
    serving->loaded_count++;
    policy->file = copy_text(host, *at, entry.file_size);
    policy->source = copy_text(host, *at + entry.file_size, entry.source_size);
    policy->source_size = entry.source_size;
    if (policy->file == NULL || policy->source == NULL)
        return refuse(failure, RV_HOST_MEMORY, policy->file, "no memory to keep the policy");
    *at += (size_t)entry.file_size + entry.source_size;
    *left -= (size_t)entry.file_size + entry.source_size;
    return true;
}

bool
rv_sources_read(const rv_host *host, const void *block, size_t size, rv_serving *serving,
                rv_host_failure *failure)
{
    const char *at = block;
    size_t left = size;
    Head head;

    if (!read_head(at, size, &head, failure))
        return false;
    at += sizeof head;
    left -= sizeof head;
    for (uint32_t i = 0; i < head.count; i++)
        if (!take_policy(host, serving, &at, &left, failure))
            return false;
    return left == 0 || damaged(failure, "something follows its policies");
}
