/*
 * json_read.c - a bank from JSON, trusting nothing.
 *
 * json_scan.c has said that the text is JSON within the limits; cJSON makes a tree of it; here
 * every field is looked at: unknown, missing or repeated ones, wrong types, values out of range,
 * repeated ids, centroids of other lengths. Only a text without any fault becomes a bank. Messages
 * begin with the path of what is wrong. Values are quoted in plain ASCII, so that a message is
 * valid text in any encoding.
 */
#include "json.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#define PATH_SIZE 64
#define SHOWN_SIZE 48

/* Below it a number rounds to a finite float: FLT_MAX, printed with nine digits, is a little more
 * than FLT_MAX. */
#define FLOAT_LIMIT 0x1.ffffffp127

/* A short form of a value for a message. */
static const char *
show(const cJSON *item, char *out)
{
    size_t n = 0;

    if (cJSON_IsNumber(item)) {
        snprintf(out, SHOWN_SIZE, "%.9g", item->valuedouble);
    } else if (cJSON_IsString(item)) {
        out[n++] = '"';
        for (const char *c = item->valuestring; *c != '\0' && n < SHOWN_SIZE - 6; c++)
            out[n++] = *c >= ' ' && *c <= '~' ? *c : '?';
        snprintf(out + n, SHOWN_SIZE - n, "%s", n == SHOWN_SIZE - 6 ? "...\"" : "\"");
    } else {
        snprintf(out, SHOWN_SIZE, "%s",
                 cJSON_IsArray(item)    ? "an array"
                 : cJSON_IsObject(item) ? "an object"
                 : cJSON_IsNull(item)   ? "null"
                 : cJSON_IsTrue(item)   ? "true"
                                        : "false");
    }
    return out;
}

static rv_status
wrong(rv_error *err, rv_status status, const char *path, const cJSON *item, const char *must)
{
    char shown[SHOWN_SIZE];
    return rv_fail(err, status, "%s is %s; must be %s", path, show(item, shown), must);
}

/* A field's name as part of a path, in plain ASCII and cut to fit. */
static const char *
field_path(char *out, const char *parent, const char *name)
{
    size_t n = (size_t)snprintf(out, PATH_SIZE, "%s.", parent);

    for (; *name != '\0' && n < PATH_SIZE - 1; name++)
        out[n++] = *name >= ' ' && *name <= '~' ? *name : '?';
    out[n] = '\0';
    return out;
}

/* ---- scalars -------------------------------------------------------------------------------- */

static rv_status
read_uint64(const cJSON *item, const char *path, uint64_t *out, rv_error *err)
{
    const char *digits = cJSON_IsString(item) ? item->valuestring : "";
    uint64_t value = 0;
    bool good = *digits != '\0' && (digits[0] != '0' || digits[1] == '\0');

    for (; good && *digits != '\0'; digits++) {
        unsigned digit = (unsigned)*digits - '0';

        good = digit <= 9 &&
               (value < UINT64_MAX / 10 || (value == UINT64_MAX / 10 && digit <= UINT64_MAX % 10));
        value = value * 10 + digit;
    }
    if (!good)
        return wrong(err, RV_ERR_FORMAT, path, item,
                     "a string of digits, \"0\" to \"18446744073709551615\"");
    *out = value;
    return RV_OK;
}

static rv_status
read_int64(const cJSON *item, const char *path, int64_t *out, rv_error *err)
{
    static const char must[] = "a string of digits, maybe after a minus, of a 64-bit integer";
    bool negative = cJSON_IsString(item) && item->valuestring[0] == '-';
    uint64_t limit = (uint64_t)INT64_MAX + negative;
    cJSON digits;
    uint64_t magnitude;

    if (!cJSON_IsString(item))
        return wrong(err, RV_ERR_FORMAT, path, item, must);
    digits = *item;
    digits.valuestring += negative;
    if (read_uint64(&digits, path, &magnitude, NULL) != RV_OK || magnitude > limit)
        return wrong(err, RV_ERR_FORMAT, path, item, must);
    *out = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return RV_OK;
}

