/*
 * kernels_body.h - every distance kernel, written once.
 *
 * Included at the end of each kernels_<level>.c, which first defines
 *   RV_LEVEL, RV_LEVEL_NAME, RV_LEVEL_TABLE    the enum value, the name, the table's symbol
 *   VEC_WIDTH and the type vec                 so many floats
 *   vec_zero() vec_set1(x)
 *   vec_load(p) vec_load_part(p, n)            n < VEC_WIDTH floats, the other lanes 0
 *   vec_load_half(p) vec_load_half_part(p, n)  from half precision
 *   vec_load_int8(p) vec_load_int8_part(p, n)  from int8, unscaled
 *   vec_store(p, v) vec_store_half(p, v)
 *   vec_store_wide(p, v)                       as int16, rounded to nearest even
 *   vec_mul(x, y)
 *   vec_add(x, y) vec_sub(x, y) vec_abs(x)
 *   vec_fma(x, y, z) = x * y + z, vec_fnma(x, y, z) = z - x * y
 *   vec_sum(v)                                 the sum of the lanes
 * where VEC_WIDTH > 1
 *   vec_sum_four(p, v0, v1, v2, v3)            the sums of four, each as by vec_sum to the bit
 *   vec_keep(v)                                v; from here on in a register
 * and, where the level has integers that wide, CODES_WIDTH and the type codes (sums of int32)
 *   codes_zero() codes_add_products(s, p, q)   of CODES_WIDTH int16 at p and int8 at q
 *   codes_sum(s, t)                            the sum of the lanes of both
 *   wides, wides_load(p)                       CODES_WIDTH int16
 *   codes_add_wides(s, x, y)                   the sums and the products of two of those
 *   codes_sum_four(p, s0, s1, s2, s3)          the sums of the lanes of four
 * No load or store asks for alignment.
 *
 * Four accumulators run side by side, because an addition takes about four cycles and a new one can
 * start in each. Lanes beyond the end are 0 in both vectors and add nothing to any of the sums, so
 * the tail is one more step with a partial load.
 */
#include "half.h"

#include <math.h>

typedef enum row_type { ROW_FLOAT, ROW_HALF, ROW_INT8 } row_type;
typedef enum term { TERM_L2, TERM_IP, TERM_L1 } term;

/* VEC_WIDTH elements of a row from element number at. */
RV_INLINE vec
load_row(const void *row, size_t at, row_type type)
{
    switch (type) {
        case ROW_HALF:
            return vec_load_half((const uint16_t *)row + at);
        case ROW_INT8:
            return vec_load_int8((const int8_t *)row + at);
        default:
            return vec_load((const float *)row + at);
    }
}

RV_INLINE vec
load_row_part(const void *row, size_t at, size_t n, row_type type)
{
    switch (type) {
        case ROW_HALF:
            return vec_load_half_part((const uint16_t *)row + at, n);
        case ROW_INT8:
            return vec_load_int8_part((const int8_t *)row + at, n);
        default:
            return vec_load_part((const float *)row + at, n);
    }
}

/* sum + term(a, scale * b); the inner product's scale is applied to the final sum instead. */
RV_INLINE vec
add_term(vec sum, vec a, vec b, vec scale, row_type type, term t)
{
    vec difference;

    if (t == TERM_IP)
        return vec_fma(a, b, sum);
    difference = type == ROW_INT8 ? vec_fnma(b, scale, a) : vec_sub(a, b);
    if (t == TERM_L1)
        return vec_add(sum, vec_abs(difference));
    return vec_fma(difference, difference, sum);
}

/* type and t are constants in every caller: each kernel below is compiled as a loop of its own. */
RV_INLINE float
sum_terms(const float *a, const void *row, float row_scale, size_t dim, row_type type, term t)
{
    vec scale = vec_set1(row_scale);
    vec s0 = vec_zero(), s1 = vec_zero(), s2 = vec_zero(), s3 = vec_zero();
    const size_t w = VEC_WIDTH;
    size_t i = 0;

    for (; i + 4 * w <= dim; i += 4 * w) {
        s0 = add_term(s0, vec_load(a + i), load_row(row, i, type), scale, type, t);
        s1 = add_term(s1, vec_load(a + i + w), load_row(row, i + w, type), scale, type, t);
        s2 = add_term(s2, vec_load(a + i + 2 * w), load_row(row, i + 2 * w, type), scale, type, t);
        s3 = add_term(s3, vec_load(a + i + 3 * w), load_row(row, i + 3 * w, type), scale, type, t);
    }
    for (; i + w <= dim; i += w)
        s0 = add_term(s0, vec_load(a + i), load_row(row, i, type), scale, type, t);
    if (i < dim)
        s1 = add_term(s1, vec_load_part(a + i, dim - i), load_row_part(row, i, dim - i, type),
                      scale, type, t);
    return vec_sum(vec_add(vec_add(s0, s1), vec_add(s2, s3)));
}

