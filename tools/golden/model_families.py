#!/usr/bin/env python3
"""Golden logits of every family: small models whose weights a formula gives, run by transformers on the CPU in f32.

Made with torch 2.x (CPU), transformers 5.23, safetensors, gguf, numpy. Run: python tools/golden/model_families.py
Writes tests/golden/model/families.json. No weights are stored: tests/model/test_families.c computes the same ones.

  number of tensor `name` at index i:  w = splitmix64(fnv1a64(name) + i * 0x9e3779b97f4a7c15)
  matrices   grid "q8": integers -127 .. 127, the first of every 32 in a row is -127;
             grid "q4": -8 .. 7, the first two of every 32 are -8 and 7; times a power of two.
             So f32, f16, bf16 and Q8_0 (or Q4_0 and Q4_1) all hold them exactly, and one golden serves all types.
  norms      1 + (w & 31 - 16) / 64        biases  (w & 255 - 128) / 1024
  ids        splitmix64(seed * 2^32 + i) % vocab

Per model: config.json, the tensors as transformers saves them with their GGUF names (by PyPI's gguf), logits of a few
positions; for some a simulation of rounded activations (bf16, or int8 per 32) over more than 1,000 positions: the root
mean square it causes, over the deviation of the logits; for some sampled gradients of the mean cross-entropy.
"""
import base64, contextlib, json, math, os, tempfile
import numpy as np, torch
from safetensors.torch import save_file, load_file
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
import gguf

torch.manual_seed(0)
torch.set_num_threads(1)
M64 = (1 << 64) - 1


