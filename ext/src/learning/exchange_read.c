/*
 * exchange_read.c - a document of patterns, trusting nothing.
 *
 * The frame is looked at here, field by field; each bank goes to the engine's reader as text. The
 * text is written by a loop of this file instead of PostgreSQL's, since a small jsonb can hold
 * numbers of 100,000 digits: it is bounded while it grows.
 *
 * A jsonb has no repeated keys (its input keeps the last one) and no NaN, so neither arrives here.
 */
#include "learning/exchange.h"

#include "learning/bank_edit.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#define MAX_NAME_LENGTH 256  /* of a string in the frame; longer ones are nobody's name */
#define MAX_NUMBER_LENGTH 60 /* as the engine's reader has it */
#define MAX_TEXT_LENGTH 256  /* of a string in a bank */
#define SHOWN_LENGTH 40

#define complain(...)                                                                              \
    ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION), errmsg(__VA_ARGS__),                          \
                    errhint("ruvector_export_patterns() writes what is read here.")))

/* A short form of a value for a message. */
static const char *
show(const JsonbValue *value)
{
    switch (value->type) {
        case jbvNull:
            return "null";
        case jbvBool:
            return value->val.boolean ? "true" : "false";
        case jbvString: {
            int length = Min(value->val.string.len, SHOWN_LENGTH);
            int whole = pg_mbcliplen(value->val.string.val, value->val.string.len, length);

            return psprintf("\"%s%s\"", pnstrdup(value->val.string.val, whole),
                            whole < value->val.string.len ? "..." : "");
        }
        case jbvNumeric: {
            char *digits = DatumGetCString(
                DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));

            return strlen(digits) <= SHOWN_LENGTH ? digits
                                                  : psprintf("%.*s...", SHOWN_LENGTH, digits);
        }
        default:
            return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data)
                       ? "an array"
                       : "an object";
    }
}

/* ---- the frame ----------------------------------------------------------------------------- */

static JsonbContainer *
need_container(const JsonbValue *value, const char *path, bool array)
{
    bool fits = value->type == jbvBinary && (array ? JsonContainerIsArray(value->val.binary.data)
                                                   : JsonContainerIsObject(value->val.binary.data));

    if (!fits)
        complain("importing patterns: %s is %s; must be an %s", path, show(value),
                 array ? "array" : "object");
    return value->val.binary.data;
}

/* The fields of an object in the order of names, all of them and no others. */
static void
take_fields(JsonbContainer *object, const char *path, const char *const *names, int count,
            JsonbValue *fields)
{
    JsonbIterator *iterator = JsonbIteratorInit(object);
    bool *seen = palloc0(sizeof(bool) * count);
    JsonbIteratorToken token;
    JsonbValue value;
    int i = 0;

    while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE) {
        if (token == WJB_KEY) {
            for (i = 0; i < count; i++)
                if (value.val.string.len == (int)strlen(names[i]) &&
                    memcmp(value.val.string.val, names[i], strlen(names[i])) == 0)
                    break;
            if (i == count)
                complain("importing patterns: %s has a field %s, which is not of this format", path,
                         show(&value));
        } else if (token == WJB_VALUE) {
            fields[i] = value;
            seen[i] = true;
        }
    }
    for (i = 0; i < count; i++)
        if (!seen[i])
            complain("importing patterns: %s.%s is missing", path, names[i]);
}

static char *
need_string(const JsonbValue *value, const char *path)
{
    if (value->type != jbvString || value->val.string.len > MAX_NAME_LENGTH)
        complain("importing patterns: %s is %s; must be a string of at most %d bytes", path,
                 show(value), MAX_NAME_LENGTH);
    return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
need_format(const JsonbValue *format, const JsonbValue *version)
{
    if (strcmp(need_string(format, "$.format"), RUV_EXCHANGE_FORMAT) != 0)
        complain("importing patterns: $.format is %s; must be \"%s\"", show(format),
                 RUV_EXCHANGE_FORMAT);
    if (version->type != jbvNumeric ||
        strcmp(show(version), psprintf("%d", RUV_EXCHANGE_VERSION)) != 0)
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("importing patterns: $.version is %s; this release reads %d",
                               show(version), RUV_EXCHANGE_VERSION)));
}

/* ---- a bank as text ------------------------------------------------------------------------ */

