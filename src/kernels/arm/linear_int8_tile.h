/* linear_int8_tile - R rows x 1 panel against blocks of 32 k with int8 activations, on NEON
 *
 * Included by the two families of formats, between `struct format` with its loads and its FORMAT() rows: block_at,
 * word_load and block_side. A block's weights come as eight words of 16 outputs x 4 k, made signed; each row brings
 * eight words of four activations. With the dot product instruction four products and their sum are one instruction;
 * without it they are a widening product and two pairwise sums. Integer sums are exact, the f32 steps are in the order
 * of ref.
 */
INLINE int32x4_t dot4(int32x4_t sum, int8x16_t w, int8x16_t x)
{
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, w, x);
#else
    int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x))); /* 2 x 128 x 127 needs more than 16 bits */
    int32x4_t hi = vpaddlq_s16(vmull_s8(vget_high_s8(w), vget_high_s8(x)));
    return vaddq_s32(sum, vpaddq_s32(lo, hi));
#endif
}

INLINE sum16 sum_zero(void)
{
    sum16 s;
    UNROLL for (int j = 0; j < 4; j++) s.q[j] = vdupq_n_s32(0);
    return s;
}

/* sum + a * n */
INLINE sum16 sum_add(sum16 sum, sum16 a, int32_t n)
{
    UNROLL for (int j = 0; j < 4; j++) sum.q[j] = vmlaq_n_s32(sum.q[j], a.q[j], n);
    return sum;
}
INLINE v16 sum_real(sum16 sum)
{
    v16 out;
    UNROLL for (int j = 0; j < 4; j++) out.q[j] = vcvtq_f32_s32(sum.q[j]);
    return out;
}

/* Words from .. to-1 of a block for R rows. */
INLINE void dot_words(const struct format f, sum16 sum[TILE_R], const uint8_t *block, const int8_t *q, const int R,
                      const int from, const int to)
{
    UNROLL for (int i = from; i < to; i++)
    {
        word16 w = word_load(f, block, i);
        UNROLL for (int r = 0; r < R; r++)
        {
            int32_t word;
            memcpy(&word, q + r * BLOCK + 4 * i, 4);
            int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(word));
            UNROLL for (int j = 0; j < 4; j++) sum[r].q[j] = dot4(sum[r].q[j], w.q[j], x);
        }
    }
}

/* The integers of a block: of 32 k, or of two halves with their scales. */
INLINE void block_dot(const struct format f, sum16 sum[TILE_R], const uint8_t *block, const struct side *side,
                      const struct act_int8 *a, const int R)
{
    UNROLL for (int r = 0; r < R; r++) sum[r] = sum_zero();
    if (format_extra(f) == ZEROS)
        UNROLL for (int r = 0; r < R; r++) sum[r] = sum_add(sum[r], side->x[0], a->minus[r]);
    if (!format_halves(f)) {
        dot_words(f, sum, block, a->q, R, 0, WORDS);
        return;
    }
    UNROLL for (int h = 0; h < 2; h++)
    {
        sum16 half[TILE_R];
        UNROLL for (int r = 0; r < R; r++) half[r] = sum_zero();
        dot_words(f, half, block, a->q, R, h * WORDS / 2, (h + 1) * WORDS / 2);
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < 4; j++) sum[r].q[j] =
            vmlaq_s32(sum[r].q[j], half[r].q[j], side->scale[h].q[j]);
    }
}

INLINE void row_step(const enum extra extra, v16 *acc, const sum16 *sum, const struct side *side,
                     const struct act_int8 *a, int r)
{
    const v16 s = v16_set(a->scale[r]);
    *acc = v16_fma(sum_real(*sum), v16_mul(side->d, s), *acc);
    if (extra == MINS)
        *acc = v16_fma(side->m, v16_set(a->scale[r] * (float)-a->minus[r]), *acc);
    if (extra == HALF_MINS) {
        sum16 minus = sum_add(sum_zero(), side->x[0], a->halves[2 * r]);
        minus = sum_add(minus, side->x[1], a->halves[2 * r + 1]);
        *acc = v16_fma(v16_mul(side->m, s), sum_real(minus), *acc);
    }
}

INLINE void tile(const struct format f, const struct linear_job *job, const int R, int64_t row, int64_t p)
{
    int64_t n_block = job->w->n_in / BLOCK, n_out = job->w->n_out, n0 = p * LANES;
    int n_valid = n_out - n0 < LANES ? (int)(n_out - n0) : LANES;
    const char *panel = panel_at(job->w, p);
    struct act_int8 a = act_int8_row(job->x, row);
    v16 acc[TILE_R];
    UNROLL for (int r = 0; r < R; r++) acc[r] = v16_zero();
    for (int64_t b = 0; b < n_block; b++) {
        const struct side side = block_side(f, panel, b);
        sum16 sum[TILE_R];
        block_dot(f, sum, block_at(f, panel, b), &side, &a, R);
        UNROLL for (int r = 0; r < R; r++) row_step(format_extra(f), &acc[r], &sum[r], &side, &a, r);
        a = act_int8_at(a, 1);
    }
    v16 bias = job->bias ? v16_load_n(job->bias + n0, n_valid) : v16_zero();
    UNROLL for (int r = 0; r < R; r++)
        v16_store_n(job->out + (row + r) * job->stride + n0, job->bias ? v16_add(acc[r], bias) : acc[r], n_valid);
}

INLINE void linear_int8(const struct format f, const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0,
                        int64_t panel1)
{
    for (int64_t p = panel0; p < panel1; p++)
        for (int64_t row = row0, next; row < row1; row = next) {
            next = (row / TILE_R + 1) * TILE_R; /* never across a tile of the activations */
            next = next < row1 ? next : row1;
            switch (next - row) {
            case 1:
                tile(f, job, 1, row, p);
                break;
            case 2:
                tile(f, job, 2, row, p);
                break;
            case 3:
                tile(f, job, 3, row, p);
                break;
            default:
                tile(f, job, 4, row, p);
            }
        }
}

#define FORMAT(name, ...)                                                                                              \
    void ISA(linear_##name)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)  \
    {                                                                                                                  \
        const struct format format = {__VA_ARGS__};                                                                    \
        linear_int8(format, job, row0, row1, panel0, panel1);                                                          \
    }