def splitmix(x):
    x = x.astype(np.uint64)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def words(name, n):
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = ((h ^ c) * 0x100000001B3) & M64
    with np.errstate(over="ignore"):
        return splitmix(np.uint64(h) + np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def is_matrix(name, shape):
    return len(shape) >= 2


def weight(name, shape, grid, n_in):
    w = words(name, int(np.prod(shape)))
    if not is_matrix(name, shape):
        bias = ((w & np.uint64(255)).astype(np.float32) - 128) / 1024
        norm = 1 + ((w & np.uint64(31)).astype(np.float32) - 16) / 64
        return torch.from_numpy((bias if name.endswith(".bias") else norm).reshape(shape))
    column = np.arange(len(w)) % shape[-1]
    if grid == "q8":
        v = (w % np.uint64(255)).astype(np.float32) - 127
        v[column % 32 == 0] = -127
        k = round(math.log2(73 * math.sqrt(n_in) / 1.5))
    else:
        v = (w % np.uint64(16)).astype(np.float32) - 8
        v[column % 32 == 0] = -8
        v[column % 32 == 1] = 7
        k = round(math.log2(5 * math.sqrt(n_in) / 1.5))
    return torch.from_numpy((v * np.float32(2.0 ** -k)).reshape(shape)), k


def ids_of(seed, n, vocab):
    return (splitmix((np.uint64(seed) << np.uint64(32)) + np.arange(n, dtype=np.uint64)) % np.uint64(vocab)).astype(np.int64)


S = dict(vocab_size=257, num_hidden_layers=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2)
D100 = dict(S, hidden_size=100, num_attention_heads=5, num_key_value_heads=1, intermediate_size=172)
Q64 = dict(S, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96, head_dim=16)


def rope(**k):
    return dict(rope_scaling=k)


CASES = [
    ("llama", dict(D100, model_type="llama")),
    ("llama-tied-bias", dict(S, model_type="llama", hidden_size=192, num_attention_heads=3, num_key_value_heads=3,
                             intermediate_size=172, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    ("llama-d256", dict(S, model_type="llama", hidden_size=256, num_attention_heads=1, num_key_value_heads=1,
                        intermediate_size=43, num_hidden_layers=1)),
    ("llama-linear", dict(D100, model_type="llama", **rope(type="linear", factor=3.0))),
    ("llama-llama3", dict(D100, model_type="llama", rope_theta=500000.0,
                          **rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                 original_max_position_embeddings=24))),
    ("llama-yarn", dict(D100, model_type="llama",
                        **rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32))),
    ("llama-yarn-all", dict(D100, model_type="llama",
                            **rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=20.0,
                                   beta_slow=2.0, mscale=0.7, mscale_all_dim=1.3, truncate=False))),
    ("llama-yarn-attention", dict(D100, model_type="llama",
                                  **rope(rope_type="yarn", factor=2.0, original_max_position_embeddings=64,
                                         attention_factor=0.9))),
    ("llama-dynamic", dict(D100, model_type="llama", max_position_embeddings=24,
                           **rope(rope_type="dynamic", factor=2.0))),
    ("llama-longrope-short", dict(D100, model_type="llama",
                                  **rope(rope_type="longrope", factor=4.0, original_max_position_embeddings=64,
                                         short_factor=[1 + i / 10 for i in range(10)],
                                         long_factor=[2 + i / 2 for i in range(10)]))),
    ("llama-longrope-long", dict(D100, model_type="llama",
                                 **rope(rope_type="longrope", factor=4.0, original_max_position_embeddings=16,
                                        short_factor=[1 + i / 10 for i in range(10)],
                                        long_factor=[2 + i / 2 for i in range(10)]))),
    ("llama-parameters", dict(D100, model_type="llama",  # the newest spelling
                              rope_parameters=dict(rope_type="yarn", rope_theta=20000.0, factor=4.0,
                                                   original_max_position_embeddings=32))),
    ("smollm", dict(S, model_type="llama", hidden_size=72, num_attention_heads=9, num_key_value_heads=3,
                    intermediate_size=172, tie_word_embeddings=True, rope_theta=100000.0)),
    ("mistral", dict(S, model_type="mistral", hidden_size=160, num_attention_heads=2, num_key_value_heads=1,
                     head_dim=80, intermediate_size=172, sliding_window=7)),
    ("qwen2", dict(S, model_type="qwen2", hidden_size=192, num_attention_heads=2, num_key_value_heads=1,
                   intermediate_size=172, tie_word_embeddings=True)),
    ("qwen2-window", dict(D100, model_type="qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    ("qwen3", dict(S, model_type="qwen3", hidden_size=64, num_attention_heads=3, num_key_value_heads=1, head_dim=128,
                   intermediate_size=172)),
    ("gpt2", dict(model_type="gpt2", vocab_size=257, n_embd=60, n_layer=2, n_head=3, n_positions=64)),
    ("gpt2-untied", dict(model_type="gpt2", vocab_size=257, n_embd=100, n_layer=2, n_head=5, n_positions=64, n_inner=172,
                         activation_function="relu", tie_word_embeddings=False)),
    ("gpt_neox", dict(S, model_type="gpt_neox", hidden_size=160, num_attention_heads=2, intermediate_size=172,
                      rotary_pct=0.25)),
    ("gpt_neox-serial", dict(S, model_type="gpt_neox", hidden_size=100, num_attention_heads=5, intermediate_size=172,
                             rotary_pct=0.6, use_parallel_residual=False, rotary_emb_base=5000)),
    ("mixtral", dict(D100, model_type="mixtral", num_local_experts=4, num_experts_per_tok=2)),
    ("qwen2_moe", dict(D100, model_type="qwen2_moe", num_experts=6, num_experts_per_tok=2, moe_intermediate_size=44,
                       shared_expert_intermediate_size=52, mlp_only_layers=[1])),
    ("qwen3_moe", dict(D100, model_type="qwen3_moe", num_experts=8, num_experts_per_tok=3, moe_intermediate_size=44,
                       norm_topk_prob=True, head_dim=20)),
    # sizes whose rows hold whole blocks: every weight type
    ("llama-q8", dict(Q64, model_type="llama")),
    ("llama-q4", dict(Q64, model_type="llama")),
    ("qwen3-q8", dict(Q64, model_type="qwen3")),
    ("mixtral-q8", dict(Q64, model_type="mixtral", num_local_experts=4, num_experts_per_tok=2)),
    ("mixtral-q4", dict(Q64, model_type="mixtral", num_local_experts=4, num_experts_per_tok=2)),
    ("qwen2_moe-q8", dict(Q64, model_type="qwen2_moe", num_experts=6, num_experts_per_tok=2, moe_intermediate_size=64,
                          shared_expert_intermediate_size=32)),
]
GRADIENTS = {"llama-tied-bias", "qwen2_moe", "gpt2", "qwen3"}
N = 40
POSITIONS = [0, 1, 9, 25, 39]


