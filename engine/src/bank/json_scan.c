/*
 * json_scan.c - whether a text is JSON, and within the limits, before anything is built from it.
 *
 * cJSON accepts more than JSON (01, 1.e5, raw control characters), reports no reason, and allocates
 * as it goes. This pass allocates nothing, recurses at most RV_BANK_JSON_MAX_DEPTH deep, and says
 * where the first fault is; after it cJSON can fail for lack of memory only.
 */
#include "json.h"

#include <stdio.h>
#include <string.h>

/* A subnormal float written without exponent has 55; cJSON reads no more than 63. */
#define MAX_NUMBER 60

typedef struct scanner {
    const char *text;
    size_t size;
    size_t at;
    size_t values;
    unsigned depth;
    rv_error *err;
} scanner;

static rv_status scan_value(scanner *s);

static rv_status
fail_here(scanner *s, const char *reason)
{
    size_t line = 1, column = 1;
    char found[24];

    for (size_t i = 0; i < s->at; i++) {
        bool newline = s->text[i] == '\n';
        line += newline;
        column = newline ? 1 : column + 1;
    }
    if (s->at >= s->size)
        snprintf(found, sizeof(found), "the end");
    else if (s->text[s->at] > ' ' && s->text[s->at] <= '~')
        snprintf(found, sizeof(found), "'%c'", s->text[s->at]);
    else
        snprintf(found, sizeof(found), "byte 0x%02x", (unsigned char)s->text[s->at]);
    return rv_fail(s->err, RV_ERR_FORMAT, "JSON, line %zu, column %zu: %s at %s", line, column,
                   reason, found);
}

static inline char
peek(const scanner *s)
{
    return s->at < s->size ? s->text[s->at] : '\0';
}

static bool
accept(scanner *s, char c)
{
    if (s->at >= s->size || s->text[s->at] != c)
        return false;
    s->at++;
    return true;
}

static void
skip_space(scanner *s)
{
    while (s->at < s->size && (s->text[s->at] == ' ' || s->text[s->at] == '\t' ||
                               s->text[s->at] == '\n' || s->text[s->at] == '\r'))
        s->at++;
}

static inline bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
skip_digits(scanner *s)
{
    size_t from = s->at;

    while (is_digit(peek(s)))
        s->at++;
    return s->at > from;
}

static rv_status
scan_number(scanner *s)
{
    size_t from = s->at;

    accept(s, '-');
    if (!accept(s, '0') && !skip_digits(s))
        return fail_here(s, "a digit is missing");
    if (is_digit(peek(s)))
        return fail_here(s, "a number must not begin with 0");
    if (accept(s, '.') && !skip_digits(s))
        return fail_here(s, "a digit is missing after the point");
    if (accept(s, 'e') || accept(s, 'E')) {
        if (!accept(s, '+'))
            accept(s, '-');
        if (!skip_digits(s))
            return fail_here(s, "a digit is missing in the exponent");
    }
    if (s->at - from > MAX_NUMBER)
        return fail_here(s, "a number is longer than 60 characters");
    return RV_OK;
}

static rv_status
scan_escape(scanner *s)
{
    unsigned code = 0;

    if (!accept(s, 'u')) {
        if (peek(s) == '\0' || strchr("\"\\/bfnrt", peek(s)) == NULL)
            return fail_here(s, "there is no such escape");
        s->at++;
        return RV_OK;
    }
    for (int i = 0; i < 4; i++, s->at++) {
        char c = peek(s);

        if (is_digit(c))
            code = code * 16 + (unsigned)(c - '0');
        else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
            code = code * 16 + (unsigned)((c | 0x20) - 'a' + 10);
        else
            return fail_here(s, "a hexadecimal digit is missing");
    }
    if (code == 0 || (code >= 0xD800 && code <= 0xDFFF))
        return fail_here(s, "an escape stands for NUL or half a character");
    return RV_OK;
}

static rv_status
scan_string(scanner *s)
{
    if (!accept(s, '"'))
        return fail_here(s, "a string is missing");
    while (!accept(s, '"')) {
        if (s->at >= s->size || (unsigned char)s->text[s->at] < 0x20)
            return fail_here(s, "a string does not end");
        if (accept(s, '\\')) {
            rv_status status = scan_escape(s);
            if (status != RV_OK)
                return status;
        } else {
            s->at++;
        }
    }
    return RV_OK;
}

static rv_status
scan_word(scanner *s, const char *word)
{
    for (; *word != '\0'; word++)
        if (!accept(s, *word))
            return fail_here(s, "this is no value");
    return RV_OK;
}

/* An array or object, after its opening bracket. */
static rv_status
scan_members(scanner *s, char close)
{
    rv_status status;

    skip_space(s);
    if (accept(s, close))
        return RV_OK;
    do {
        skip_space(s);
        if (close == '}') {
            status = scan_string(s);
            if (status != RV_OK)
                return status;
            skip_space(s);
            if (!accept(s, ':'))
                return fail_here(s, "a colon is missing");
            skip_space(s);
        }
        status = scan_value(s);
        if (status != RV_OK)
            return status;
        skip_space(s);
    } while (accept(s, ','));
    if (!accept(s, close))
        return fail_here(s, close == ']' ? "a comma or ] is missing" : "a comma or } is missing");
    return RV_OK;
}

static rv_status
scan_value(scanner *s)
{
    rv_status status;

    if (++s->values > RV_BANK_JSON_MAX_VALUES)
        return rv_fail(s->err, RV_ERR_FULL, "JSON: more than %d values", RV_BANK_JSON_MAX_VALUES);
    switch (peek(s)) {
        case '[':
        case '{':
            if (++s->depth > RV_BANK_JSON_MAX_DEPTH)
                return rv_fail(s->err, RV_ERR_FULL,
                               "JSON, byte %zu: values lie more than %d deep in each other", s->at,
                               RV_BANK_JSON_MAX_DEPTH);
            status = scan_members(s, s->text[s->at++] == '[' ? ']' : '}');
            s->depth--;
            return status;
        case '"':
            return scan_string(s);
        case 't':
            return scan_word(s, "true");
        case 'f':
            return scan_word(s, "false");
        case 'n':
            return scan_word(s, "null");
        default:
            if (peek(s) == '-' || is_digit(peek(s)))
                return scan_number(s);
            return fail_here(s, "a value is missing");
    }
}

rv_status
rv_json_scan(const char *text, size_t size, rv_error *err)
{
    scanner s = {.text = text, .size = size, .err = err};
    rv_status status;

    if (size > RV_BANK_JSON_MAX_BYTES)
        return rv_fail(err, RV_ERR_FULL, "JSON: %zu bytes; at most %d are read", size,
                       RV_BANK_JSON_MAX_BYTES);
    skip_space(&s);
    status = scan_value(&s);
    if (status != RV_OK)
        return status;
    skip_space(&s);
    if (s.at < size)
        return fail_here(&s, "there is more after the end");
    return RV_OK;
}