#if VEC_WIDTH > 1

/* One accumulator for each pair of a tile: q<query>r<row>. */
typedef struct tile_sums {
    vec q0r0, q0r1, q0r2, q0r3;
    vec q1r0, q1r1, q1r2, q1r3;
} tile_sums;

RV_INLINE void
add_tile_terms(tile_sums *s, vec q0, vec q1, vec r0, vec r1, vec r2, vec r3, term t)
{
    vec one = vec_set1(1.0f);

    /* Otherwise the compiler makes each use a load of its own, and loads are what is scarce. */
    r0 = vec_keep(r0);
    r1 = vec_keep(r1);
    r2 = vec_keep(r2);
    r3 = vec_keep(r3);
    s->q0r0 = add_term(s->q0r0, q0, r0, one, ROW_FLOAT, t);
    s->q1r0 = add_term(s->q1r0, q1, r0, one, ROW_FLOAT, t);
    s->q0r1 = add_term(s->q0r1, q0, r1, one, ROW_FLOAT, t);
    s->q1r1 = add_term(s->q1r1, q1, r1, one, ROW_FLOAT, t);
    s->q0r2 = add_term(s->q0r2, q0, r2, one, ROW_FLOAT, t);
    s->q1r2 = add_term(s->q1r2, q1, r2, one, ROW_FLOAT, t);
    s->q0r3 = add_term(s->q0r3, q0, r3, one, ROW_FLOAT, t);
    s->q1r3 = add_term(s->q1r3, q1, r3, one, ROW_FLOAT, t);
}

/* The elements from `from` up to `to`, VEC_WIDTH of them at every step. */
RV_INLINE void
add_tile_steps(tile_sums *sums, const float *const *q, const float *const *r, size_t from,
               size_t to, size_t step, term t)
{
    const float *q0 = q[0], *q1 = q[1], *r0 = r[0], *r1 = r[1], *r2 = r[2], *r3 = r[3];
    tile_sums s = *sums;

    for (size_t i = from; i < to; i += step)
        add_tile_terms(&s, vec_load(q0 + i), vec_load(q1 + i), vec_load(r0 + i), vec_load(r1 + i),
                       vec_load(r2 + i), vec_load(r3 + i), t);
    *sums = s;
}

RV_INLINE vec
sum_of_pair(vec s0, vec s1, vec s2, vec s3)
{
    return vec_add(vec_add(s0, s1), vec_add(s2, s3));
}

/*
 * A tile of RV_TILE_QUERIES x RV_TILE_ROWS pairs: what is loaded once serves several of them. A
 * pair's terms enter the same four accumulators in the same order as in sum_terms, so the result
 * is the same to the bit. Four accumulators of eight pairs find no room in the registers, so the
 * tile is walked once for each accumulator, in stretches that stay in the nearest cache.
 */
#define TILE_STRETCH ((size_t)512) /* elements; a multiple of 4 * VEC_WIDTH */