# ---- GGUF names, by the package that writes such files ----
ARCHS = dict(llama="LLAMA", mistral="LLAMA", mixtral="LLAMA", qwen2="QWEN2", qwen3="QWEN3", gpt2="GPT2",
             gpt_neox="GPTNEOX", qwen2_moe="QWEN2MOE", qwen3_moe="QWEN3MOE")


def gguf_names(names, model_type, layers):
    table = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, ARCHS[model_type]), layers)
    out = {}
    for n in names:
        one = n
        parts = n.split(".experts.")
        if len(parts) == 2:  # experts are stacked: one name for all
            rest = parts[1].split(".")
            one = parts[0] + ".experts." + ".".join(rest[1:])
        found = table.get_name(one, try_suffixes=(".weight", ".bias"))
        if found is None:
            return dict.fromkeys(names)  # dense layers in between: GGUF cannot say that
        out[n] = found
    return out


# ---- the simulation: what rounding activations alone causes ----
def round_bf16(x):
    return x.to(torch.bfloat16).to(torch.float32)


def round_int8(x):
    shape = x.shape
    x = x.reshape(-1, 32)
    amax = x.abs().amax(dim=1, keepdim=True)
    q = torch.round(x * torch.where(amax > 0, 127 / amax, torch.zeros_like(amax)))
    return (q * (amax / 127)).reshape(shape)


ROUNDINGS = {"bf16": round_bf16, "int8": round_int8}


@contextlib.contextmanager
def rounded(model, rounding):
    """Every matrix product's input is rounded, but the router's (docs/numerics.md sections 1 and 5)."""
    fn, real_linear = ROUNDINGS[rounding], torch.nn.functional.linear
    routers = {id(p) for n, p in model.named_parameters()
               if n.endswith("gate.weight") or n.endswith("shared_expert_gate.weight")}

    def linear(x, w, b=None):
        return real_linear(x if id(w) in routers else fn(x), w, b)

    torch.nn.functional.linear = linear
    try:
        yield
    finally:
        torch.nn.functional.linear = real_linear


def simulate(model, rounding, prompts):
    exact = [model(p).logits for p in prompts]
    with rounded(model, rounding):
        other = [model(p).logits for p in prompts]
    a, b = torch.cat([e.reshape(-1) for e in exact]).double(), torch.cat([r.reshape(-1) for r in other]).double()
    return float(((a - b) ** 2).mean().sqrt() / a.std())


def router_margin(model, prompt):
    """The smallest gap between the last chosen and the first left expert's probability, over layers and tokens."""
    margins = []

    def hook(module, args, output):
        p = torch.softmax(output[0].float(), -1).sort(-1, descending=True)[0]
        margins.append(float((p[:, module.top_k - 1] - p[:, module.top_k]).min()))

    hooks = [m.register_forward_hook(hook) for m in model.modules() if type(m).__name__.endswith("TopKRouter")]
    model(prompt)
    for h in hooks:
        h.remove()
    return min(margins) if margins else 1.0


def prompts_for(model, vocab, kinds):
    """Seeds of 64 prompts of 17 tokens: 1,088 positions. Those whose routers come within 1e-3 of another choice, exact
    or rounded, are passed over: there one rounding more or less would decide."""
    seeds, prompts, seed = [], [], 1000
    while len(seeds) < 64:
        p = torch.from_numpy(ids_of(seed, 17, vocab))[None]
        margin = router_margin(model, p)
        for kind in kinds:
            with rounded(model, kind):
                margin = min(margin, router_margin(model, p))
        if margin > 1e-3:
            seeds.append(seed)
            prompts.append(p)
        seed += 1
        if seed > 20000:
            raise SystemExit("too few prompts with a router margin over 1e-3")
    return seeds, prompts


