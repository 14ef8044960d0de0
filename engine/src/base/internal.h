/*
 * internal.h - helpers shared by the engine's modules; not part of the public interface.
 *
 * Failures are reported in one way: `return rv_fail(err, RV_ERR_..., "what, the value, the limit,
 * what to do")`. Memory is asked for in one way: rv_alloc and its kin, which take sizes that may be
 * 0 and products that may overflow, so that callers need not check either.
 */
#ifndef RUVECTOR_BASE_INTERNAL_H
#define RUVECTOR_BASE_INTERNAL_H

#include "ruvector/base.h"

#if defined(__GNUC__)
#define RV_PRINTF(fmt_index, first_index) __attribute__((format(printf, fmt_index, first_index)))
#else
#define RV_PRINTF(fmt_index, first_index)
#endif

/* Fills err (unless NULL) with status and the formatted message, cut to fit; returns status. */
rv_status rv_fail(rv_error *err, rv_status status, const char *fmt, ...) RV_PRINTF(3, 4);

/* RV_ERR_NOMEM with the usual message; size is what was asked for. */
rv_status rv_fail_nomem(rv_error *err, size_t size);

/* size bytes, or NULL when the allocator has none. A size of 0 gives a block of 1 byte, so that
 * NULL always means failure. */
void *rv_alloc(const rv_allocator *allocator, size_t size);

/* As rv_alloc, every byte 0. */
void *rv_alloc_zero(const rv_allocator *allocator, size_t size);

/* count elements of element_size bytes; NULL also when the product does not fit size_t. */
void *rv_alloc_array(const rv_allocator *allocator, size_t count, size_t element_size);
void *rv_alloc_array_zero(const rv_allocator *allocator, size_t count, size_t element_size);

/* Gives back what one of the above returned; NULL is allowed. */
void rv_free(const rv_allocator *allocator, void *pointer);

#endif
