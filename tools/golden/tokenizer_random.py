#!/usr/bin/env python3
"""Random strings against the original tokenizers: PyPI's tokenizers 0.23.3, tiktoken 0.14.0 and sentencepiece 0.2.3.

  tools/golden/tokenizer_random.py golden ../shared/data tests/golden/tokenizer/random.jsonl        (60 strings a vocabulary)
  tools/golden/tokenizer_random.py compare ../shared/data build/release/ingot [count=100000] [name ...]

`compare` encodes and decodes `count` strings of code points assigned by Unicode 8 with each vocabulary, here and with
`ingot tokenize/detokenize --jsonl`, and prints what differs. Then it encodes every newer code point on its own, and
counts and lists those on which the two differ: there the originals differ among themselves, by their Unicode version.
Needs perl, whose Age property tells when a code point was assigned.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

HF = "gpt2 gpt_neox phi-2 roberta-base clip_base llama2 minicpm3 mistral03 phi-3 t5-small xlnet_base_cased " \
     "bert_base_cased gte".split()
SPM = "llama2 mistral03 mistral_v7 nai-t5 xlnet_base_cased test_model test_ja_model".split()
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def ages():
    """Code points assigned by Unicode 8, and those assigned later."""
    script = ('for my $c (0..0x10FFFF) { next if $c >= 0xD800 && $c <= 0xDFFF; my $s = chr($c); '
              'print $s =~ /\\p{In: 8.0}/ ? "o" : $s =~ /\\p{Assigned}/ ? "n" : "-", "$c\\n" }')
    old, new = [], []
    for line in subprocess.run(["perl", "-e", script], capture_output=True, text=True, check=True).stdout.split():
        if line[0] == "o":
            old.append(int(line[1:]))
        elif line[0] == "n":
            new.append(int(line[1:]))
    return old, new


def originals(data):
    """Yields name, our file, and functions text -> ids and ids -> text."""
    import sentencepiece
    import tiktoken
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers
    root = os.path.join(data, "tokenizers")

    def hf(tok):
        tok.no_truncation()
        tok.no_padding()
        return (lambda s: tok.encode(s, add_special_tokens=False).ids), \
               (lambda ids: tok.decode(ids, skip_special_tokens=False))
    for name in HF:
        path = f"{root}/hf/{name}.tokenizer.json"
        yield "hf/" + name, path, *hf(tokenizers.Tokenizer.from_file(path))
    path = f"{data}/models/tinystories-656k/tokenizer.json"
    yield "hf/tinystories-656k", path, *hf(tokenizers.Tokenizer.from_file(path))
    qwen = tokenizers.Tokenizer(models.BPE.from_file(f"{root}/qwen2.5/vocab.json", f"{root}/qwen2.5/merges.txt"))
    qwen.normalizer = normalizers.NFC()
    qwen.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(QWEN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    qwen.decoder = decoders.ByteLevel()
    yield "hf/qwen2.5", f"{root}/qwen2.5", *hf(qwen)

    from tiktoken.load import load_tiktoken_bpe
    import tiktoken_ext.openai_public as public
    public.load_tiktoken_bpe = lambda *a, **k: {}
    ranks = [("cl100k_base", "tiktoken/cl100k_base.tiktoken", public.cl100k_base()["pat_str"]),
             ("o200k_base", "tiktoken/o200k_base.tiktoken", public.o200k_base()["pat_str"]),
             ("llama4", "tiktoken/llama4.tiktoken", public.o200k_base()["pat_str"]),
             ("llama3", "llama3/tokenizer.model", LLAMA3)]
    for name, file, pattern in ranks:
        enc = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=load_tiktoken_bpe(f"{root}/{file}"),
                                special_tokens={})
        yield "tiktoken/" + name, f"{root}/{file}", enc.encode_ordinary, enc.decode
    for name in SPM:
        path = f"{root}/sentencepiece/{name}.model"
        sp = sentencepiece.SentencePieceProcessor(model_file=path)
        yield "sentencepiece/" + name, path, (lambda s, sp=sp: sp.encode(s)), (lambda ids, sp=sp: sp.decode(ids))


def strings(count, old, seed):
    """Random in many ways: single scripts, all code points, words with blanks, digits, contractions, marks."""
    r = random.Random(seed)
    blocks = [[c for c in old if lo <= c <= hi] for lo, hi in
              [(0, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0x10FF),
               (0x1100, 0x11FF), (0x1E00, 0x22FF), (0x2300, 0x2BFF), (0x3000, 0x30FF), (0x3400, 0x9FFF), (0xA000, 0xABFF),
               (0xAC00, 0xD7FF), (0xF900, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x10FFFF)]]
    words = "the of and a in to it's I'll we've HELLO World don't they're 'S 'Re x86_64 2024 12345 3.14 foo_bar() " \
            "http://a.b/c?d=e&f ... --- !!! ?! ``quoted'' naïve café Ünïcödé Straße Привет мир 你好世界 こんにちは 한국어 " \
            "नमस्ते مرحبا שלום ไทย 👍🏽 👨‍👩‍👧 🇩🇪🇫🇷 ½ ² Ⅷ ﬁ ＡＢＣ １２３".split()
    blanks = [" ", " ", " ", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2028", "   \n", "\u2581", "\u0085", "\u200b"]
    seen = set()
    while len(seen) < count:
        kind, parts = r.randrange(4), []
        for _ in range(r.randint(1, 24)):
            k = kind if r.random() < 0.7 else r.randrange(4)
            if k == 0:
                parts.append(chr(r.choice(old)))
            elif k == 1:
                block = r.choice(blocks)
                parts += [chr(r.choice(block)) for _ in range(r.randint(1, 8))]
            elif k == 2:
                parts.append(r.choice(words))
            else:
                parts.append("".join(r.choice("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789.,'-") for _ in range(r.randint(1, 9))))
            if r.random() < 0.5:
                parts.append(r.choice(blanks) * r.choice([1, 1, 1, 2, 5]))
        s = "".join(parts)
        if s not in seen:
            seen.add(s)
            yield s


def ingot(binary, command, model, rows):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
        f.flush()
        extra = ["--no-special"] if command == "tokenize" else []
        out = subprocess.run([binary, command, model, "--jsonl", "--file", f.name, *extra], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def compare(data, binary, count, only):
    old, new = ages()
    texts = list(strings(count, old, 7))
    failed = False
    for name, path, encode, decode in originals(data):
        if only and name not in only:
            continue
        want = [encode(s) for s in texts]
        got = ingot(binary, "tokenize", path, texts)
        back = ingot(binary, "detokenize", path, want)
        bad = [i for i in range(count) if got[i] != want[i]]
        bad_text = [i for i in range(count) if back[i] != decode(want[i])]
        single = [chr(c) for c in new] + ["a" + chr(c) + "b" for c in new]
        newer = [s for s, ids in zip(single, ingot(binary, "tokenize", path, single)) if ids != encode(s)]
        listed = sorted({ord(s) if len(s) == 1 else ord(s[1]) for s in newer})
        print(f"{name}: {count} strings, {len(bad)} differ, {len(bad_text)} decoded differ; "
              f"{len(new)} newer code points, {len(listed)} differ {ranges(listed)}", flush=True)
        for i in bad[:3]:
            print("   ", ascii(texts[i]), want[i], got[i])
        for i in bad_text[:3]:
            print("    decoded", want[i], ascii(decode(want[i])), ascii(back[i]))
        failed |= bool(bad or bad_text)
    return failed


def ranges(points):
    runs = []
    for c in points:
        if runs and runs[-1][1] == c - 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    return " ".join(f"{a:04X}" if a == b else f"{a:04X}-{b:04X}" for a, b in runs)


def golden(data, path):
    old, _ = ages()
    with open(path, "w", encoding="utf-8") as f:
        for n, (name, file, encode, decode) in enumerate(originals(data)):
            for s in strings(60, old, 1000 + n):
                ids = encode(s)
                f.write(json.dumps({"file": os.path.relpath(file, data), "text": s, "ids": ids, "decoded": decode(ids)},
                                   ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "golden":
        golden(sys.argv[2], sys.argv[3])
    else:
        args = sys.argv[4:]
        count = int(args.pop(0)) if args and args[0].isdigit() else 100000
        sys.exit(compare(sys.argv[2], sys.argv[3], count, args))
