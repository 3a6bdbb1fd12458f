#include "model/recipe.h"

enum when {
    ALWAYS,
    MORE_BITS,     /* the first and the last eighth of the layers, and every third between */
    FIRST_16TH,    /* of the layers */
    FIRST_8TH,     /* likewise */
    FIRST_8TH_IMX, /* with an importance matrix */
    FIRST_8TH_RAW, /* without one */
    FIRST_TWO,     /* layers */
    FIRST_FOUR,    /* layers */
    SHARED_KV,     /* four or more heads share keys and values */
    EIGHT_EXPERTS,
};
enum { QKV = W_COUNT, RULES = 6 }; /* QKV: the fused matrix */

struct rule { /* the first that holds is taken */
    uint8_t role, when;
    enum dtype type;
};
struct recipe {
    const char *name;
    enum dtype type;
    int file_type;
    struct rule rules[RULES]; /* ended by role W_NONE */
};

/* clang-format off */
static const struct recipe recipes[] = {
    {"q4_0", DT_Q4_0, 2, {{W_DOWN, FIRST_8TH_IMX, DT_Q4_1}}},
    {"q4_1", DT_Q4_1, 3, {{0}}},
    {"q5_0", DT_Q5_0, 8, {{W_DOWN, FIRST_8TH_IMX, DT_Q5_1}}},
    {"q5_1", DT_Q5_1, 9, {{0}}},
    {"q8_0", DT_Q8_0, 7, {{0}}},
    {"q2_k", DT_Q2_K, 10, {{W_V, SHARED_KV, DT_Q4_K}, {W_V, ALWAYS, DT_Q3_K}, {W_DOWN, ALWAYS, DT_Q3_K},
                           {W_O, EIGHT_EXPERTS, DT_Q5_K}, {W_O, ALWAYS, DT_Q3_K}}},
    {"q2_k_s", DT_Q2_K, 21, {{W_V, SHARED_KV, DT_Q4_K}, {W_DOWN, FIRST_8TH, DT_Q4_K}}},
    {"q3_k_s", DT_Q3_K, 11, {{W_O, EIGHT_EXPERTS, DT_Q5_K}}},
    {"q3_k_m", DT_Q3_K, 12, {{W_V, FIRST_TWO, DT_Q5_K}, {W_V, ALWAYS, DT_Q4_K}, {W_DOWN, FIRST_16TH, DT_Q5_K},
                             {W_DOWN, ALWAYS, DT_Q4_K}, {W_O, ALWAYS, DT_Q4_K}, {QKV, ALWAYS, DT_Q4_K}}},
    {"q3_k_l", DT_Q3_K, 13, {{W_V, ALWAYS, DT_Q5_K}, {W_DOWN, ALWAYS, DT_Q5_K}, {W_O, ALWAYS, DT_Q5_K},
                             {QKV, ALWAYS, DT_Q4_K}}},
    {"q4_k_s", DT_Q4_K, 14, {{W_V, FIRST_FOUR, DT_Q5_K}, {W_DOWN, FIRST_8TH, DT_Q5_K}, {W_O, EIGHT_EXPERTS, DT_Q5_K}}},
    {"q4_k_m", DT_Q4_K, 15, {{W_V, MORE_BITS, DT_Q6_K}, {W_DOWN, MORE_BITS, DT_Q6_K}, {W_O, EIGHT_EXPERTS, DT_Q5_K},
                             {QKV, ALWAYS, DT_Q5_K}}},
    {"q5_k_s", DT_Q5_K, 16, {{0}}},
    {"q5_k_m", DT_Q5_K, 17, {{W_V, MORE_BITS, DT_Q6_K}, {W_DOWN, MORE_BITS, DT_Q6_K}, {QKV, ALWAYS, DT_Q6_K}}},
    {"q6_k", DT_Q6_K, 18, {{0}}},
    {"iq4_nl", DT_IQ4_NL, 25, {{W_V, SHARED_KV, DT_Q5_K}, {W_DOWN, FIRST_8TH_RAW, DT_Q5_K},
                               {W_O, EIGHT_EXPERTS, DT_Q5_K}}},
    {"iq4_xs", DT_IQ4_XS, 30, {{W_V, SHARED_KV, DT_Q5_K}, {W_DOWN, FIRST_8TH_RAW, DT_Q5_K},
                               {W_O, EIGHT_EXPERTS, DT_Q5_K}}},
    {"mxfp4", DT_MXFP4, 38, {{0}}},
    {"f16", DT_F16, 1, {{0}}},
    {"bf16", DT_BF16, 32, {{0}}},
    {"f32", DT_F32, 0, {{0}}},
};
/* clang-format on */
static const struct rule eight_experts[] = {{W_V, EIGHT_EXPERTS, DT_Q8_0}, {W_K, EIGHT_EXPERTS, DT_Q8_0}, {0}};

