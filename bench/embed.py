#!/usr/bin/env python3
"""Texts a second: Ingot (bench_embed) and ONNX Runtime with the same weights, on the same ids, in turns.

    python bench/embed.py build/release/bench_embed FOLDER FILE [--threads 2] [--seconds 3] [--rounds 3] [--batch 32]

FOLDER is a Hugging Face encoder (tools/get-model minilm), FILE has one text a line. Needs onnxruntime, onnx, torch and
transformers to export the model when --onnx names no file that is there. ONNX Runtime gets its texts sorted by
length, in batches padded to their longest, mean pooling in numpy; its best batch size of those given counts. Both
clocks exclude loading and tokenizing.
"""
import argparse, os, statistics, subprocess, tempfile, time
import numpy as np


def export(folder, path):
    import torch
    from transformers import AutoModel
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state

    ids, names, axes = torch.ones(2, 9, dtype=torch.long), ["input_ids", "attention_mask", "token_type_ids"], {0: "b", 1: "n"}
    torch.onnx.export(Hidden(), (ids, torch.ones_like(ids), torch.zeros_like(ids)), path, dynamo=False, opset_version=17,
                      input_names=names, output_names=["hidden"], dynamic_axes={n: axes for n in names + ["hidden"]})


class Ort:
    def __init__(self, path, threads, ids):
        import onnxruntime as ort
        o = ort.SessionOptions()
        o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session, self.ids = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"]), sorted(ids, key=len)

    def embed(self, batch):
        out = []
        for i in range(0, len(self.ids), batch):
            rows = self.ids[i:i + batch]
            n = max(map(len, rows))
            x, mask = np.zeros((len(rows), n), np.int64), np.zeros((len(rows), n), np.int64)
            for k, r in enumerate(rows):
                x[k, :len(r)], mask[k, :len(r)] = r, 1
            h = self.session.run(None, dict(input_ids=x, attention_mask=mask, token_type_ids=np.zeros_like(x)))[0]
            v = (h * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            out.append(v / np.linalg.norm(v, axis=1, keepdims=True))
        return out

    def rate(self, batch, seconds):
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or not times:
            begin = time.perf_counter()
            self.embed(batch)
            times.append(time.perf_counter() - begin)
        return len(self.ids) / statistics.median(times)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("bench"), p.add_argument("folder"), p.add_argument("file")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seconds", type=float, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--batch", default="8,32")
    p.add_argument("--onnx", help="the exported model, made when it is not there (default: made for this run)")
    a = p.parse_args()
    temporary = tempfile.TemporaryDirectory()
    onnx = a.onnx or os.path.join(temporary.name, "model.onnx")
    if not os.path.exists(onnx):
        export(a.folder, onnx)
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(os.path.join(a.folder, "tokenizer.json"))
    t.no_padding(), t.enable_truncation(256)
    ids = [e.ids for e in t.encode_batch(open(a.file).read().splitlines()[:4096])]
    ort = Ort(onnx, a.threads, ids)
    ort.embed(32)
    for _ in range(a.rounds):
        print(subprocess.run([a.bench, a.folder, a.file, str(a.threads), str(a.seconds)], capture_output=True, text=True,
                             check=True).stdout.strip(), flush=True)
        print("ONNX Runtime: " + ", ".join(f"batch {b}: {ort.rate(int(b), a.seconds):.0f} texts/s" for b in a.batch.split(",")),
              flush=True)


main()
