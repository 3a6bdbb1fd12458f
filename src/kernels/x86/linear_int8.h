/* linear_int8 - forward products of panels in blocks of 32 with int8 activations; included once for each set */
#include "kernels/block32.h"
#include "kernels/x86/linear_int8_items.h"

/* How a type is stored in its panel (block32.h). */
struct format {
    enum dtype type;
    int bits; /* of the weights once unpacked, unsigned; 8 bits without VNNI: signed */
    int zero; /* what stands for zero among them */
    enum { Q_BYTES, Q_NIBBLES, Q_FIFTH, Q_TABLE } quants; /* nibbles; and a plane of fifth bits; or and a table */
    const int8_t *table;
};
/* Where a group of a panel's outputs begins within a line of quants, of scales. */
enum { GROUP_QUANTS = 64 / PANEL_GROUPS };
#define GROUP_SCALES(f) ((f).type == DT_MXFP4 ? VEC : 2 * VEC)

/* A block's weights for one group; quants: at the group's first output. */
INLINE void block_load(const struct format f, vi w[WORDS], const char *quants)
{
    if (f.quants == Q_BYTES) {
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = vi_load(quants + i * 64);
#ifndef __AVX512VNNI__
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = vi_xor(w[i], V(set1_epi32)((int)0x80808080));
#endif
        return;
    }
    const vi low = V(set1_epi32)(0x0f0f0f0f);
    UNROLL for (int i = 0; i < WORDS / 2; i++)
    {
        vi both = vi_load(quants + i * 64);
        w[2 * i] = vi_and(both, low);
        w[2 * i + 1] = vi_and(V(srli_epi16)(both, 4), low);
    }
    if (f.quants == Q_FIFTH) {
        const vi fifth = V(set1_epi32)(0x10101010);
        vi plane = vi_load(quants + WORDS / 2 * 64);
        UNROLL for (int i = 0; i < WORDS; i++)
        {
            vi bit = i <= 4 ? V(slli_epi16)(plane, 4 - i) : V(srli_epi16)(plane, i - 4);
            w[i] = vi_or(w[i], vi_and(bit, fifth));
        }
    }
    if (f.quants == Q_TABLE) {
        const vi table = vi_table(f.table);
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = V(shuffle_epi8)(table, w[i]);
    }
}

INLINE vf scale_load(const struct format f, const char *scales)
{
    if (f.type != DT_MXFP4)
        return vf_half(scales);
    /* 2^(e-128); the two smallest are subnormal, which compute threads take as zero */
    vi e = V(sub_epi32)(V(slli_epi32)(vi_widen8(scales), 23), V(set1_epi32)(0x00800000));
    return vf_castsi(V(max_epi32)(e, V(set1_epi32)(0)));
}

INLINE enum extra format_extra(const struct format f)
{
    return block32_has_min(f.type) ? MINS : block32_has_zeros(f.type) ? ZEROS : NONE;
}

INLINE struct side side_load(const struct format f, const char *scales)
{
    struct side side = {.d = scale_load(f, scales)};
    if (block32_has_min(f.type))
        side.x[0] = vi_castps(vf_half(scales + 2 * LANES));
    if (block32_has_zeros(f.type))
        side.x[0] = vi_widen16(scales + 2 * LANES);
    return side;
}

/* A whole panel straight from memory past R rows. One and two rows need no prefetch: the panel is one stream, and
 * requests of our own only fill the queue of misses. More rows compute so long that the stream stalls without them, and
 * unpacking five bits fills the processor's window. GB/s with n_in 4864 on one thread of a Zen 4 EPYC that reads 30,
 * 2026-11; bytes ahead, for 1, 2, 4, 8 rows:
 *   Q8_0  none 31, 27, 23, 14   2048 27, 23, 20, 17   8192 25, 24, 21, 15
 *   Q4_0  none 32, 21, 14,  7   2048 23, 20, 17, 11   8192 26, 23, 17, 11
 *   Q5_0  none 20, 19, 16,  8    512 25, 21, 16,  9   8192 19, 19, 17, 12 */
INLINE int prefetch_ahead(const struct format f, const int R)
{
    if (f.quants == Q_BYTES)
        return R > 4 ? 2048 : 0;
    return R > 2 ? 8192 : f.bits == 5 ? 512 : 0;
}

