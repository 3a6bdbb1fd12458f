#!/usr/bin/env python3
"""How fast does one thread encode, beside Hugging Face's tokenizers and tiktoken, in one run?

  bench/tokenizer.py ../shared/data build/release/bench_tokenizer [rounds=3]

All texts of data/text (decompressed; Latin-1 files are turned into UTF-8), in chunks of about 64 KiB that end at line
ends, with the GPT-2, cl100k and Qwen2.5 vocabularies. Rounds take turns; each figure is the best one, in megabytes of
UTF-8 a second of CPU time. Opening vocabularies and reading files is not counted.
"""
import glob
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tiktoken  # noqa: E402
import tiktoken_ext.openai_public as public  # noqa: E402
import tokenizers  # noqa: E402
from tiktoken.load import load_tiktoken_bpe  # noqa: E402
from tokenizers import models, normalizers, pre_tokenizers  # noqa: E402

public.load_tiktoken_bpe = lambda *a, **k: {}
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def printable():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in keep]
    return {b: chr(b) for b in keep} | {b: chr(256 + i) for i, b in enumerate(others)}


def hf(vocab, merges, pattern, nfc):
    tok = tokenizers.Tokenizer(models.BPE(vocab, merges))
    if nfc:
        tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tok


def from_ranks(ranks):
    p = printable()
    text = {t: "".join(p[b] for b in t) for t in ranks}
    merges = []
    for t, _ in sorted(ranks.items(), key=lambda x: x[1]):
        cuts = [(t[:i], t[i:]) for i in range(1, len(t)) if t[:i] in ranks and t[i:] in ranks]
        merges += [(text[a], text[b]) for a, b in sorted(cuts, key=lambda c: (ranks[c[0]], ranks[c[1]]))]
    return {text[t]: r for t, r in ranks.items()}, merges


def to_ranks(vocab):
    back = {c: b for b, c in printable().items()}
    return {bytes(back[c] for c in t): i for t, i in vocab.items() if all(c in back for c in t)}


def encodings(root):
    spec = json.load(open(f"{root}/hf/gpt2.tokenizer.json"))["model"]["vocab"]
    del spec["<|endoftext|>"]
    yield ("gpt2", f"{root}/hf/gpt2.tokenizer.json", tokenizers.Tokenizer.from_file(f"{root}/hf/gpt2.tokenizer.json"),
           tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=to_ranks(spec), special_tokens={}))
    ranks = load_tiktoken_bpe(f"{root}/tiktoken/cl100k_base.tiktoken")
    yield ("cl100k", f"{root}/tiktoken/cl100k_base.tiktoken", hf(*from_ranks(ranks), CL100K, False),
           tiktoken.Encoding("cl100k", pat_str=public.cl100k_base()["pat_str"], mergeable_ranks=ranks, special_tokens={}))
    vocab = json.load(open(f"{root}/qwen2.5/vocab.json"))
    merges = [tuple(line.split(" ")) for line in open(f"{root}/qwen2.5/merges.txt").read().split("\n")
              if " " in line and not line.startswith("#version")]
    yield ("qwen2.5", f"{root}/qwen2.5", hf(vocab, merges, QWEN, True),
           tiktoken.Encoding("qwen2.5", pat_str=QWEN, mergeable_ranks=to_ranks(vocab), special_tokens={}))


def chunks(text):
    at = 0
    while at < len(text):
        end = at + 65536
        nl = text.find(b"\n", end) if end < len(text) else -1
        end = nl + 1 if nl >= 0 else len(text)
        yield text[at:end].decode()
        at = end


def rate(encode, parts, size):
    start = time.process_time()
    n = sum(len(encode(p)) for p in parts)
    return size / (time.process_time() - start) / 1e6, n


def main():
    data, program = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    text = b""
    for path in sorted(glob.glob(f"{data}/text/*.txt*")):
        raw = (lzma.open if path.endswith(".xz") else open)(path, "rb").read()
        try:
            raw.decode()
        except UnicodeDecodeError:
            raw = raw.decode("latin-1").encode()
        text += raw
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    print(f"{cpu}; tokenizers {tokenizers.__version__}, tiktoken {tiktoken.__version__}; {len(text)} bytes of text")
    parts = list(chunks(text))
    with tempfile.NamedTemporaryFile(suffix=".txt") as f:
        f.write(text)
        f.flush()
        for name, path, theirs, tik in encodings(f"{data}/tokenizers"):
            best, ids = {}, {}
            for _ in range(rounds):
                for who in ("ingot", "tiktoken", "tokenizers"):
                    if who == "ingot":
                        out = json.loads(subprocess.run([program, path, f.name], stdout=subprocess.PIPE, check=True).stdout)
                        r, n = out["mb_s"], out["ids"]
                    elif who == "tiktoken":
                        r, n = rate(tik.encode_ordinary, parts, len(text))
                    else:
                        r, n = rate(lambda s: theirs.encode(s, add_special_tokens=False).ids, parts, len(text))
                    best[who], ids[who] = max(best.get(who, 0), r), n
            print(f"{name:8} ingot {best['ingot']:6.1f}  tiktoken {best['tiktoken']:6.1f} ({best['ingot'] / best['tiktoken']:.1f}x)"
                  f"  tokenizers {best['tokenizers']:6.2f} ({best['ingot'] / best['tokenizers']:.1f}x) MB/s; ids {ids}", flush=True)


main()
