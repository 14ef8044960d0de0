/*
 * json_write.c - a bank as JSON, written straight into memory of the caller's allocator.
 */
#include "json.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define FIELD(name, kind)                                                                          \
    {                                                                                              \
#name, kind, offsetof(rv_pattern, name)                                                    \
    }

const json_field rv_json_fields[JSON_PATTERN_FIELDS] = {
    FIELD(id, JSON_UINT64),
    FIELD(scope, JSON_SCOPE),
    FIELD(index_epoch, JSON_UINT64),
    FIELD(k, JSON_UINT32),
    FIELD(samples, JSON_UINT32),
    FIELD(usage, JSON_UINT64),
    FIELD(created_us, JSON_INT64),
    FIELD(updated_us, JSON_INT64),
    FIELD(optimal_ef_search, JSON_UINT32),
    FIELD(optimal_probes, JSON_UINT32),
    FIELD(target_recall, JSON_FLOAT),
    FIELD(slack, JSON_FLOAT),
    FIELD(expected_recall, JSON_FLOAT),
    FIELD(confidence, JSON_FLOAT),
    FIELD(radius, JSON_FLOAT),
    FIELD(mean_distances, JSON_FLOAT),
    FIELD(table_slack, JSON_FLOATS),
    FIELD(table_ef, JSON_UINTS),
    FIELD(table_recall, JSON_FLOATS),
    FIELD(entry_points, JSON_POINTS),
    {"centroid", JSON_CENTROID, 0},
};

/* A growing text. After a failed allocation, failed is the size that could not be had and nothing
 * more is added. */
typedef struct builder {
    const rv_allocator *allocator;
    char *text;
    size_t size;
    size_t capacity;
    size_t failed;
} builder;

static bool
reserve(builder *b, size_t extra)
{
    size_t capacity = b->capacity > 0 ? b->capacity : 4096;
    char *text;

    if (b->failed > 0)
        return false;
    while (capacity - b->size < extra)
        capacity *= 2;
    if (capacity == b->capacity)
        return true;
    text = rv_alloc(b->allocator, capacity);
    if (text == NULL) {
        b->failed = capacity;
        return false;
    }
    if (b->size > 0)
        memcpy(text, b->text, b->size);
    rv_free(b->allocator, b->text);
    b->text = text;
    b->capacity = capacity;
    return true;
}

static void
add(builder *b, const char *text)
{
    size_t length = strlen(text);

    if (!reserve(b, length + 1))
        return;
    memcpy(b->text + b->size, text, length + 1);
    b->size += length;
}

static void
add_double(builder *b, double value, int digits)
{
    char number[40], plain[40];
    char *out = plain;

    snprintf(number, sizeof(number), "%.*g", digits, value);
    /* The locale's decimal point, which may be several bytes, becomes one '.'. */
    for (const char *in = number; *in != '\0'; in++) {
        bool part = strchr("+-0123456789e", *in) != NULL;
        if (part)
            *out++ = *in;
        else if (out == plain || out[-1] != '.')
            *out++ = '.';
    }
    *out = '\0';
    add(b, plain);
}

static void
add_uint(builder *b, uint64_t value)
{
    char number[24];
    snprintf(number, sizeof(number), "%" PRIu64, value);
    add(b, number);
}

static void
add_quoted_uint(builder *b, uint64_t value)
{
    add(b, "\"");
    add_uint(b, value);
    add(b, "\"");
}

static void
add_floats(builder *b, const float *values, uint32_t count)
{
    add(b, "[");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            add(b, ",");
        add_double(b, values[i], 9);
    }
    add(b, "]");
}