INLINE void tile_few(const struct int8_tile *t, const struct format f, const int R)
{
    const enum extra extra = format_extra(f);
    struct act_int8 a = t->a;
    vf acc[R_FEW][G_MAX];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int g = 0; g < PANEL_GROUPS; g++) acc[r][g] = V(setzero_ps)();
    for (int64_t b = 0; b < t->n_block; b++) {
        struct side side[G_MAX];
        vi w[G_MAX][WORDS];
        const char *quants = block32_quants(f.type, t->panel, b), *scales = block32_scales(f.type, t->panel, b);
        if (prefetch_ahead(f, R))
            UNROLL for (int i = 0; i < block32_quant_bytes(f.type); i += 64)
                _mm_prefetch(quants + prefetch_ahead(f, R) + i, _MM_HINT_T0);
        UNROLL for (int g = 0; g < PANEL_GROUPS; g++)
        {
            block_load(f, w[g], quants + g * GROUP_QUANTS);
            side[g] = side_load(f, scales + g * GROUP_SCALES(f));
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            vi sum[G_MAX];
            union start start[2];
            start_put(start, extra, f.zero, &a, r);
            UNROLL for (int g = 0; g < PANEL_GROUPS; g++) sum[g] = sum_start(extra, &side[g], start);
            block_dot(f.bits, PANEL_GROUPS, sum, w, a.q + r * BLOCK);
            row_step(extra, PANEL_GROUPS, acc[r], sum, side, a.scale[r], start);
        }
        a = act_int8_at(a, 1);
    }
    tile_end(t, 0, R, PANEL_GROUPS, acc);
}

/* n blocks of G_MANY groups, the first of them group `group` of the first panel. */
INLINE void chunk_unpack(const struct format f, struct chunk *c, const struct int8_tile *t, int group, int64_t block,
                         int64_t n)
{
    for (int g = 0; g < G_MANY; g++) {
        const int in_panel = (group + g) % PANEL_GROUPS;
        const char *panel = t->panel + (size_t)((group + g) / PANEL_GROUPS) * t->panel_bytes;
        if (t->n_valid <= g * VEC) /* beyond the last panel: what the chunk holds is never stored */
            return;
        for (int64_t b = 0; b < n; b++) {
            struct side side = side_load(f, block32_scales(f.type, panel, block + b) + in_panel * GROUP_SCALES(f));
            vi w[WORDS];
            block_load(f, w, block32_quants(f.type, panel, block + b) + in_panel * GROUP_QUANTS);
            chunk_put(c, g, b, f.bits, w);
            chunk_put_side(c, g, b, format_extra(f), &side);
        }
    }
}

/* ---- chunk tiles ---- */
MANY(8, 8, NONE)
#ifdef __AVX512VNNI__ /* one instruction for every width */
MANY(8m, 8, MINS)
MANY(8z, 8, ZEROS)
#define many_4  many_8
#define many_4m many_8m
#define many_4z many_8z
#define many_5  many_8
#define many_5m many_8m
#else
MANY(4, 4, NONE)
MANY(4m, 4, MINS)
MANY(4z, 4, ZEROS)
MANY(5, 5, NONE)
MANY(5m, 5, MINS)
#endif

/* ---- types ---- */
#ifdef __AVX512VNNI__
enum { ZERO_8 = 128 };
#else
enum { ZERO_8 = 0 }; /* signed */
#endif
static const int8_t iq4_table[16] = {/* iq4_values + ZERO_8, modulo 256 */
#define IQ4(v) (int8_t)((v) + ZERO_8 > 127 ? (v) + ZERO_8 - 256 : (v) + ZERO_8)
                                     IQ4(-127), IQ4(-104), IQ4(-83), IQ4(-65), IQ4(-49), IQ4(-35), IQ4(-22), IQ4(-10),
                                     IQ4(1),    IQ4(13),   IQ4(25),  IQ4(38),  IQ4(53),  IQ4(69),  IQ4(89),  IQ4(113)};
static const int8_t fp4_table[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0}; /* fp4_values + 12 */

FORMAT(q8_0, 8, 1, DT_Q8_0, 8, ZERO_8, Q_BYTES)
FORMAT(q4_0, 4, 1, DT_Q4_0, 4, 8, Q_NIBBLES)
FORMAT(q4_1, 4m, 1, DT_Q4_1, 4, 0, Q_NIBBLES)
FORMAT(q5_0, 5, 1, DT_Q5_0, 5, 16, Q_FIFTH)
FORMAT(q5_1, 5m, 1, DT_Q5_1, 5, 0, Q_FIFTH)
FORMAT(iq4_nl, 8, 1, DT_IQ4_NL, 8, ZERO_8, Q_TABLE, iq4_table)
FORMAT(mxfp4, 5, 1, DT_MXFP4, 5, 12, Q_TABLE, fp4_table)
FORMAT(q4_z, 4z, 1, DT_Q4_Z, 4, 1, Q_NIBBLES)
