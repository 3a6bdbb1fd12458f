#include "tokenizer/tok.h"
#include "base/unicode.h"

#include <stdlib.h>

enum { N_TOK = 6 };

/* All 256 bytes and a few merges, split in each way; and a character vocabulary with byte fallback. */
static struct tokenizer *make(int which)
{
    static const char *const names[N_TOK] = {"gpt2.t", "cl100k_base.t", "o200k_base.t", "qwen.t", "llama3.t", ""};
    static const char *const merges[] = {"ab",   "abc",      "  ", "    ", "th", "the",
                                         " the", "\xC3\xA9", "aa", "aaaa", "''", "12"};
    static const char fallback[] = "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],\"normalizer\":"
                                   "{\"type\":\"Sequence\",\"normalizers\":["
                                   "{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},{\"type\":\"Replace\","
                                   "\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]},"
                                   "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
                                   "{\"String\":\"\xE2\x96\x81\"},\"content\":\" \"},"
                                   "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "
                                   "\",\"start\":1,\"stop\":0}]},\"model\":{"
                                   "\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"<s>\",\"merges\":["
                                   "\"\xE2\x96\x81 a\",\"a a\"],\"vocab\":{\"<s>\":0,"
                                   "\"\xE2\x96\x81\":1,\"a\":2,\"\xE2\x96\x81"
                                   "a\":3,\"aa\":4";
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf file = {0};
    struct tokenizer *tok;
    struct error err;
    int n_merge = (int)(sizeof merges / sizeof *merges);
    if (which == N_TOK - 1) {
        buf_append(&file, fallback, sizeof fallback - 1);
        for (unsigned b = 0; b < 256; b++)
            buf_printf(&file, ",\"<0x%02X>\":%u", b, 5 + b);
        buf_append_str(&file, STR("}}}"));
    }
    for (int i = 0; which < N_TOK - 1 && i < 256 + n_merge; i++) {
        char byte = (char)i;
        struct str s = i < 256 ? str_n(&byte, 1) : str_of(merges[i - 256]);
        for (size_t k = 0; k < s.len; k += 3) {
            unsigned v = 0;
            for (size_t j = 0; j < 3; j++)
                v = v << 8 | (k + j < s.len ? (unsigned char)s.ptr[k + j] : 0);
            for (unsigned j = 0; j < 4; j++)
                buf_append_char(&file, k + j <= s.len ? digits[v >> (18 - 6 * j) & 63] : '=');
        }
        buf_printf(&file, " %d\n", i);
    }
    if (file.failed || tok_open_bytes(&tok, buf_str(&file), names[which], NULL, &err) != ST_OK)
        abort();
    buf_free(&file);
    return tok;
}

/* decode(encode(x)) is x (made valid where it was not); pieces that are plain make no control token; the stream's
 * parts are whole characters and sum up to the whole. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *toks[N_TOK];
    for (int i = 0; i < N_TOK && !toks[i]; i++)
        toks[i] = make(i);
    if (size == 0)
        return 0;
    const struct tokenizer *tok = toks[data[0] % N_TOK];
    struct str text = str_n(data + 1, size - 1);
    struct error err;
    struct ids ids = {0}, plain = {0};
    struct buf out = {0}, parts = {0}, valid = {0};
    utf8_append_lossy(&valid, text);
    if (!tok->accepts_any_bytes)
        text = buf_str(&valid);
    struct text_piece piece = {text, true};
    if (tokenizer_encode(tok, &ids, text, TOKENIZE_SPECIAL, &err) != ST_OK ||
        tokenizer_encode_pieces(tok, &plain, &piece, 1, 0, &err) != ST_OK ||
        tokenizer_decode(tok, &out, plain.ids, plain.count, 0, &err) != ST_OK)
        abort();
    struct str want = buf_str(&valid);
    bool fallback = data[0] % N_TOK == N_TOK - 1;
    if (!fallback && !str_eq(buf_str(&out), want))
        abort();
    if (fallback && str_find(want, STR(METASPACE), 0) == SIZE_MAX && !str_eq(buf_str(&out), want))
        abort(); /* a written U+2581 comes back as a blank */
    for (size_t i = 0; i < plain.count; i++)
        if (tokenizer_is_special(tok, plain.ids[i]))
            abort();
    struct decoder d;
    decoder_init(&d, tok, 0);
    for (size_t i = 0; i < plain.count; i++) {
        decoder_next(&d, plain.ids[i], &parts);
        if (!utf8_valid(buf_str(&parts)))
            abort();
    }
    decoder_end(&d, &parts);
    if (!str_eq(buf_str(&parts), buf_str(&out)))
        abort();
    ids_free(&ids);
    ids_free(&plain);
    buf_free(&out);
    buf_free(&parts);
    buf_free(&valid);
    return 0;
}
