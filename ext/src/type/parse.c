/*
 * parse.c - reading one element from text.
 *
 * strtof accepts more than a vector does (hexadecimal, NaN, infinity, whatever the locale says), so
 * the beginning of the number is checked first and the conversion runs in the C locale. The
 * conversion is correctly rounded: what ruvector_out wrote comes back bit for bit.
 *
 * Restoring a dump of vectors is mostly this conversion, so short decimals take a way of their own
 * that gives the same float in a fraction of the time.
 */
#include "vector.h"

#include <float.h>
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

/*
 * The decimal that text begins with, when it can be converted without strtof; false leaves it to
 * strtof. begins_decimal(text) holds.
 *
 * digits < 2^53 and powers of ten up to 10^22 are exact as doubles, so one multiplication or
 * division rounds once (Clinger, 1990). Rounding that double to a float gives the float nearest to
 * the decimal unless the double lies halfway between two floats: there the decimal may be on either
 * side. Halfway doubles of normal floats have a 1 and 28 zeros behind the float's bits.
 */
static bool
convert_short_decimal(const char *text, char **end, float *value)
{
    static const double power_of_ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                          1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                          1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const uint64 digits_limit = (UINT64CONST(1) << 53) / 10 - 1;
    bool negative = (*text == '-');
    const char *p = text + (*text == '+' || *text == '-');
    uint64 digits = 0;
    int exponent = 0;
    double magnitude;
    uint64 bits;

    if (FLT_EVAL_METHOD != 0) /* doubles that are not rounded to doubles at once */
        return false;

    for (; is_digit(*p) && digits < digits_limit; p++)
        digits = digits * 10 + (*p - '0');
    if (*p == '.') {
        for (p++; is_digit(*p) && digits < digits_limit; p++, exponent--)
            digits = digits * 10 + (*p - '0');
    }
    if (is_digit(*p))
        return false;
    if (*p == 'e' || *p == 'E') {
        bool minus = (p[1] == '-');
        const char *first = p + 1 + (p[1] == '+' || p[1] == '-');
        int written = 0;

        for (p = first; is_digit(*p) && p < first + 3; p++)
            written = written * 10 + (*p - '0');
        if (p == first || is_digit(*p))
            return false;
        exponent += minus ? -written : written;
    }
    if (exponent < -22 || exponent > 22)
        return false;

    magnitude = exponent < 0 ? (double)digits / power_of_ten[-exponent]
                             : (double)digits * power_of_ten[exponent];
    memcpy(&bits, &magnitude, sizeof(bits));
    if (digits != 0 &&
        (magnitude < FLT_MIN || magnitude > 1e38 || (bits & 0x1fffffff) == 0x10000000))
        return false;

    *value = negative ? -(float)magnitude : (float)magnitude;
    *end = unconstify(char *, p);
    return true;
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

    if (!convert_short_decimal(text, end, &value))
        value = strtof_l(text, end, c_locale());
    if (isinf(value))
        ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                        errmsg("\"%s\" is out of range for type ruvector", element_text(text)),
                        errdetail("Element %d is beyond the range of a 4-byte float.", position)));
    if (**end && **end != ',' && **end != ']' && !ruv_is_space(**end))
        raise_malformed_element(text, position, whole);
    return value;
}
