#!/usr/bin/env python3
"""Small valid inputs from which the fuzzers start, where no golden file serves (gguf 0.17+, numpy).

    tools/golden/fuzz_seeds.py        writes fuzz/seeds/{fuzz_model,fuzz_gguf_vocab}/*.gguf
"""
from pathlib import Path

import gguf, numpy as np

seeds = Path(__file__).resolve().parents[2] / "fuzz/seeds"
rng = np.random.default_rng(11)


def tokens_llama(w):
    pieces = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "\u2581", "a", "\u2581a", "b", "ab"]
    kinds = [2, 3, 3, 6, 6, 1, 1, 1, 1, 1]
    w.add_tokenizer_model("llama")
    w.add_token_list(pieces)
    w.add_token_scores([0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -1.5, -2.5, -3.0])
    w.add_token_types(kinds)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(True)
    w.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    return len(pieces)


def tokens_gpt2(w):
    pieces = ["a", "b", "\u0120", "ab", "\u0120ab", "<|e|>"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("llama-bpe")
    w.add_token_list(pieces)
    w.add_token_types([1, 1, 1, 1, 1, 3])
    w.add_token_merges(["a b", "\u0120 ab"])
    w.add_eos_token_id(5)
    return len(pieces)


def tokens_t5(w):
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", "a", "\u2581a"]
    w.add_tokenizer_model("t5")
    w.add_token_list(pieces)
    w.add_token_scores([0.0, 0.0, 0.0, -2.0, -3.0, -1.0])
    w.add_token_types([3, 3, 2, 1, 1, 1])
    w.add_eos_token_id(1)
    w.add_unk_token_id(2)
    return len(pieces)


def tokens_bert(w):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581a", "b", "\u2581."]
    w.add_tokenizer_model("bert")
    w.add_token_list(pieces)
    w.add_token_types([3, 2, 3, 3, 1, 1, 1])
    w.add_bos_token_id(2)
    w.add_eos_token_id(3)
    w.add_unk_token_id(1)
    return len(pieces)


def write(folder, name, arch, tokens, model=False, experts=0, bias=False):
    path = seeds / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    w = gguf.GGUFWriter(path, arch)
    vocab = tokens(w)
    if model:
        dim, heads, kv, ff, ctx = 8, 2, 1, 12, 16
        w.add_block_count(1)
        w.add_context_length(ctx)
        w.add_embedding_length(dim)
        w.add_feed_forward_length(ff)
        w.add_head_count(heads)
        w.add_head_count_kv(kv)
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_freq_base(10000.0)
        w.add_rope_dimension_count(dim // heads)
        if experts:
            w.add_expert_count(experts)
            w.add_expert_used_count(1)

        def put(name, *shape, type=np.float32):
            w.add_tensor(name, rng.normal(0, 0.3, shape).astype(type))

        put("token_embd.weight", vocab, dim, type=np.float16)
        put("output_norm.weight", dim)
        put("blk.0.attn_norm.weight", dim)
        put("blk.0.ffn_norm.weight", dim)
        for name, out in (("q", dim), ("k", dim // heads * kv), ("v", dim // heads * kv), ("output", dim)):
            put(f"blk.0.attn_{name}.weight", out, dim)
            if bias and name != "output":
                put(f"blk.0.attn_{name}.bias", out)
        if experts:
            put("blk.0.ffn_gate_inp.weight", experts, dim)
            put("blk.0.ffn_gate_exps.weight", experts, ff, dim)
            put("blk.0.ffn_up_exps.weight", experts, ff, dim)
            put("blk.0.ffn_down_exps.weight", experts, dim, ff)
        else:
            put("blk.0.ffn_gate.weight", ff, dim)
            put("blk.0.ffn_up.weight", ff, dim)
            put("blk.0.ffn_down.weight", dim, ff)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


write("fuzz_model", "llama.gguf", "llama", tokens_llama, model=True)
write("fuzz_model", "mixtral.gguf", "llama", tokens_llama, model=True, experts=2)
write("fuzz_model", "qwen2.gguf", "qwen2", tokens_gpt2, model=True, bias=True)
write("fuzz_gguf_vocab", "llama.gguf", "llama", tokens_llama)
write("fuzz_gguf_vocab", "gpt2.gguf", "llama", tokens_gpt2)
write("fuzz_gguf_vocab", "t5.gguf", "t5", tokens_t5)
write("fuzz_gguf_vocab", "bert.gguf", "bert", tokens_bert)
