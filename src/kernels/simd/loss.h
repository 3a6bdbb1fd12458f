/* loss - log-sum-exp, loss, optimizer, selection: one source for AVX2 and AVX-512 (docs/numerics.md sections 4, 8) */
#include "kernels/simd/lanes_fn.h"

INLINE float chunk_max(const float *x, int64_t n)
{
    vf m = vf_set(-INFINITY);
    for (int64_t i = 0; i < n; i += 16) /* a > b ? a : b with the new one first, so that NaN never stays */
        m = keep_until(i, n, v16_max(load_until(x, i, n), m), m);
    return v16_max_lane(m);
}

/* NaN is no maximum, so a chunk whose maximum is -inf may hold some: only one of nothing but -inf is left out. */
INLINE bool all_minus_infinity(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != -INFINITY)
            return false;
    return true;
}

INLINE vf divided_until(const float *x, int64_t i, int64_t n, bool divide, vf divisor)
{
    vf v = load_until(x, i, n);
    return divide ? vf_div(v, divisor) : v;
}

INLINE float lse_row(const float *row, int64_t count, bool divide, float divisor)
{
    const vf by = vf_set(divisor);
    float max = -INFINITY, sum = 0;
    bool empty = true;
    for (int64_t at = 0; at < count; at += LSE_CHUNK) {
        const float *x = row + at;
        int64_t n = count - at < LSE_CHUNK ? count - at : LSE_CHUNK;
        float m = chunk_max(x, n);
        m = divide ? m / divisor : m; /* rounding keeps the order */
        if (m == -INFINITY && all_minus_infinity(x, n))
            continue;
        vf total = v16_zero(), top_lanes = vf_set(m);
        for (int64_t i = 0; i < n; i += 16)
            total = keep_until(i, n, vf_add(total, vf_exp_down(vf_sub(divided_until(x, i, n, divide, by), top_lanes))),
                               total);
        float top = max > m ? max : m;
        sum = fmaf(v16_sum(total), exp_one(m - top), empty ? 0 : sum * exp_one(max - top));
        max = top;
        empty = false;
    }
    return max + v16_first_lane(vf_log(vf_set(sum)));
}

void ISA(lse_rows)(const void *ctx, int64_t row0, int64_t row1)
{
    const struct loss_job *job = ctx;
    for (int64_t r = row0; r < row1; r++)
        job->lse[r] = job->divisor > 0 ? lse_row(job->x + r * job->n, job->n, true, job->divisor)
                                       : lse_row(job->x + r * job->n, job->n, false, 0);
}

void ISA(loss_rows)(const void *ctx, int64_t row0, int64_t row1)
{
    const struct loss_job *job = ctx;
    for (int64_t r = row0; r < row1; r++) {
        const float *x = job->x + r * job->n;
        float *dx = job->dx ? job->dx + r * job->n : NULL;
        int32_t target = job->targets[r];
        if (target < 0) {
            job->loss[r] = 0;
            if (dx)
                memset(dx, 0, (size_t)job->n * sizeof *dx);
            continue;
        }
        float lse = lse_row(x, job->n, false, 0), target_dx = (exp_one(x[target] - lse) - 1) * job->scale;
        job->loss[r] = lse - x[target];
        for (int64_t i = 0; dx && i < job->n; i += 16)
            store_until(dx, i, job->n,
                        vf_mul(vf_exp_down(vf_sub(load_until(x, i, job->n), vf_set(lse))), vf_set(job->scale)));
        if (dx)
            dx[target] = target_dx;
    }
}

void ISA(adamw_range)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct adamw_job *job = ctx;
    const vf grad_scale = vf_set(job->grad_scale), keep1 = vf_set(job->keep1), keep2 = vf_set(job->keep2);
    const vf beta2 = vf_set(job->beta2), eps = vf_set(job->eps), v_scale = vf_set(job->v_scale);
    const vf step = vf_set(-job->step_size), decay = vf_set(job->decay);
    for (int64_t i = i0; i < i1; i += 16) {
        vf g = vf_mul(load_until(job->grad, i, i1), grad_scale), m = load_until(job->m, i, i1);
        m = vf_fma(keep1, vf_sub(g, m), m);
        vf v = vf_fma(vf_mul(keep2, g), g, vf_mul(beta2, load_until(job->v, i, i1)));
        store_until(job->m, i, i1, m);
        store_until(job->v, i, i1, v);
        vf quotient = vf_div(m, vf_fma(v16_sqrt(v), v_scale, eps));
        store_until(job->param, i, i1, vf_fma(step, quotient, vf_mul(load_until(job->param, i, i1), decay)));
    }
}

