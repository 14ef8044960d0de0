/*
 * vector.h - what the files of the ruvector type share: one place for its limits and for the
 * messages about a wrong value.
 *
 * Every vector in the database holds 1 to RV_MAX_DIMENSIONS finite numbers. Each way in (text,
 * binary, casts, arithmetic, aggregates) goes through the checks below, so the distance kernels and
 * the indexes never meet a NaN or an infinity. Positions in messages count elements from 1, as SQL
 * arrays do.
 */
#ifndef RUVECTOR_TYPE_VECTOR_H
#define RUVECTOR_TYPE_VECTOR_H

#include "ruvector.h"

/* Raises unless 1 <= dim <= RV_MAX_DIMENSIONS. */
extern void ruv_check_dim(int64 dim);

/* Raises when the column is ruvector(n) (typmod n, not -1) and dim is another number. */
extern void ruv_check_typmod(int32 typmod, int dim);

/* Raises unless both have the same number of elements. */
extern void ruv_check_same_dim(const RuVector *a, const RuVector *b);

/* Raises when value is NaN or infinite. position counts from 1. */
extern void ruv_check_element(float value, int position);

/*
 * A double as an element: rounded to the nearest float, too small becomes zero. Raises when it is
 * NaN or infinite, and when it is finite but beyond the range of a float.
 */
extern float ruv_element_from_double(double value, int position);

/*
 * The number that text begins with, as element number position; *end is set behind it. Locale
 * independent. Raises for NaN, infinity, overflow and anything that is not a decimal number. whole
 * is the complete input, quoted in the message about a malformed one.
 */
extern float ruv_parse_element(const char *text, char **end, int position, const char *whole);

/* ASCII white space, whatever the locale. */
extern bool ruv_is_space(char c);

/* The first bytes of an input that may be huge, whole characters only, for use in a message. */
extern char *ruv_excerpt(const char *text, int length);

#endif
