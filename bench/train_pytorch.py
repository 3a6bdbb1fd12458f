#!/usr/bin/env python3
"""Training tokens per second, Ingot against PyTorch on the same model, in alternating runs (best of each).

    bench/train_pytorch.py build/release/ingot --tokenizer TOK --data TEXT [--threads 2] [--steps 4] [--rounds 3]

Both train models/storyteller/config.json in float32 on windows of 256 tokens, 16 a step, with AdamW and clipping. The
clock covers whole updates; loading, tokenizing and PyTorch's first step are excluded. Needs torch and transformers.
CPU seconds a token are printed too, because they bear a busy machine better than the wall clock.
"""
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK, BATCH = 256, 16


def run_torch(threads, steps):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.set_num_threads(threads)
    config = json.loads((ROOT / "models/storyteller/config.json").read_text())
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in config.items() if k not in ("architectures", "torch_dtype")}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    ids = torch.randint(0, 4096, (BATCH, BLOCK + 1))
    for step in range(steps + 1):
        if step == 1:
            wall, cpu = time.perf_counter(), time.process_time()
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).logits.reshape(-1, 4096), ids[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    tokens = steps * BATCH * BLOCK
    return tokens / (time.perf_counter() - wall), (time.process_time() - cpu) / tokens


def run_ingot(a):
    with tempfile.TemporaryDirectory() as out:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([a.ingot, "train", "pretrain", "--model", ROOT / "models/storyteller/config.json", "--tokenizer",
                        a.tokenizer, "--data", a.data, "--output_dir", out, "--block_size", str(BLOCK),
                        "--per_device_train_batch_size", str(BATCH), "--max_steps", str(a.steps), "--weight_decay", "0.1",
                        "--save_steps", "0", "--threads", str(a.threads)], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        last = json.loads((Path(out) / "metrics.jsonl").read_text().splitlines()[-1])
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return last["tokens_per_s"], cpu / last["tokens"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ingot")
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    ours, theirs = [], []
    for _ in range(a.rounds):
        ours.append(run_ingot(a))
        theirs.append(run_torch(a.threads, a.steps))
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    best = {n: (max(r[0] for r in rs), min(r[1] for r in rs)) for n, rs in (("ingot", ours), ("pytorch", theirs))}
    for n, (rate, seconds) in best.items():
        print(f"{n:8} {rate:8.0f} tokens/s   {seconds * 1e6:7.1f} CPU microseconds a token")
    print(f"{cpu}, {a.threads} threads; ingot / pytorch: {best['ingot'][0] / best['pytorch'][0]:.2f} by the clock, "
          f"{best['pytorch'][1] / best['ingot'][1]:.2f} by CPU time")


sys.exit(main())