void ISA(squares_chunks)(const void *ctx, int64_t chunk0, int64_t chunk1)
{
    const struct squares_job *job = ctx;
    for (int64_t c = chunk0; c < chunk1; c++) {
        const float *x = job->x + c * SQUARES_CHUNK;
        int64_t left = job->count - c * SQUARES_CHUNK, n = left < SQUARES_CHUNK ? left : SQUARES_CHUNK, i = 0;
        v16d sum = v16d_zero();
        for (; i + 16 <= n; i += 16)
            sum = v16d_add_squares(sum, x + i);
        if (i < n) { /* squares are never -0: adding zeros changes nothing */
            float tail[16] = {0};
            memcpy(tail, x + i, (size_t)(n - i) * sizeof *tail);
            sum = v16d_add_squares(sum, tail);
        }
        job->sums[c] = v16d_sum(sum);
    }
}

int64_t ISA(find_above)(const float *x, int64_t i0, int64_t n, float limit)
{
    const vf bound = vf_set(limit);
    int64_t i = i0;
    for (; i + 64 <= n; i += 64) {
        unsigned any = 0;
        UNROLL for (int j = 0; j < 64; j += 16) any |= vm_bits(vf_lt(bound, v16_load(x + i + j)));
        if (any)
            break;
    }
    for (; i + 16 <= n; i += 16) {
        unsigned above = vm_bits(vf_lt(bound, v16_load(x + i)));
        if (above)
            return i + __builtin_ctz(above);
    }
    while (i < n && !(x[i] > limit))
        i++;
    return i;
}

bool ISA(row_maxima)(float *maxima, const float *x, int64_t n)
{
    const vf limit = vf_set(ROW_FINITE);
    unsigned finite = 0xffff;
    for (int64_t b = 0; b < n; b += ROW_BLOCK) {
        int64_t end = b + ROW_BLOCK < n ? b + ROW_BLOCK : n, i = b;
        vf top0 = vf_set(-INFINITY), top1 = top0;
        for (; i + 32 <= end; i += 32) {
            vf v = v16_load(x + i), w = v16_load(x + i + 16);
            top0 = v16_max(v, top0), top1 = v16_max(w, top1);
            finite &= vm_bits(vf_ge(limit, vf_abs(v))) & vm_bits(vf_ge(limit, vf_abs(w)));
        }
        for (; i < end; i += 16) {
            vf v = load_until(x, i, end); /* absent elements are zero here, and left out of the maximum */
            top0 = keep_until(i, end, v16_max(v, top0), top0);
            finite &= vm_bits(vf_ge(limit, vf_abs(v)));
        }
        maxima[b / ROW_BLOCK] = v16_max_lane(v16_max(top0, top1));
    }
    return finite == 0xffff;
}

INLINE unsigned between(vf v, float low, float high)
{
    return vm_bits(vf_ge(v, vf_set(low))) & vm_bits(vf_lt(v, vf_set(high)));
}

/* Those of the vector at i that the bits name; room for a whole vector. Returns how many. */
INLINE int64_t take(struct candidate *out, const float *x, int64_t i, unsigned bits)
{
#ifdef __AVX512F__
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    __m512i ids = _mm512_maskz_compress_epi32((__mmask16)bits, _mm512_add_epi32(lane, _mm512_set1_epi32((int32_t)i)));
    __m512i logits = _mm512_maskz_compress_epi32((__mmask16)bits, _mm512_loadu_si512(x + i));
    _mm512_storeu_si512(out, _mm512_permutex2var_epi32(ids, first, logits));
    if (__builtin_popcount(bits) > 8)
        _mm512_storeu_si512(out + 8, _mm512_permutex2var_epi32(ids, second, logits));
#else
    int64_t n = 0;
    for (unsigned m = bits; m; m &= m - 1) {
        int64_t at = i + __builtin_ctz(m);
        out[n++] = (struct candidate){(int32_t)at, x[at]};
    }
#endif
    return __builtin_popcount(bits);
}

int64_t ISA(collect_from)(struct candidate *out, const float *x, int64_t i0, int64_t i1, float low, float high)
{
    int64_t n = 0, i = i0;
    for (; i + 64 <= i1; i += 64) {
        unsigned bits[4], any = 0;
        UNROLL for (int j = 0; j < 4; j++) any |= bits[j] = between(v16_load(x + i + 16 * j), low, high);
        if (any)
            UNROLL for (int j = 0; j < 4; j++) n += take(out + n, x, i + 16 * j, bits[j]);
    }
    for (; i < i1; i++)
        if (x[i] >= low && x[i] < high)
            out[n++] = (struct candidate){(int32_t)i, x[i]};
    return n;
}

double ISA(mass_between)(const float *x, int64_t i0, int64_t i1, const struct row_mass *m)
{
    const vf low = vf_set(m->low), high = vf_set(m->high), divisor = vf_set(m->divisor), zero = vf_set(m->zero);
    v16d sum = v16d_zero();
    for (int64_t i = i0; i < i1; i += 16) {
        vf v = load_until(x, i, i1);
        if (!between(v, m->low, m->high))
            continue;
        vf e = keep_until(i, i1, vf_exp_down(vf_sub(vf_div(v, divisor), zero)), v16_zero());
        e = vf_pick(vf_ge(v, low), vf_pick(vf_lt(v, high), e, v16_zero()), v16_zero());
        sum = v16d_add_masses(sum, e);
    }
    return v16d_sum(sum);
}
