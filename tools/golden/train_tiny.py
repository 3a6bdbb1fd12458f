#!/usr/bin/env python3
"""Ten updates of a tiny Llama in PyTorch, float64: what the trainer is held against (torch 2.x, transformers 5.x).

    tools/golden/train_tiny.py        writes tests/golden/train/

The model is written out here in float64, because transformers' norm and softmax compute in float32; its first loss is
compared with transformers' own in float32. Rotary angles are the float32 products that transformers uses.

tiny/              config.json, model.safetensors: the start (F32)
run.safetensors    windows I32 [steps, windows, block + 1]; loss, norm (before clipping), lr F64 [steps];
                   lr.KIND F64 [steps] of transformers' schedulers, 3 updates of warm-up;
                   grad.NAME of the first update, final.NAME after the last, both F64
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup, get_scheduler

out = Path(__file__).resolve().parents[2] / "tests/golden/train"
torch.manual_seed(11)
STEPS, WINDOWS, BLOCK = 10, 4, 12
config = LlamaConfig(vocab_size=37, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-5, rope_theta=10000.0,
                     initializer_range=0.2, tie_word_embeddings=False, attn_implementation="eager")
model = LlamaForCausalLM(config)
with torch.no_grad():
    for n, p in model.named_parameters():
        if "norm" in n:
            p += 0.1 * torch.randn_like(p)
(out / "tiny").mkdir(parents=True, exist_ok=True)
model.save_pretrained(out / "tiny")
(out / "tiny/generation_config.json").unlink(missing_ok=True)

p = {n: torch.nn.Parameter(v.detach().double()) for n, v in model.named_parameters()}
d_head = 4
inv_freq = 1.0 / (10000.0 ** (torch.arange(0, d_head, 2).float() / d_head))
angle = (torch.arange(BLOCK).float()[:, None] * inv_freq).double()
cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
mask = torch.full((BLOCK, BLOCK), float("-inf"), dtype=torch.float64).triu(1)


def norm(x, w):
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def rope(x):
    half = torch.cat([-x[..., d_head // 2:], x[..., :d_head // 2]], -1)
    return x * cos + half * sin


def forward(ids):
    x = p["model.embed_tokens.weight"][ids]
    b, n, _ = x.shape
    for i in range(2):
        l = f"model.layers.{i}."
        h = norm(x, p[l + "input_layernorm.weight"])
        q, k, v = ((h @ p[f"{l}self_attn.{c}_proj.weight"].T).view(b, n, -1, d_head).transpose(1, 2) for c in "qkv")
        q, k = rope(q), rope(k).repeat_interleave(2, 1)
        a = torch.softmax(q @ k.transpose(-1, -2) / d_head ** 0.5 + mask, -1) @ v.repeat_interleave(2, 1)
        x = x + a.transpose(1, 2).reshape(b, n, -1) @ p[l + "self_attn.o_proj.weight"].T
        h = norm(x, p[l + "post_attention_layernorm.weight"])
        gate, up = h @ p[l + "mlp.gate_proj.weight"].T, h @ p[l + "mlp.up_proj.weight"].T
        x = x + (torch.nn.functional.silu(gate) * up) @ p[l + "mlp.down_proj.weight"].T
    return norm(x, p["model.norm.weight"]) @ p["lm_head.weight"].T


def loss_of(logits, windows):
    return torch.nn.functional.cross_entropy(logits.reshape(-1, 37), windows[:, 1:].reshape(-1))


windows = torch.randint(0, 37, (STEPS, WINDOWS, BLOCK + 1))
windows[:, :, 1::3] = windows[:, :, 0:1]  # something to learn
with torch.no_grad():
    theirs = loss_of(model(windows[0][:, :-1]).logits, windows[0])
    ours = loss_of(forward(windows[0][:, :-1]), windows[0])
    assert abs(theirs.item() - ours.item()) < 1e-5, (theirs, ours)
groups = [{"params": [v for v in p.values() if v.dim() == 2], "weight_decay": 0.1},
          {"params": [v for v in p.values() if v.dim() == 1], "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
schedule = get_cosine_schedule_with_warmup(optimizer, 3, STEPS)
run = {"windows": windows.int()}
losses, norms, lrs = [], [], []
for step in range(STEPS):
    optimizer.zero_grad()
    loss = loss_of(forward(windows[step][:, :-1]), windows[step])
    loss.backward()
    if step == 0:
        run |= {"grad." + n: v.grad.clone() for n, v in p.items()}
    norms.append(torch.nn.utils.clip_grad_norm_(p.values(), 1.0).item())
    losses.append(loss.item())
    lrs.append(schedule.get_last_lr()[0])
    optimizer.step()
    schedule.step()
run |= {"final." + n: v.detach().clone() for n, v in p.items()}
for n, v in (("loss", losses), ("norm", norms), ("lr", lrs)):
    run[n] = torch.tensor(v, dtype=torch.float64)
for kind in ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_min_lr"):
    o = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    extra = {"min_lr_rate": 0.1} if kind == "cosine_with_min_lr" else {}
    sched = get_scheduler(kind, o, num_warmup_steps=3, num_training_steps=STEPS, scheduler_specific_kwargs=extra)
    rates = []
    for _ in range(STEPS):
        rates.append(sched.get_last_lr()[0])
        o.step()
        sched.step()
    run["lr." + kind] = torch.tensor(rates, dtype=torch.float64)
save_file({k: v.contiguous() for k, v in run.items()}, out / "run.safetensors")
print(losses, norms, lrs)

# ---- a tokenizer with as many ids as the model has: letters, two merges, an end of text ----
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

pieces = ["<eos>"] + list("abcdefghijklmnopqrstuvwxyz") + ["\u0120", "\u010a", ".", ",", "'", "!", "-", "th", "he", "the"]
assert len(pieces) == 37
tok = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[("t", "h"), ("th", "e"), ("h", "e")]))
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tok.decoder = decoders.ByteLevel()
tok.add_special_tokens([AddedToken("<eos>", special=True)])
tok.save(str(out / "tiny/tokenizer.json"))
(out / "tiny/tokenizer_config.json").write_text(json.dumps(
    {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "model_max_length": 32}, indent=1) + "\n")
text = "the cat sat on the mat, and then the other cat sat there too.\nit was warm - the hat was not.\n"
print(tok.encode(text).ids)