RV_INLINE void
sum_tile_terms(const float *const *q, const float *const *r, size_t dim, float *out, term t)
{
    const size_t w = VEC_WIDTH;
    const size_t whole = dim - dim % (4 * w);
    const size_t full = dim - dim % w;
    const vec zero = vec_zero();
    tile_sums s[4];

    for (size_t a = 0; a < 4; a++) {
        s[a] = (tile_sums){zero, zero, zero, zero, zero, zero, zero, zero};
        add_tile_steps(&s[a], q, r, a * w, whole < TILE_STRETCH ? whole : TILE_STRETCH, 4 * w, t);
    }
    for (size_t start = TILE_STRETCH; start < whole; start += TILE_STRETCH) {
        size_t end = whole - start < TILE_STRETCH ? whole : start + TILE_STRETCH;

        for (size_t a = 0; a < 4; a++)
            add_tile_steps(&s[a], q, r, start + a * w, end, 4 * w, t);
    }
    add_tile_steps(&s[0], q, r, whole, full, w, t);
    if (full < dim) {
        size_t n = dim - full;

        add_tile_terms(&s[1], vec_load_part(q[0] + full, n), vec_load_part(q[1] + full, n),
                       vec_load_part(r[0] + full, n), vec_load_part(r[1] + full, n),
                       vec_load_part(r[2] + full, n), vec_load_part(r[3] + full, n), t);
    }
    vec_sum_four(out, sum_of_pair(s[0].q0r0, s[1].q0r0, s[2].q0r0, s[3].q0r0),
                 sum_of_pair(s[0].q0r1, s[1].q0r1, s[2].q0r1, s[3].q0r1),
                 sum_of_pair(s[0].q0r2, s[1].q0r2, s[2].q0r2, s[3].q0r2),
                 sum_of_pair(s[0].q0r3, s[1].q0r3, s[2].q0r3, s[3].q0r3));
    vec_sum_four(out + RV_TILE_ROWS, sum_of_pair(s[0].q1r0, s[1].q1r0, s[2].q1r0, s[3].q1r0),
                 sum_of_pair(s[0].q1r1, s[1].q1r1, s[2].q1r1, s[3].q1r1),
                 sum_of_pair(s[0].q1r2, s[1].q1r2, s[2].q1r2, s[3].q1r2),
                 sum_of_pair(s[0].q1r3, s[1].q1r3, s[2].q1r3, s[3].q1r3));
}

#else

/* The four accumulators of one pair already are a vector to the compiler: nothing is left to gain.
 */
RV_INLINE void
sum_tile_terms(const float *const *q, const float *const *r, size_t dim, float *out, term t)
{
    for (size_t at = 0; at < RV_TILE_QUERIES * RV_TILE_ROWS; at++)
        out[at] = sum_terms(q[at / RV_TILE_ROWS], r[at % RV_TILE_ROWS], 1.0f, dim, ROW_FLOAT, t);
}

#endif

static void
l2_squared_tile(const float *const *queries, const float *const *rows, uint32_t dim, float *out)
{
    sum_tile_terms(queries, rows, dim, out, TERM_L2);
}

static void
inner_product_tile(const float *const *queries, const float *const *rows, uint32_t dim, float *out)
{
    sum_tile_terms(queries, rows, dim, out, TERM_IP);
}

static void
l1_tile(const float *const *queries, const float *const *rows, uint32_t dim, float *out)
{
    sum_tile_terms(queries, rows, dim, out, TERM_L1);
}

static float
l2_squared(const float *a, const float *b, uint32_t dim)
{
    return sum_terms(a, b, 1.0f, dim, ROW_FLOAT, TERM_L2);
}

static float
inner_product(const float *a, const float *b, uint32_t dim)
{
    return sum_terms(a, b, 1.0f, dim, ROW_FLOAT, TERM_IP);
}

static float
l1(const float *a, const float *b, uint32_t dim)
{
    return sum_terms(a, b, 1.0f, dim, ROW_FLOAT, TERM_L1);
}

static float
l2_squared_half(const float *a, const uint16_t *b, uint32_t dim)
{
    return sum_terms(a, b, 1.0f, dim, ROW_HALF, TERM_L2);
}

static float
inner_product_half(const float *a, const uint16_t *b, uint32_t dim)
{
    return sum_terms(a, b, 1.0f, dim, ROW_HALF, TERM_IP);
}

static float
l1_half(const float *a, const uint16_t *b, uint32_t dim)
{
    return sum_terms(a, b, 1.0f, dim, ROW_HALF, TERM_L1);
}

static float
l2_squared_int8(const float *a, const int8_t *b, float scale, uint32_t dim)
{
    return sum_terms(a, b, scale, dim, ROW_INT8, TERM_L2);
}

static float
inner_product_int8(const float *a, const int8_t *b, float scale, uint32_t dim)
{
    return scale * sum_terms(a, b, 1.0f, dim, ROW_INT8, TERM_IP);
}

static float
l1_int8(const float *a, const int8_t *b, float scale, uint32_t dim)
{
    return sum_terms(a, b, scale, dim, ROW_INT8, TERM_L1);
}

/* Integers add up exactly in any order, so every level gives the same sum. No sum of some of the
 * products passes the product of the two lengths (Cauchy and Schwarz), which is at most
 * 32767 x 1.01 x 127 x sqrt(16,000), a quarter of 2^31. Two wide codes: (32767 x 1.01)^2, half of
 * it. */