static rv_status
read_uint32(const cJSON *item, const char *path, uint32_t *out, rv_error *err)
{
    double value = cJSON_IsNumber(item) ? item->valuedouble : -1;

    if (!(value >= 0 && value <= UINT32_MAX && value == floor(value)))
        return wrong(err, RV_ERR_FORMAT, path, item, "a whole number from 0 to 4294967295");
    *out = (uint32_t)value;
    return RV_OK;
}

static rv_status
read_float(const cJSON *item, const char *path, float *out, rv_error *err)
{
    if (!cJSON_IsNumber(item))
        return wrong(err, RV_ERR_FORMAT, path, item, "a number");
    if (!(fabs(item->valuedouble) < FLOAT_LIMIT))
        return wrong(err, RV_ERR_RANGE, path, item, "a finite single-precision number");
    *out = (float)item->valuedouble;
    return RV_OK;
}

/* ---- arrays --------------------------------------------------------------------------------- */

static uint32_t
array_size(const cJSON *array)
{
    uint32_t size = 0;

    for (const cJSON *item = array->child; item != NULL; item = item->next)
        size++;
    return size;
}

/* Checks that item is an array of exactly count elements. */
static rv_status
check_array(const cJSON *item, const char *path, uint32_t count, rv_status status, rv_error *err)
{
    if (!cJSON_IsArray(item))
        return wrong(err, RV_ERR_FORMAT, path, item, "an array");
    if (array_size(item) != count)
        return rv_fail(err, status, "%s has %u elements; must have %u", path, array_size(item),
                       count);
    return RV_OK;
}

static rv_status
read_floats(const cJSON *array, const char *path, float *out, uint32_t count, rv_status size_status,
            rv_error *err)
{
    rv_status status = check_array(array, path, count, size_status, err);
    uint32_t i = 0;

    if (status != RV_OK)
        return status;
    for (const cJSON *item = array->child; status == RV_OK && item != NULL; item = item->next) {
        char element[PATH_SIZE + 16];

        if (cJSON_IsNumber(item) && fabs(item->valuedouble) < FLOAT_LIMIT) {
            out[i++] = (float)item->valuedouble;
            continue;
        }
        snprintf(element, sizeof(element), "%s[%u]", path, i);
        status = read_float(item, element, &out[i++], err);
    }
    return status;
}

static rv_status
read_uints(const cJSON *array, const char *path, uint32_t *out, uint32_t count, rv_error *err)
{
    rv_status status = check_array(array, path, count, RV_ERR_FORMAT, err);
    uint32_t i = 0;

    if (status != RV_OK)
        return status;
    for (const cJSON *item = array->child; status == RV_OK && item != NULL; item = item->next) {
        char element[PATH_SIZE + 16];

        snprintf(element, sizeof(element), "%s[%u]", path, i);
        status = read_uint32(item, element, &out[i++], err);
    }
    return status;
}

static rv_status
read_points(const cJSON *array, const char *path, rv_pattern *pattern, rv_error *err)
{
    rv_status status = RV_OK;
    uint32_t i = 0;

    if (!cJSON_IsArray(array))
        return wrong(err, RV_ERR_FORMAT, path, array, "an array");
    if (array_size(array) > RV_PATTERN_ENTRY_POINTS)
        return rv_fail(err, RV_ERR_RANGE, "%s has %u elements; must have at most %d", path,
                       array_size(array), RV_PATTERN_ENTRY_POINTS);
    for (const cJSON *item = array->child; status == RV_OK && item != NULL; item = item->next) {
        char element[PATH_SIZE + 16];

        snprintf(element, sizeof(element), "%s[%u]", path, i);
        status = read_uint64(item, element, &pattern->entry_points[i++], err);
    }
    pattern->entry_count = i;
    return status;
}

