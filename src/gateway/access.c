/* Who may ask: the API key, and, where there is none, only pages of this host.
 *
 * Without a key the server listens on loopback only. A web page elsewhere could still make the user's browser send
 * requests here (cross-site requests), or have its own name point to 127.0.0.1 (DNS rebinding): so the Host must be a
 * loopback name, and an Origin, which browsers add, must be of the same host.
 */
#include "gateway/private.h"

bool access_needs_key(const struct gateway *g)
{
    return g->options.api_key || g->options.keys;
}

/* Compared by hash, to the last byte whatever the key: the time it takes tells the credential's length, nothing else.
 */
static bool try_credential(const struct gateway *g, struct str given, const struct client **client)
{
    uint8_t digest[SHA256_BYTES];
    if (!given.len || !sha256_of(digest, given))
        return false;
    bool good = g->options.api_key && digest_equal(digest, g->key_digest);
    const struct client *found = g->options.keys ? keys_find(g->options.keys, digest) : NULL;
    *client = found ? found : *client;
    return good || found;
}

bool access_key(const struct gateway *g, struct http_exchange *x, struct refusal *why)
{
    const struct http1 *r = http_request(x);
    const struct client *client = NULL;
    if (!access_needs_key(g))
        return true;
    struct str bearer = http1_header(r, "authorization"), given = http1_header(r, "x-api-key");
    bool is_bearer = bearer.len > 7 && str_eq_nocase(str_n(bearer.ptr, 7), STR("bearer "));
    bool good = false;
    if (is_bearer)
        good |= try_credential(g, str_trim(str_from(bearer, 7)), &client);
    if (given.ptr && !good)
        good |= try_credential(g, given, &client);
    x->client = client;
    if (good)
        return true;
    return refuse(why, 401, "invalid_api_key", NULL,
                  is_bearer || given.ptr ? "the API key is wrong"
                                         : "an API key is needed: send the header Authorization: Bearer KEY");
}

bool access_admin(const struct gateway *g, const struct client *client, struct refusal *why)
{
    if (!g->options.keys || (client && __atomic_load_n(&client->admin, __ATOMIC_RELAXED)))
        return true;
    return refuse(why, 403, "forbidden", NULL,
                  "the key of %s may not change what is served: its entry in the file of API keys lacks admin: true",
                  client ? client->name : "--api-key");
}

/* "localhost:8080" -> "localhost", "[::1]:8080" -> "[::1]" */
static struct str host_name(struct str authority)
{
    size_t n = 0;
    if (authority.len && authority.ptr[0] == '[')
        while (n < authority.len && authority.ptr[n] != ']')
            n++;
    while (n < authority.len && authority.ptr[n] != ':')
        n++;
    return str_n(authority.ptr, n);
}

static bool is_local_name(const struct gateway *g, struct str name)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq_nocase(name, str_of(names[i])))
            return true;
    return str_eq_nocase(name, str_of(g->options.host)) || str_ends(name, STR(".localhost"));
}

bool access_origin(const struct gateway *g, const struct http1 *r, struct refusal *why)
{
    struct str host = http1_header(r, "host"), origin = http1_header(r, "origin");
    if (access_needs_key(g))
        return true;
    if (host.ptr && !is_local_name(g, host_name(host)))
        return refuse(why, 403, NULL, NULL,
                      "the Host %.*s is not this machine's; without an API key only local names are "
                      "served",
                      STR_ARG(host));
    size_t scheme = str_find(origin, STR("://"), 0);
    if (origin.ptr && (scheme == SIZE_MAX || !is_local_name(g, host_name(str_from(origin, scheme + 3)))))
        return refuse(why, 403, NULL, NULL, "pages of %.*s may not use this server without an API key",
                      STR_ARG(origin));
    return true;
}