RV_INLINE int32_t
dot_code(const int16_t *wide, const int8_t *code, uint32_t dim)
{
    int32_t sum = 0;
    size_t i = 0;

#ifdef CODES_WIDTH
    codes s0 = codes_zero(), s1 = codes_zero();

    for (; i + 2 * CODES_WIDTH <= dim; i += 2 * CODES_WIDTH) {
        s0 = codes_add_products(s0, wide + i, code + i);
        s1 = codes_add_products(s1, wide + i + CODES_WIDTH, code + i + CODES_WIDTH);
    }
    sum = codes_sum(s0, s1);
#endif
    for (; i < dim; i++)
        sum += wide[i] * code[i];
    return sum;
}

static void
dot_codes(const int16_t *wide, const int8_t *code, size_t stride, size_t count, uint32_t dim,
          int32_t *out)
{
    for (size_t row = 0; row < count; row++)
        out[row] = dot_code(wide, code + row * stride, dim);
}

/* As dot_codes for a tile of wide codes, of which what is loaded once serves several pairs. */
static void
dot_wides_tile(const int16_t *const *queries, const int16_t *const *rows, uint32_t dim,
               int32_t *out)
{
#ifdef CODES_WIDTH
    const int16_t *q0 = queries[0], *q1 = queries[1];
    const int16_t *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
    codes s00 = codes_zero(), s01 = s00, s02 = s00, s03 = s00;
    codes s10 = s00, s11 = s00, s12 = s00, s13 = s00;

    for (size_t i = 0; i < dim; i += CODES_WIDTH) {
        wides a = wides_load(q0 + i), b = wides_load(q1 + i);
        wides row = wides_load(r0 + i);

        s00 = codes_add_wides(s00, a, row);
        s10 = codes_add_wides(s10, b, row);
        row = wides_load(r1 + i);
        s01 = codes_add_wides(s01, a, row);
        s11 = codes_add_wides(s11, b, row);
        row = wides_load(r2 + i);
        s02 = codes_add_wides(s02, a, row);
        s12 = codes_add_wides(s12, b, row);
        row = wides_load(r3 + i);
        s03 = codes_add_wides(s03, a, row);
        s13 = codes_add_wides(s13, b, row);
    }
    codes_sum_four(out, s00, s01, s02, s03);
    codes_sum_four(out + RV_TILE_ROWS, s10, s11, s12, s13);
#else
    for (size_t at = 0; at < RV_TILE_QUERIES * RV_TILE_ROWS; at++) {
        const int16_t *query = queries[at / RV_TILE_ROWS], *row = rows[at % RV_TILE_ROWS];
        int32_t sum = 0;

        for (size_t i = 0; i < dim; i++)
            sum += query[i] * row[i];
        out[at] = sum;
    }
#endif
}

typedef struct cosine_sums {
    vec dot, aa, bb;
} cosine_sums;

RV_INLINE void
add_cosine(cosine_sums *sums, vec a, vec b)
{
    sums->dot = vec_fma(a, b, sums->dot);
    sums->aa = vec_fma(a, a, sums->aa);
    sums->bb = vec_fma(b, b, sums->bb);
}

/* The dot product and both squared norms in one pass. Two accumulators each: six chains already
 * hide the latency, and twelve would not leave AVX2 registers for the operands. */
static float
cosine(const float *a, const float *b, uint32_t dim)
{
    cosine_sums s0 = {vec_zero(), vec_zero(), vec_zero()};
    cosine_sums s1 = {vec_zero(), vec_zero(), vec_zero()};
    const size_t w = VEC_WIDTH;
    size_t i = 0;
    float dot, aa, bb;
    double similarity;

    for (; i + 2 * w <= dim; i += 2 * w) {
        add_cosine(&s0, vec_load(a + i), vec_load(b + i));
        add_cosine(&s1, vec_load(a + i + w), vec_load(b + i + w));
    }
    for (; i + w <= dim; i += w)
        add_cosine(&s0, vec_load(a + i), vec_load(b + i));
    if (i < dim)
        add_cosine(&s1, vec_load_part(a + i, dim - i), vec_load_part(b + i, dim - i));
    dot = vec_sum(vec_add(s0.dot, s1.dot));
    aa = vec_sum(vec_add(s0.aa, s1.aa));
    bb = vec_sum(vec_add(s0.bb, s1.bb));

    /* Outside these bounds squares of float32 overflow, or lose their bits as subnormals. */
    if (!(aa > 1e-30f && aa < 1e30f && bb > 1e-30f && bb < 1e30f))
        return rv_cosine_double(a, b, dim);
    /* In double the product of equal norms is exact, so a vector has similarity 1 to itself. */
    similarity = (double)dot / sqrt((double)aa * (double)bb);
    return similarity > 1.0 ? 1.0f : similarity < -1.0 ? -1.0f : (float)similarity;
}

