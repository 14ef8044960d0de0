/*
 * parse.c - reading one element from text.
 *
 * strtof accepts more than a vector does (hexadecimal, NaN, infinity, whatever the locale says), so
 * the beginning of the number is checked first and the conversion runs in the C locale. The
 * conversion is correctly rounded: what ruvector_out wrote comes back bit for bit.
 */
#include "vector.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "mb/pg_wchar.h"

/* Bytes of an input and of an element that a message quotes. */
#define EXCERPT_BYTES 64
#define ELEMENT_BYTES 32

bool
ruv_is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

char *
ruv_excerpt(const char *text, int length)
{
    int shown;

    if (length <= EXCERPT_BYTES)
        return pnstrdup(text, length);
    shown = pg_mbcliplen(text, length, EXCERPT_BYTES);
    return psprintf("%.*s...", shown, text);
}

/* Up to the next separator: what the user sees as the element. */
static char *
element_text(const char *text)
{
    int length = 0;

    while (text[length] && text[length] != ',' && text[length] != ']' &&
           !ruv_is_space(text[length]) && length <= ELEMENT_BYTES)
        length++;
    if (length <= ELEMENT_BYTES)
        return pnstrdup(text, length);
    return psprintf("%.*s...", pg_mbcliplen(text, length, ELEMENT_BYTES), text);
}

static locale_t
c_locale(void)
{
    static locale_t locale = (locale_t)0;

    if (locale == (locale_t)0) {
        locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        if (locale == (locale_t)0)
            ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
    }
    return locale;
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A sign, then a digit, or a point and a digit; not hexadecimal. */
static bool
begins_decimal(const char *text)
{
    if (*text == '+' || *text == '-')
        text++;
    if (text[0] == '.')
        return is_digit(text[1]);
    return is_digit(text[0]) && !(text[0] == '0' && (text[1] == 'x' || text[1] == 'X'));
}

static void
raise_malformed_element(const char *text, int position, const char *whole)
{
    char *element = element_text(text);
    const char *name = element + (*element == '+' || *element == '-');

    if (pg_strcasecmp(name, "nan") == 0)
        ruv_check_element(NAN, position);
    if (pg_strcasecmp(name, "inf") == 0 || pg_strcasecmp(name, "infinity") == 0)
        ruv_check_element(*element == '-' ? -INFINITY : INFINITY, position);

    ereport(ERROR,
            (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
             errmsg("invalid input syntax for type ruvector: \"%s\"",
                    ruv_excerpt(whole, strlen(whole))),
             *element ? errdetail("Element %d is \"%s\", not a decimal number.", position, element)
                      : errdetail("Element %d is empty.", position)));
}

float
ruv_parse_element(const char *text, char **end, int position, const char *whole)
{
    float value;

    if (!begins_decimal(text))
        raise_malformed_element(text, position, whole);

    value = strtof_l(text, end, c_locale());
    if (isinf(value))
        ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                        errmsg("\"%s\" is out of range for type ruvector", element_text(text)),
                        errdetail("Element %d is beyond the range of a 4-byte float.", position)));
    if (**end && **end != ',' && **end != ']' && !ruv_is_space(**end))
        raise_malformed_element(text, position, whole);
    return value;
}
