#include "engine/engine_private.h"

/* Does held[0, end) end with the stop string, none of it before `from`? */
static bool ends_at(const struct stopper *s, size_t end, struct str stop)
{
    return end >= stop.len && memcmp(s->held.ptr + end - stop.len, stop.ptr, stop.len) == 0;
}

/* The stop string that completes at `end`; of several the longest, which began first. */
static int match_at(const struct stopper *s, size_t end)
{
    int best = -1;
    for (int i = 0; i < s->n_stop; i++)
        if (ends_at(s, end, s->stops[i]) && (best < 0 || s->stops[i].len > s->stops[best].len))
            best = i;
    return best;
}

/* Length of the longest end of the held text that some stop string begins with. */
static size_t open_prefix(const struct stopper *s)
{
    size_t longest = 0;
    for (int i = 0; i < s->n_stop; i++) {
        size_t most = s->stops[i].len - 1 < s->held.len ? s->stops[i].len - 1 : s->held.len;
        for (size_t n = most; n > longest; n--) /* bounded by what is held: a client's stop string may be megabytes */
            if (memcmp(s->held.ptr + s->held.len - n, s->stops[i].ptr, n) == 0)
                longest = n;
    }
    return longest;
}

static void drop_certain(struct stopper *s)
{
    s->held.len -= s->certain;
    if (s->held.len)
        memmove(s->held.ptr, s->held.ptr + s->certain, s->held.len);
    s->certain = 0;
}

int stop_feed(struct stopper *s, struct str text, struct str *out)
{
    drop_certain(s);
    size_t old = s->held.len; /* no stop string ends in here, or the last call had found it */
    buf_append_str(&s->held, text);
    int hit = -1;
    for (size_t end = old + 1; end <= s->held.len && hit < 0; end++)
        if ((hit = match_at(s, end)) >= 0)
            s->certain = end - s->stops[hit].len;
    if (hit < 0)
        s->certain = s->held.len - open_prefix(s);
    *out = (struct str){s->held.ptr, s->certain};
    return hit;
}

struct str stop_flush(struct stopper *s)
{
    drop_certain(s);
    s->certain = s->held.len;
    return buf_str(&s->held);
}