/* ---- objects -------------------------------------------------------------------------------- */

/* Sorts the members of an object by names; items[i] gets the one called names[i], or NULL. Refuses
 * members that are unknown or come twice. */
static rv_status
take_members(const cJSON *object, const char *path, const char *const *names, int count,
             const cJSON **items, rv_error *err)
{
    char field[PATH_SIZE];

    if (!cJSON_IsObject(object))
        return wrong(err, RV_ERR_FORMAT, path, object, "an object");
    for (int i = 0; i < count; i++)
        items[i] = NULL;
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        int i = 0;

        while (i < count && strcmp(member->string, names[i]) != 0)
            i++;
        if (i == count)
            return rv_fail(err, RV_ERR_FORMAT, "%s is not a field of this format",
                           field_path(field, path, member->string));
        if (items[i] != NULL)
            return rv_fail(err, RV_ERR_FORMAT, "%s comes twice", field_path(field, path, names[i]));
        items[i] = member;
    }
    return RV_OK;
}

static rv_status
missing(rv_error *err, const char *path, const char *name)
{
    return rv_fail(err, RV_ERR_FORMAT, "%s.%s is missing", path, name);
}

static rv_status
read_field(const json_field *field, const cJSON *item, const char *path, rv_pattern *pattern,
           rv_error *err)
{
    void *value = (char *)pattern + field->offset;

    switch (field->kind) {
        case JSON_UINT64:
            return read_uint64(item, path, value, err);
        case JSON_INT64:
            return read_int64(item, path, value, err);
        case JSON_SCOPE:
            if (cJSON_IsString(item) && strcmp(item->valuestring, "index") == 0)
                pattern->scope = RV_PATTERN_INDEX;
            else if (cJSON_IsString(item) && strcmp(item->valuestring, "region") == 0)
                pattern->scope = RV_PATTERN_REGION;
            else
                return wrong(err, RV_ERR_FORMAT, path, item, "\"index\" or \"region\"");
            return RV_OK;
        case JSON_UINT32:
            return read_uint32(item, path, value, err);
        case JSON_FLOAT:
            return read_float(item, path, value, err);
        case JSON_FLOATS:
            return read_floats(item, path, value, RV_TARGETS, RV_ERR_FORMAT, err);
        case JSON_UINTS:
            return read_uints(item, path, value, RV_TARGETS, err);
        case JSON_POINTS:
            return read_points(item, path, pattern, err);
        case JSON_CENTROID: /* not a field of rv_pattern: read_pattern */
            break;
    }
    return RV_OK;
}

/* Reads one pattern; centroid has room for dim floats and is filled for a region. */
static rv_status
read_pattern(const cJSON *object, const char *path, uint32_t dim, rv_pattern *pattern,
             float *centroid, rv_error *err)
{
    const char *names[JSON_PATTERN_FIELDS];
    const cJSON *items[JSON_PATTERN_FIELDS];
    const cJSON *row;
    char field[PATH_SIZE];
    rv_error cause;
    rv_status status;

    for (int i = 0; i < JSON_PATTERN_FIELDS; i++)
        names[i] = rv_json_fields[i].name;
    status = take_members(object, path, names, JSON_PATTERN_FIELDS, items, err);
    memset(pattern, 0, sizeof(*pattern));
    for (int i = 0; status == RV_OK && i < JSON_CENTROID_FIELD; i++)
        status = items[i] == NULL ? missing(err, path, names[i])
                                  : read_field(&rv_json_fields[i], items[i],
                                               field_path(field, path, names[i]), pattern, err);
    if (status != RV_OK)
        return status;
    if (pattern->id == 0)
        return rv_fail(err, RV_ERR_RANGE, "%s.id is \"0\"; must be at least \"1\"", path);
    status = rv_pattern_check(pattern, &cause);
    if (status != RV_OK)
        return rv_fail(err, status, "%s.%.180s", path, cause.message);

    row = items[JSON_CENTROID_FIELD];
    if (pattern->scope == RV_PATTERN_INDEX)
        return row == NULL
                   ? RV_OK
                   : rv_fail(err, RV_ERR_FORMAT,
                             "%s.centroid must not be given for an index-wide pattern", path);
    if (row == NULL)
        return missing(err, path, "centroid");
    return read_floats(row, field_path(field, path, "centroid"), centroid, dim, RV_ERR_DIMENSION,
                       err);
}

