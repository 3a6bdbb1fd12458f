/* beam - beam search over the engine's own requests
 *
 * Each step of the search asks for one token of every live beam, with the 2 x width likeliest ids. What the beams have
 * in common is found in the prefix cache, so a step costs about as much as one of so many answers; the numbers contract
 * makes the log-probabilities those of one long run. Scores as transformers has them: a beam's sum of
 * log-probabilities / its length ^ length_penalty; the end-of-text id counts in both.
 * Owner    the engine thread, after the first asks were submitted
 */
#ifndef ENGINE_BEAM_H
#define ENGINE_BEAM_H

#include "engine/engine_private.h"

/* What a search needs of its engine. */
struct beam_engine {
    struct engine *e;
    const struct executor *x;
    bool (*link)(struct engine *e, struct seq *s); /* into the inbox, whatever the queue; false: it shuts down */
    void (*end)(void *e, struct seq *s, const struct finish_event *end); /* s has ended; freed */
};
struct beams;
/* answers [n]: sequences of the same prompt, which engine.end ends; the prompt's best n continuations are theirs. */
MUST_USE enum status beams_create(struct beams **out, const struct beam_engine *engine, struct seq *const *answers,
                                  int n, const struct beam_options *o, struct error *err);
/* The first step, from any thread; from ST_OK on the search ends by itself and may be gone already. */
MUST_USE enum status beams_begin(struct beams *b, struct error *err);
void beams_destroy(struct beams *b);         /* one that has not begun; the answers are the caller's again */
bool beams_abandoned(const struct beams *b); /* all its answers were canceled: so are its asks, in whatever state */

#endif