static void
add_field(builder *b, const json_field *field, const rv_pattern *pattern)
{
    const void *value = (const char *)pattern + field->offset;
    char number[24];

    switch (field->kind) {
        case JSON_UINT64:
            add_quoted_uint(b, *(const uint64_t *)value);
            break;
        case JSON_INT64:
            snprintf(number, sizeof(number), "\"%" PRId64 "\"", *(const int64_t *)value);
            add(b, number);
            break;
        case JSON_SCOPE:
            add(b, pattern->scope == RV_PATTERN_INDEX ? "\"index\"" : "\"region\"");
            break;
        case JSON_UINT32:
            add_uint(b, *(const uint32_t *)value);
            break;
        case JSON_FLOAT:
            add_double(b, *(const float *)value, 9);
            break;
        case JSON_FLOATS:
            add_floats(b, value, RV_TARGETS);
            break;
        case JSON_UINTS:
            for (uint32_t i = 0; i < RV_TARGETS; i++) {
                add(b, i > 0 ? "," : "[");
                add_uint(b, ((const uint32_t *)value)[i]);
            }
            add(b, "]");
            break;
        case JSON_POINTS:
            add(b, "[");
            for (uint32_t i = 0; i < pattern->entry_count; i++) {
                add(b, i > 0 ? "," : "");
                add_quoted_uint(b, ((const uint64_t *)value)[i]);
            }
            add(b, "]");
            break;
        case JSON_CENTROID: /* not a field of rv_pattern: add_pattern */
            break;
    }
}

static void
add_pattern(builder *b, const rv_pattern *pattern, const float *centroid, uint32_t dim)
{
    for (int i = 0; i < JSON_CENTROID_FIELD; i++) {
        add(b, i > 0 ? ",\"" : "{\"");
        add(b, rv_json_fields[i].name);
        add(b, "\":");
        add_field(b, &rv_json_fields[i], pattern);
    }
    if (centroid != NULL) {
        add(b, ",\"centroid\":");
        add_floats(b, centroid, dim);
    }
    add(b, "}");
}

static void
add_bank(builder *b, const rv_bank *bank)
{
    add(b, "{\"format\":\"" JSON_FORMAT "\",\"version\":");
    add_uint(b, RV_BANK_JSON_VERSION);
    add(b, ",\"metric\":\"");
    add(b, rv_metric_name(bank->metric));
    add(b, "\",\"dimensions\":");
    add_uint(b, bank->dim);
    add(b, ",\"max_patterns\":");
    add_uint(b, bank->max_patterns);
    add(b, ",\"targets\":");
    for (int i = 0; i < RV_TARGETS; i++) {
        add(b, i > 0 ? "," : "[");
        add_double(b, rv_target_grid()[i], 15);
    }
    add(b, "],\"patterns\":[");
    for (uint32_t i = 0; i < rv_bank_count(bank); i++) {
        const float *centroid;
        const rv_pattern *pattern = rv_bank_get(bank, i, &centroid);

        if (b->size > RV_BANK_JSON_MAX_BYTES)
            return;
        add(b, i > 0 ? ",\n" : "\n");
        add_pattern(b, pattern, centroid, bank->dim);
    }
    add(b, "]}\n");
}

rv_status
rv_bank_to_json(const rv_bank *bank, const rv_allocator *allocator, char **text, size_t *size,
                rv_error *err)
{
    builder b = {.allocator = allocator};
    uint64_t values = (uint64_t)rv_bank_count(bank) * (bank->dim + 80);

    if (values <= RV_BANK_JSON_MAX_VALUES)
        add_bank(&b, bank);
    if (values > RV_BANK_JSON_MAX_VALUES || b.size > RV_BANK_JSON_MAX_BYTES) {
        rv_free(allocator, b.text);
        return rv_fail(err, RV_ERR_FULL,
                       "bank: as JSON, %u patterns of %u dimensions pass the limit of %d values or "
                       "%d bytes that an import reads",
                       rv_bank_count(bank), bank->dim, RV_BANK_JSON_MAX_VALUES,
                       RV_BANK_JSON_MAX_BYTES);
    }
    if (b.failed > 0) {
        rv_free(allocator, b.text);
        return rv_fail_nomem(err, b.failed);
    }
    *text = b.text;
    *size = b.size;
    return RV_OK;
}