static rv_status
read_patterns(const cJSON *array, rv_bank *bank, rv_error *err)
{
    rv_status status = RV_OK;
    uint32_t i = 0;
    float *centroid;

    if (!cJSON_IsArray(array))
        return wrong(err, RV_ERR_FORMAT, "$.patterns", array, "an array");
    if (array_size(array) > bank->max_patterns)
        return rv_fail(err, RV_ERR_FULL,
                       "$.patterns has %u elements; $.max_patterns allows %u patterns",
                       array_size(array), bank->max_patterns);
    centroid = rv_alloc_array(bank->allocator, bank->dim, sizeof(*centroid));
    if (centroid == NULL)
        return rv_fail_nomem(err, bank->dim * sizeof(*centroid));
    for (const cJSON *item = array->child; status == RV_OK && item != NULL; item = item->next) {
        bool had_index = bank->index != NULL;
        rv_pattern pattern;
        char path[PATH_SIZE];

        snprintf(path, sizeof(path), "$.patterns[%u]", i++);
        status = read_pattern(item, path, bank->dim, &pattern, centroid, err);
        if (status != RV_OK)
            break;
        status = rv_bank_put(bank, &pattern, pattern.scope == RV_PATTERN_INDEX ? NULL : centroid,
                             NULL, err);
        /* Every pattern is to be one more; otherwise it has replaced another. */
        if (status == RV_OK && had_index && pattern.scope == RV_PATTERN_INDEX)
            status = rv_fail(err, RV_ERR_FORMAT, "%s is a second index-wide pattern", path);
        else if (status == RV_OK && rv_bank_count(bank) != i)
            status = rv_fail(err, RV_ERR_FORMAT, "%s.id is \"%llu\"; another pattern has it", path,
                             (unsigned long long)pattern.id);
    }
    rv_free(bank->allocator, centroid);
    return status;
}

/* ---- the document --------------------------------------------------------------------------- */

enum { FORMAT, VERSION, METRIC, DIMENSIONS, MAX_PATTERNS, TARGETS, PATTERNS, DOCUMENT_FIELDS };

static const char *const document_fields[DOCUMENT_FIELDS] = {
    "format", "version", "metric", "dimensions", "max_patterns", "targets", "patterns"};

/* Before anything else: another version may have other fields. */
static rv_status
check_version(const cJSON *root, rv_error *err)
{
    const cJSON *format, *version;
    char shown[SHOWN_SIZE];

    if (!cJSON_IsObject(root))
        return wrong(err, RV_ERR_FORMAT, "$", root, "an object");
    format = cJSON_GetObjectItemCaseSensitive(root, "format");
    version = cJSON_GetObjectItemCaseSensitive(root, "version");
    if (format == NULL)
        return missing(err, "$", "format");
    if (!cJSON_IsString(format) || strcmp(format->valuestring, JSON_FORMAT) != 0)
        return wrong(err, RV_ERR_FORMAT, "$.format", format, "\"" JSON_FORMAT "\"");
    if (version == NULL)
        return missing(err, "$", "version");
    if (!cJSON_IsNumber(version))
        return wrong(err, RV_ERR_FORMAT, "$.version", version, "a number");
    if (version->valuedouble != RV_BANK_JSON_VERSION)
        return rv_fail(err, RV_ERR_VERSION, "$.version is %s; this code reads %d",
                       show(version, shown), RV_BANK_JSON_VERSION);
    return RV_OK;
}