static void
to_half(const float *in, uint16_t *out, size_t count)
{
    size_t i = 0;

    for (; i + VEC_WIDTH <= count; i += VEC_WIDTH)
        vec_store_half(out + i, vec_load(in + i));
    for (; i < count; i++)
        out[i] = half_from_float(in[i]);
}

static void
from_half(const uint16_t *in, float *out, size_t count)
{
    size_t i = 0;

    for (; i + VEC_WIDTH <= count; i += VEC_WIDTH)
        vec_store(out + i, vec_load_half(in + i));
    for (; i < count; i++)
        out[i] = half_to_float(in[i]);
}

static void
to_wide(const float *in, float factor, int16_t *out, size_t count)
{
    size_t i = 0;

    for (; i + VEC_WIDTH <= count; i += VEC_WIDTH)
        vec_store_wide(out + i, vec_mul(vec_load(in + i), vec_set1(factor)));
    for (; i < count; i++)
        out[i] = (int16_t)fminf(fmaxf(rintf(in[i] * factor), INT16_MIN), INT16_MAX);
}

/* VEC_WIDTH elements (the first n of them, where part) of a vector in fixed point, from element
 * number at. The rest's planes make a number of at most 24 bits, which a float holds. */
RV_INLINE vec
load_fixed(const int8_t *high, const int8_t *rest, size_t planes, float scale, size_t dim,
           size_t at, size_t n, bool part)
{
    vec sum = vec_zero();
    float unit = 1.0f;

    for (size_t plane = 0; plane < planes; plane++, unit /= 256.0f) {
        const int8_t *digits = rest + plane * dim + at;

        sum = vec_fma(part ? vec_load_int8_part(digits, n) : vec_load_int8(digits), vec_set1(unit),
                      sum);
    }
    return vec_fma(vec_set1(scale),
                   part ? vec_load_int8_part(high + at, n) : vec_load_int8(high + at),
                   vec_mul(vec_set1(scale / 256.0f), sum));
}

RV_INLINE void
from_planes(const int8_t *high, const int8_t *rest, size_t planes, float scale, float *out,
            size_t dim)
{
    float last[VEC_WIDTH];
    size_t i = 0;

    for (; i + VEC_WIDTH <= dim; i += VEC_WIDTH)
        vec_store(out + i, load_fixed(high, rest, planes, scale, dim, i, VEC_WIDTH, false));
    if (i == dim)
        return;
    vec_store(last, load_fixed(high, rest, planes, scale, dim, i, dim - i, true));
    for (size_t j = 0; i < dim; i++, j++)
        out[i] = last[j];
}

/* Two loops, of two planes and of three. */
static void
from_fixed(const int8_t *high, const int8_t *rest, uint32_t planes, float scale, float *out,
           uint32_t dim)
{
    if (planes == 2)
        from_planes(high, rest, 2, scale, out, dim);
    else
        from_planes(high, rest, 3, scale, out, dim);
}

const rv_kernels RV_LEVEL_TABLE = {
    .level = RV_LEVEL,
    .name = RV_LEVEL_NAME,
    .l2_squared = l2_squared,
    .inner_product = inner_product,
    .l1 = l1,
    .cosine = cosine,
    .l2_squared_tile = l2_squared_tile,
    .inner_product_tile = inner_product_tile,
    .l1_tile = l1_tile,
    .l2_squared_half = l2_squared_half,
    .inner_product_half = inner_product_half,
    .l1_half = l1_half,
    .l2_squared_int8 = l2_squared_int8,
    .inner_product_int8 = inner_product_int8,
    .l1_int8 = l1_int8,
    .dot_codes = dot_codes,
    .dot_wides_tile = dot_wides_tile,
    .to_half = to_half,
    .from_half = from_half,
    .to_wide = to_wide,
    .from_fixed = from_fixed,
};
