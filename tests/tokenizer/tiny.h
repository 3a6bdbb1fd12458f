/* tiny - small whole tokenizer files of each format, for sweeps over every byte and bit */
#ifndef TESTS_TOKENIZER_TINY_H
#define TESTS_TOKENIZER_TINY_H

#include "base/str.h"
#include "tokenizer/tok.h"

static const char tiny_bpe[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":6,\"content\":\"<|e|>\",\"special\":true,\"normalized\":false},"
    "{\"id\":7,\"content\":\"  \",\"special\":false,\"lstrip\":true}],\"normalizer\":{\"type\":\"NFC\"},"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"post_processor\":null,"
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\",\"vocab\":{\"a\":0,\"b\":1,"
    "\"\xC4\xA0\":2,"
    "\"ab\":3,\"\xC4\xA0"
    "ab\":4,\"aba\":5},\"merges\":[\"a b\",[\"\xC4\xA0\",\"ab\"],\"ab a\"]}}";

static const char tiny_fallback[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],\"normalizer\":{\"type\":\"Sequence\","
    "\"normalizers\":["
    "{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" "
    "\"},\"content\":\"\xE2\x96\x81\"}]},"
    "\"pre_tokenizer\":null,\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\"}},"
    "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[0]}}},\"decoder\":{\"type\":\"Sequence\","
    "\"decoders\":["
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},\"content\":\" "
    "\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
    "{\"type\":\"Strip\",\"content\":\" "
    "\",\"start\":1,\"stop\":0}]},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"fuse_unk\":true,"
    "\"unk_token\":\"<s>\",\"vocab\":{\"<s>\":0,\"\xE2\x96\x81\":1,\"a\":2,\"<0xC3>\":3,\"<0xA9>\":4,\"\xE2\x96\x81"
    "a\":5},"
    "\"merges\":[\"\xE2\x96\x81 a\"]}}";

static const char tiny_unigram[] = "{\"added_tokens\":[],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{"
                                   "\"type\":\"NFKD\"},{\"type\":\"StripAccents\"},"
                                   "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAAAAAAA=\"}]},\"pre_"
                                   "tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
                                   "{\"type\":\"WhitespaceSplit\"},{\"type\":\"Metaspace\",\"replacement\":"
                                   "\"\xE2\x96\x81\",\"add_prefix_space\":true}]},"
                                   "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\"},\"model\":{"
                                   "\"unk_id\":0,\"vocab\":[[\"<unk>\",0.0],"
                                   "[\"\xE2\x96\x81\",-1.5],[\"a\",-2.5],[\"\xE2\x96\x81"
                                   "a\",-3],[\"ab\",-4.5]]}}";

static const char tiny_wordpiece[] =
    "{\"added_tokens\":[{\"id\":1,\"content\":\"[CLS]\",\"special\":true}],\"normalizer\":{\"type\":\"BertNormalizer\","
    "\"lowercase\":true},"
    "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"x\","
    "0],\"cls\":[\"[CLS]\",1]},"
    "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"type\":\"WordPiece\",\"unk_"
    "token\":\"[UNK]\","
    "\"max_input_chars_per_word\":9,\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"a\":2,\"##b\":3,\".\":4,\"##\":5}}}";

static const char tiny_tiktoken[] = "YQ== 0\nYg== 1\nIA== 2\nYWI= 3\nIGFi 4\n";

/* SentencePiece: <unk>, <s>, </s>, bytes, U+2581, a, U+2581 a, a user-defined [x]; unigram or BPE. */
static inline void tiny_piece(struct buf *out, const char *text, float score, int type)
{
    size_t n = strlen(text);
    buf_append_char(out, 0x0A);
    buf_append_char(out, (char)(2 + n + 5 + 2));
    buf_append_char(out, 0x0A);
    buf_append_char(out, (char)n);
    buf_append(out, text, n);
    buf_append_char(out, 0x15);
    buf_append(out, &score, 4);
    buf_append_char(out, 0x18);
    buf_append_char(out, (char)type);
}

static inline struct buf tiny_sentencepiece(int model_type)
{
    struct buf out = {0};
    tiny_piece(&out, "<unk>", 0, 2);
    tiny_piece(&out, "<s>", 0, 3);
    tiny_piece(&out, "</s>", 0, 3);
    tiny_piece(&out, METASPACE, -1, 1);
    tiny_piece(&out, "a", -2, 1);
    tiny_piece(&out, METASPACE "a", -2.5f, 1);
    tiny_piece(&out, "[x]", 0, 4);
    tiny_piece(&out, "<0xC3>", 0, 6);
    tiny_piece(&out, "<0xA9>", 0, 6);
    const unsigned char rest[] = {0x12, 5,  0x18, (unsigned char)model_type,
                                  0x98, 2,  1, /* trainer: type; 35: fallback */
                                  0x1A, 18, 0x12, 8,
                                  4,    0,  0,    0,
                                  0,    0,  0,    0,
                                  0x18, 1,  0x20, 1,
                                  0x28, 1,  0x40, 0};
    buf_append(&out, rest, sizeof rest);
    return out;
}

static inline struct buf tiny_llama2c(void)
{
    static const char *const tokens[] = {"<unk>", "\n<s>\n", "\n</s>\n", "<0xC3>", "<0xA9>", " ", "a", " a"};
    struct buf out = {0};
    int32_t longest = 7;
    buf_append(&out, &longest, 4);
    for (int i = 0; i < 8; i++) {
        float score = (float)-i;
        int32_t n = (int32_t)strlen(tokens[i]);
        buf_append(&out, &score, 4);
        buf_append(&out, &n, 4);
        buf_append(&out, tokens[i], (size_t)n);
    }
    return out;
}

enum { TINY_COUNT = 8 };
static inline struct buf tiny_file(int which, const char **name)
{
    static const char *const names[TINY_COUNT] = {"bpe.json",      "fallback.json", "unigram.json", "wordpiece.json",
                                                  "unigram.model", "bpe.model",     "tok.bin",      "gpt2.tiktoken"};
    struct buf out = {0};
    *name = names[which];
    switch (which) {
    case 0:
        buf_append(&out, tiny_bpe, sizeof tiny_bpe - 1);
        break;
    case 1:
        buf_append(&out, tiny_fallback, sizeof tiny_fallback - 1);
        break;
    case 2:
        buf_append(&out, tiny_unigram, sizeof tiny_unigram - 1);
        break;
    case 3:
        buf_append(&out, tiny_wordpiece, sizeof tiny_wordpiece - 1);
        break;
    case 4:
        out = tiny_sentencepiece(1);
        break;
    case 5:
        out = tiny_sentencepiece(2);
        break;
    case 6:
        out = tiny_llama2c();
        break;
    default:
        buf_append(&out, tiny_tiktoken, sizeof tiny_tiktoken - 1);
        break;
    }
    return out;
}

#endif
