/* draft - ids proposed for the next step to verify: the same ids come out as without, sooner
 *
 *   drafter_propose     before a step: puts ids behind those of sequences that decode, and sets n_draft
 *   drafter_forget      a sequence leaves
 *
 * Two sources: what followed the last time the newest three ids stood in this text (prompt or answer), else a small
 * model of the same vocabulary. The sampler's random numbers belong to positions (docs/numerics.md, section 6), so a
 * proposal is right when it is the id that the row before it draws, whatever the temperature.
 *
 * How many are worth it follows from measurements: how often proposals of this sequence were right, what a row adds to
 * a step (engine/cost.h), and what a draft model's step takes; of all proposals of a step, those are kept that give
 * most ids a second. A source that is never right is asked again now and then only, which costs less than 1 %.
 *
 * Owner: the engine thread
 */
#ifndef ENGINE_DRAFT_H
#define ENGINE_DRAFT_H

#include "engine/engine.h"
#include "engine/kv.h"

enum { DRAFT_NGRAM = 3, DRAFT_MODEL_ROWS = 256 }; /* rows: of a step, one a sequence not counted */
enum draft_source { DRAFT_LOOKUP, DRAFT_MODEL, DRAFT_SOURCES };

struct draft_state {           /* a sequence's */
    bool known, trial;         /* trial: proposed to see whether it is worth it now */
    float rate[DRAFT_SOURCES]; /* share of the last proposals that were right */
    int n_idle[DRAFT_SOURCES]; /* times in a row that a source was not worth asking, */
    int n_wait[DRAFT_SOURCES]; /* until it is asked nevertheless */
    enum draft_source source;
    int n_proposed, n_ids; /* by `source`, last time, behind so many ids; 0 = none */
    /* lookup: where the ids stood that hash to a slot; a later one takes the slot. 0 = nowhere. */
    int32_t *slots;
    uint32_t mask;
    int n_indexed;
    /* model: its own KV cache of this text */
    struct kv_blocks blocks;
    int n_done;
};

struct core;
struct drafter;
struct executor;
struct seq;
struct seq_list;
struct cost_model;
struct sampler_scratch;
/* model: the draft model's executor, or NULL for lookup alone; n_most: ids a proposal may have, 1 .. DRAFT_MAX. */
MUST_USE enum status drafter_create(struct drafter **out, const struct executor *model, int n_most, int max_sequences,
                                    struct error *err);
void drafter_destroy(struct drafter *d);
void drafter_propose(struct drafter *d, const struct seq_list *running, const struct cost_model *cost);
void drafter_forget(struct drafter *d, struct seq *s);

#endif
