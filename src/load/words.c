/* Common words: most tokenizers have each, with the blank before it, as one token. */
#include "load/load_private.h"

#include "base/rng.h"

static const char *const list[] = {
    "the",     "of",     "and",    "a",      "to",        "in",      "is",      "you",    "that",   "it",      "he",
    "was",     "for",    "on",     "are",    "as",        "with",    "his",     "they",   "at",     "be",      "this",
    "have",    "from",   "or",     "one",    "had",       "by",      "word",    "but",    "not",    "what",    "all",
    "were",    "we",     "when",   "your",   "can",       "said",    "there",   "use",    "an",     "each",    "which",
    "she",     "do",     "how",    "their",  "if",        "will",    "up",      "other",  "about",  "out",     "many",
    "then",    "them",   "these",  "so",     "some",      "her",     "would",   "make",   "like",   "him",     "into",
    "time",    "has",    "look",   "two",    "more",      "write",   "go",      "see",    "number", "no",      "way",
    "could",   "people", "my",     "than",   "first",     "water",   "been",    "call",   "who",    "oil",     "its",
    "now",     "find",   "long",   "down",   "day",       "did",     "get",     "come",   "made",   "may",     "part",
    "over",    "new",    "sound",  "take",   "only",      "little",  "work",    "know",   "place",  "year",    "live",
    "me",      "back",   "give",   "most",   "very",      "after",   "thing",   "our",    "just",   "name",    "good",
    "man",     "think",  "say",    "great",  "where",     "help",    "through", "much",   "before", "line",    "right",
    "too",     "mean",   "old",    "any",    "same",      "tell",    "boy",     "follow", "came",   "want",    "show",
    "also",    "around", "form",   "three",  "small",     "set",     "put",     "end",    "does",   "another", "well",
    "large",   "must",   "big",    "even",   "such",      "because", "turn",    "here",   "why",    "ask",     "went",
    "men",     "read",   "need",   "land",   "different", "home",    "us",      "move",   "try",    "kind",    "hand",
    "picture", "again",  "change", "off",    "play",      "spell",   "air",     "away",   "animal", "house",   "point",
    "page",    "letter", "mother", "answer", "found",     "study",   "still",   "learn",  "should",
};
enum { N_WORD = sizeof list / sizeof *list };
_Static_assert(N_WORD <= sizeof(((struct words *)0)->cost) / sizeof(double), "a cost for every word");

int words_count(void)
{
    return N_WORD;
}

const char *words_at(int i)
{
    return list[i];
}

/* Draws words while they fit; near the end, one that still does. */
static void words_write(const struct words *w, struct buf *out, double tokens, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed);
    double left = tokens;
    while (left >= 0.5) {
        int at = (int)rng_below(&r, N_WORD), tries = 0;
        while (w->cost[at] > left + 0.5 && tries++ < N_WORD)
            at = (at + 1) % N_WORD;
        if (w->cost[at] > left + 0.5)
            break; /* none is that short */
        buf_append_char(out, ' ');
        buf_append_str(out, str_of(list[at]));
        left -= w->cost[at];
    }
}

/* Shared prefix first, then blocks by number, then words of the request's own. */
void words_prompt(const struct words *w, struct buf *out, const struct load_item *item, uint64_t seed)
{
    double left = item->n_in - w->overhead;
    if (item->text.ptr) {
        buf_append_str(out, item->text);
        return;
    }
    if (item->n_shared > 0) {
        double n = item->n_shared < left ? item->n_shared : left;
        words_write(w, out, n, 1);
        left -= n;
    }
    for (int i = 0; i < item->n_block && left > 0; i++) {
        double n = item->block_tokens < left ? item->block_tokens : left;
        words_write(w, out, n, 0x100000000u + item->blocks[i]);
        left -= n;
    }
    words_write(w, out, left < 1 && out->len == 0 ? 1 : left, seed);
}