def b64(t):
    return base64.b64encode(t.detach().to(torch.float32).contiguous().numpy().tobytes()).decode()


def expert_views(name, grad):
    """In-memory stacks of experts -> the names they are saved under."""
    if name.endswith(".mlp.experts.gate_up_proj"):
        base, half = name[: -len("gate_up_proj")], grad.shape[1] // 2
        for e in range(grad.shape[0]):
            yield f"{base}{e}.gate_proj.weight", grad[e, :half]
            yield f"{base}{e}.up_proj.weight", grad[e, half:]
    elif name.endswith(".mlp.experts.down_proj"):
        base = name[: -len("down_proj")]
        for e in range(grad.shape[0]):
            yield f"{base}{e}.down_proj.weight", grad[e]
    else:
        yield name, grad


def gradients(model, ids):
    model.zero_grad()
    logits = model(ids).logits[0]
    torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]).backward()
    out, largest = {}, max(float(p.grad.abs().max()) for p in model.parameters())
    for name, p in model.named_parameters():
        for saved, g in expert_views(name, p.grad):
            at = (splitmix(words("sample " + saved, 12)) % np.uint64(g.numel())).astype(np.int64)
            out[saved] = [[int(i), float(g.reshape(-1)[i])] for i in at]
    return dict(largest=largest, samples=out)


def make(name, config):
    grid = "q4" if name.endswith("-q4") else "q8"
    with tempfile.TemporaryDirectory() as folder:
        cfg = AutoConfig.for_model(**json.loads(json.dumps(config)))
        cfg._attn_implementation = "eager"
        AutoModelForCausalLM.from_config(cfg, dtype=torch.float32).save_pretrained(folder)
        saved = load_file(os.path.join(folder, "model.safetensors"))
        tensors, listing = {}, []
        gnames = gguf_names(saved, config["model_type"], cfg.num_hidden_layers)
        for n, t in saved.items():
            shape = list(t.shape)
            entry = [n, shape, gnames[n]]
            if is_matrix(n, shape):
                turned = config["model_type"] == "gpt2" and (".attn.c_" in n or ".mlp.c_" in n)
                tensors[n], k = weight(n, shape, grid, shape[0] if turned else shape[-1])
                entry.append(k)
            else:
                tensors[n] = weight(n, shape, grid, 0)
            listing.append(entry)
        save_file({n: t.contiguous() for n, t in tensors.items()}, os.path.join(folder, "model.safetensors"), {"format": "pt"})
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                           output_loading_info=True)
        if info["missing_keys"] or info["unexpected_keys"]:
            raise SystemExit(f"{name}: {info}")
    model.eval()
    ids = torch.from_numpy(ids_of(7, N, 257))[None]
    with torch.no_grad():
        logits = model(ids).logits[0]
    case = dict(name=name, config=config, grid=grid, n_ctx=N if "dynamic" in name or "longrope" in name else 0,
                tensors=listing, positions=POSITIONS, deviation=float(logits.std()),
                logits=b64(logits[POSITIONS]))
    with torch.no_grad():
        if name.endswith("-q8") or name.endswith("-q4"):
            kinds = ["int8"] if grid == "q4" else ["bf16", "int8"]
            seeds, prompts = prompts_for(model, 257, kinds)
            case["rounding"] = {k: simulate(model, k, prompts) for k in kinds}
            case["seeds"] = seeds
        margin = router_margin(model, ids)
    if name in GRADIENTS:
        case["gradients"] = gradients(model, ids)
    print(f"{name}: deviation {case['deviation']:.3f} margin {margin:.2e} rounding {case.get('rounding')}", flush=True)
    return case


def main():
    cases = [make(n, c) for n, c in CASES]
    path = os.path.join(os.path.dirname(__file__), "../../tests/golden/model/families.json")
    with open(path, "w") as f:
        f.write('{"transformers": "%s", "n": %d, "cases": [\n' % (transformers.__version__, N))
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        f.write("\n]}\n")
    print(os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