static void
append_scalar(StringInfo out, const JsonbValue *value, const char *path)
{
    char *text;

    switch (value->type) {
        case jbvString:
            if (value->val.string.len > MAX_TEXT_LENGTH)
                complain("importing patterns: %s has a string of %d bytes; at most %d are read",
                         path, value->val.string.len, MAX_TEXT_LENGTH);
            text = pnstrdup(value->val.string.val, value->val.string.len);
            escape_json(out, text);
            pfree(text);
            break;
        case jbvNumeric:
            text = DatumGetCString(
                DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
            if (strlen(text) > MAX_NUMBER_LENGTH)
                complain("importing patterns: %s has a number of %zu characters; at most %d are "
                         "read",
                         path, strlen(text), MAX_NUMBER_LENGTH);
            appendStringInfoString(out, text);
            pfree(text);
            break;
        case jbvBool:
            appendStringInfoString(out, value->val.boolean ? "true" : "false");
            break;
        default:
            appendStringInfoString(out, "null");
            break;
    }
}

static void
append_token(StringInfo out, JsonbIteratorToken token, const JsonbValue *value, const char *path,
             bool *separate)
{
    bool opens = token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT;
    bool closes = token == WJB_END_ARRAY || token == WJB_END_OBJECT;

    if (*separate && !closes)
        appendStringInfoChar(out, ',');
    if (opens)
        appendStringInfoChar(out, token == WJB_BEGIN_ARRAY ? '[' : '{');
    else if (closes)
        appendStringInfoChar(out, token == WJB_END_ARRAY ? ']' : '}');
    else
        append_scalar(out, value, path);
    if (token == WJB_KEY)
        appendStringInfoChar(out, ':');
    *separate = !opens && token != WJB_KEY;
}

static void
write_text(JsonbContainer *container, StringInfo out, const char *path)
{
    JsonbIterator *iterator = JsonbIteratorInit(container);
    bool separate = false;
    uint32 tokens = 0;
    JsonbIteratorToken token;
    JsonbValue value;

    while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE) {
        append_token(out, token, &value, path, &separate);
        if (out->len > RV_BANK_JSON_MAX_BYTES)
            ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                            errmsg("importing patterns: %s has more than %d bytes as text", path,
                                   RV_BANK_JSON_MAX_BYTES)));
        if (++tokens % 4096 == 0)
            CHECK_FOR_INTERRUPTS();
    }
}

/* The engine's complaint, behind the place in the document that it is about. */
static void
check_at(rv_status status, const rv_error *cause, const char *path, const char *complaint)
{
    rv_error err = *cause;

    if (status == RV_OK)
        return;
    snprintf(err.message, sizeof(err.message), "%s%s", path, complaint);
    ruv_check(status, &err, "importing patterns");
}

static rv_bank *
read_bank(JsonbContainer *container, const rv_allocator *allocator, const char *path)
{
    StringInfoData text;
    rv_error err = {0};
    rv_status status;
    rv_bank *bank;

    initStringInfo(&text);
    write_text(container, &text, path);
    status = rv_bank_from_json(allocator, text.data, (size_t)text.len, &bank, &err);
    /* A path of the engine begins at the bank. */
    check_at(status, &err, path,
             err.message[0] == '$' ? err.message + 1 : psprintf(": %s", err.message));
    pfree(text.data);
    if (rv_bank_count(bank) > RUV_BANK_LIMIT)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("importing patterns: %s.patterns has %u elements; an index keeps at "
                               "most %d",
                               path, rv_bank_count(bank), RUV_BANK_LIMIT)));
    for (uint32 i = 0; i < rv_bank_count(bank); i++) {
        const rv_pattern *pattern = rv_bank_get(bank, i, NULL);

        status = ruv_bank_check_storable(pattern, &err);
        check_at(status, &err,
                 psprintf("%s.patterns, id \"" UINT64_FORMAT "\": ", path, pattern->id),
                 err.message);
    }
    return bank;
}

/* ---- the document -------------------------------------------------------------------------- */

static void
read_entry(const JsonbValue *value, const rv_allocator *allocator, const char *path,
           RuvExchangeEntry *entry)
{
    static const char *const names[] = {"index", "method", "memory", "bank"};
    JsonbValue fields[lengthof(names)];
    char *bank_path = psprintf("%s.bank", path);

    take_fields(need_container(value, path, false), path, names, lengthof(names), fields);
    entry->index_name = need_string(&fields[0], psprintf("%s.index", path));
    entry->method = need_string(&fields[1], psprintf("%s.method", path));
    if (strcmp(entry->method, "ruhnsw") != 0 && strcmp(entry->method, "ruivfflat") != 0)
        complain("importing patterns: %s.method is %s; must be \"ruhnsw\" or \"ruivfflat\"", path,
                 show(&fields[1]));
    entry->memory =
        fields[2].type == jbvNull ? NULL : need_string(&fields[2], psprintf("%s.memory", path));
    entry->bank = read_bank(need_container(&fields[3], bank_path, false), allocator, bank_path);
}

void
ruv_exchange_read(Jsonb *document, RuvExchange *out)
{
    static const char *const names[] = {"format", "version", "table", "indexes"};
    JsonbValue fields[lengthof(names)];
    rv_allocator *allocator = palloc(sizeof(*allocator)); /* the banks keep its address */
    JsonbContainer *array;

    ruv_context_allocator(CurrentMemoryContext, allocator);
    if (!JB_ROOT_IS_OBJECT(document))
        complain("importing patterns: $ is %s; must be an object",
                 JB_ROOT_IS_SCALAR(document) ? "a scalar" : "an array");
    take_fields(&document->root, "$", names, lengthof(names), fields);
    need_format(&fields[0], &fields[1]);
    (void)need_string(&fields[2], "$.table");
    array = need_container(&fields[3], "$.indexes", true);
    out->count = (int)JsonContainerSize(array);
    if (out->count > RUV_MAX_INDEXES)
        complain("importing patterns: $.indexes has %d elements; at most %d are read", out->count,
                 RUV_MAX_INDEXES);
    out->entries = palloc0(sizeof(*out->entries) * Max(out->count, 1));
    for (int i = 0; i < out->count; i++)
        read_entry(getIthJsonbValueFromContainer(array, (uint32)i), allocator,
                   psprintf("$.indexes[%d]", i), &out->entries[i]);
}