const struct recipe *recipe_find(struct str name)
{
    static const char *const short_names[][2] = {{"q3_k", "q3_k_m"}, {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}};
    for (size_t i = 0; i < sizeof short_names / sizeof *short_names; i++)
        if (str_is(name, short_names[i][0]))
            name = str_of(short_names[i][1]);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (str_is(name, recipes[i].name))
            return &recipes[i];
    return NULL;
}

const char *recipe_name(int i)
{
    return (size_t)i < sizeof recipes / sizeof *recipes ? recipes[i].name : NULL;
}

int recipe_file_type(const struct recipe *r)
{
    return r->file_type;
}

static bool holds(enum when when, const struct recipe_ask *a)
{
    const struct model_config *c = a->config;
    int l = a->layer, eighth = c->n_layer / 8;
    switch (when) {
    case MORE_BITS:
        return l < eighth || l >= 7 * c->n_layer / 8 || (l - eighth) % 3 == 2;
    case FIRST_16TH:
        return l < c->n_layer / 16;
    case FIRST_8TH:
        return l < eighth;
    case FIRST_8TH_IMX:
        return l < eighth && a->imatrix;
    case FIRST_8TH_RAW:
        return l < eighth && !a->imatrix;
    case FIRST_TWO:
        return l < 2;
    case FIRST_FOUR:
        return l < 4;
    case SHARED_KV:
        return c->n_kv_head && c->n_head / c->n_kv_head >= 4;
    case EIGHT_EXPERTS:
        return c->n_expert == 8;
    default:
        return true;
    }
}

static bool rule_type(enum dtype *type, const struct rule *rules, int n, int role, const struct recipe_ask *ask)
{
    for (int i = 0; i < n && rules[i].role; i++)
        if (rules[i].role == role && holds((enum when)rules[i].when, ask)) {
            *type = rules[i].type;
            return true;
        }
    return false;
}

/* The type before its block is held against the row. */
static enum dtype wanted_type(const struct recipe *r, const struct recipe_ask *ask)
{
    enum dtype type = r->type;
    bool head = ask->role == W_HEAD || (ask->role == W_EMBED && ask->config->tied);
    int role = ask->fused_qkv                                             ? QKV
               : ask->role == W_EXPERT_DOWN || ask->role == W_SHARED_DOWN ? W_DOWN
                                                                          : (int)ask->role;
    if (!dtype_is_block(type) || ask->pure)
        return type;
    if (head)
        return ask->n_in % dtype_row(type)->block || type == DT_Q8_0 ? DT_Q8_0 : DT_Q6_K;
    if (!rule_type(&type, eight_experts, 2, role, ask))
        rule_type(&type, r->rules, RULES, role, ask);
    return type;
}

static enum dtype fallback(enum dtype t)
{
    switch (t) {
    case DT_IQ4_XS:
        return DT_IQ4_NL;
    case DT_Q2_K:
    case DT_Q3_K:
        return DT_Q4_0;
    case DT_Q4_K:
        return DT_Q5_0;
    case DT_Q5_K:
        return DT_Q5_1;
    case DT_Q6_K:
        return DT_Q8_0;
    default:
        return DT_F16;
    }
}

struct recipe_answer recipe_type(const struct recipe *r, const struct recipe_ask *ask)
{
    bool small = ask->vector || ask->role == W_ROUTER || ask->role == W_SHARED_ROUTER || ask->role == W_POSITION ||
                 ask->role == W_TYPE || ask->role == W_POOLER || ask->role == W_SCORE;
    if (small) /* little to gain, much to lose; engines expect them so */
        return (struct recipe_answer){DT_F32, DT_F32};
    enum dtype wanted = wanted_type(r, ask), type = wanted;
    while (ask->n_in % dtype_row(type)->block)
        type = fallback(type);
    return (struct recipe_answer){type, wanted};
}