static rv_status
read_metric(const cJSON *item, rv_metric *out, rv_error *err)
{
    for (int metric = RV_METRIC_L2; metric <= RV_METRIC_L1; metric++)
        if (cJSON_IsString(item) &&
            strcmp(item->valuestring, rv_metric_name((rv_metric)metric)) == 0) {
            *out = (rv_metric)metric;
            return RV_OK;
        }
    return wrong(err, RV_ERR_FORMAT, "$.metric", item,
                 "\"l2\", \"inner_product\", \"cosine\" or \"l1\"");
}

static rv_status
check_targets(const cJSON *array, rv_error *err)
{
    rv_status status = check_array(array, "$.targets", RV_TARGETS, RV_ERR_FORMAT, err);
    int i = 0;

    if (status != RV_OK)
        return status;
    for (const cJSON *item = array->child; item != NULL; item = item->next, i++)
        if (!cJSON_IsNumber(item) || item->valuedouble != rv_target_grid()[i]) {
            char path[PATH_SIZE], must[PATH_SIZE];

            snprintf(path, sizeof(path), "$.targets[%d]", i);
            snprintf(must, sizeof(must), "%g: tables are made for a fixed grid",
                     rv_target_grid()[i]);
            return wrong(err, RV_ERR_FORMAT, path, item, must);
        }
    return RV_OK;
}

static rv_status
read_limited(const cJSON *item, const char *path, uint32_t limit, uint32_t *out, rv_error *err)
{
    char must[SHOWN_SIZE];
    rv_status status = read_uint32(item, path, out, err);

    if (status == RV_OK && (*out < 1 || *out > limit)) {
        snprintf(must, sizeof(must), "1 to %u", limit);
        status = wrong(err, RV_ERR_RANGE, path, item, must);
    }
    return status;
}

static rv_status
read_document(const cJSON *root, const rv_allocator *allocator, rv_bank **out, rv_error *err)
{
    const cJSON *items[DOCUMENT_FIELDS];
    rv_metric metric = RV_METRIC_L2;
    uint32_t dim = 0, max_patterns = 0;
    rv_bank *bank;
    rv_status status = check_version(root, err);

    if (status == RV_OK)
        status = take_members(root, "$", document_fields, DOCUMENT_FIELDS, items, err);
    for (int i = 0; status == RV_OK && i < DOCUMENT_FIELDS; i++)
        if (items[i] == NULL)
            status = missing(err, "$", document_fields[i]);
    if (status != RV_OK || (status = read_metric(items[METRIC], &metric, err)) != RV_OK ||
        (status = read_limited(items[DIMENSIONS], "$.dimensions", RV_MAX_DIMENSIONS, &dim, err)) !=
            RV_OK ||
        (status = read_limited(items[MAX_PATTERNS], "$.max_patterns", RV_BANK_MAX_PATTERNS,
                               &max_patterns, err)) != RV_OK ||
        (status = check_targets(items[TARGETS], err)) != RV_OK ||
        (status = rv_bank_create(allocator, metric, dim, max_patterns, &bank, err)) != RV_OK)
        return status;
    status = read_patterns(items[PATTERNS], bank, err);
    if (status != RV_OK) {
        rv_bank_destroy(bank);
        return status;
    }
    *out = bank;
    return RV_OK;
}

rv_status
rv_bank_from_json(const rv_allocator *allocator, const char *text, size_t size, rv_bank **out,
                  rv_error *err)
{
    rv_status status = rv_json_scan(text, size, err);
    cJSON *root;

    if (status != RV_OK)
        return status;
    root = cJSON_ParseWithLengthOpts(text, size, NULL, 0);
    if (root == NULL)
        return rv_fail(err, RV_ERR_NOMEM, "JSON: no memory for the values of %zu bytes of text",
                       size);
    status = read_document(root, allocator, out, err);
    cJSON_Delete(root);
    return status;
}
