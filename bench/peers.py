#!/usr/bin/env python3
"""Ingot beside other engines: the same weights, one run, interleaved.

    bench/peers.py --ingot build/release/ingot MODEL.gguf ... [--threads 1,2] [--rounds 3] [--prompt 512] [--gen 128]
                   [--llama-bench PATH] [--ik-bench PATH] [--openvino PYTHON] [--json OUT]

Peers are optional and are named by the path of what runs them:
    --llama-bench  llama-bench of a native llama.cpp build
    --ik-bench     llama-bench of ik_llama.cpp (run with -rtr 1, its fastest setting)
    --openvino     a Python that has openvino_genai (it reads Qwen2 and Llama GGUF files: F16, Q8_0, Q4_0)
A round runs every engine once; medians over the rounds are printed, with the range. The read bandwidth and the peaks are
those `ingot bench` probes in each of its runs. "foreign" is the largest share of CPU time that other processes took
during any measurement: above 0.05 a figure is not worth much. A peer that cannot load a file is left out, and it is said.
"""
import argparse, json, os, re, statistics, subprocess, sys

OPENVINO = r'''
import json, sys
import numpy, openvino, openvino_genai as g
model, threads, prompt, gen = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
pipe = g.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
def once(first):
    # another prompt each time: the pipeline keeps the last one's keys and values
    ids = numpy.array([[(i * 7919 + first) % 30000 for i in range(prompt)]], dtype="int64")
    t = g.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
    m = pipe.generate(t, max_new_tokens=gen, ignore_eos=True, do_sample=False).perf_metrics
    return prompt / m.get_ttft().mean * 1000, 1000 / m.get_tpot().mean
once(13)
print(json.dumps(once(4711)))
'''


def busy():
    v = list(map(int, open("/proc/stat").readline().split()[1:9]))
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK")


def timed(command):
    """stdout, and the share of the CPU time spent meanwhile that was not the command's."""
    start, own = busy(), os.times()
    p = subprocess.run(command, capture_output=True, text=True)
    spent, now = busy() - start, os.times()
    mine = now.children_user - own.children_user + now.children_system - own.children_system
    if p.returncode:
        raise RuntimeError((p.stderr.strip().splitlines() or ["exit code %d" % p.returncode])[-1])
    return p.stdout, max(0.0, spent - mine) / max(spent, 1e-9)


def ingot(o, model, threads):
    out, foreign = timed([o.ingot, "bench", model, "--prompt", str(o.prompt), "--gen", str(o.gen), "--repeat", "1",
                          "--threads", str(threads), "--json"])
    j = json.loads(out)
    return j["prefill_tok_s"], j["decode_tok_s"], foreign, j


def llama_bench(path, extra=()):
    def run(o, model, threads):
        out, foreign = timed([path, "-m", model, "-p", str(o.prompt), "-n", str(o.gen), "-r", "1", "-t", str(threads),
                              "-o", "json", *extra])
        rows = json.loads(out[out.index("["):])
        return (next(r["avg_ts"] for r in rows if r["n_gen"] == 0), next(r["avg_ts"] for r in rows if r["n_prompt"] == 0),
                foreign, {})
    return run


def openvino(python):
    def run(o, model, threads):
        out, foreign = timed([python, "-c", OPENVINO, model, str(threads), str(o.prompt), str(o.gen)])
        return *json.loads(out.strip().splitlines()[-1]), foreign, {}
    return run


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("models", nargs="+")
    a.add_argument("--ingot", default="build/release/ingot")
    a.add_argument("--threads", default="1,2")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--prompt", type=int, default=512)
    a.add_argument("--gen", type=int, default=128)
    a.add_argument("--llama-bench")
    a.add_argument("--ik-bench")
    a.add_argument("--openvino")
    a.add_argument("--json")
    o = a.parse_args()
    engines = {"Ingot": ingot}
    if o.llama_bench:
        engines["llama.cpp"] = llama_bench(o.llama_bench)
    if o.ik_bench:
        engines["ik_llama.cpp"] = llama_bench(o.ik_bench, ("-rtr", "1"))
    if o.openvino:
        engines["OpenVINO"] = openvino(o.openvino)
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    print(f"{cpu.group(1) if cpu else 'processor unknown'}; prompt {o.prompt}, gen {o.gen}, medians of {o.rounds} (range)")
    print("| model | threads | engine | prefill tok/s | decode tok/s | Ingot's prefill x | decode x | foreign |")
    print("|---|---|---|---|---|---|---|---|")
    table, notes = [], []
    for model in o.models:
        for threads in map(int, o.threads.split(",")):
            seen = {name: [] for name in engines}
            for _ in range(o.rounds):
                for name, run in engines.items():
                    if seen[name] is None:
                        continue
                    try:
                        seen[name].append(run(o, model, threads))
                    except (RuntimeError, ValueError, StopIteration) as e:
                        notes.append(f"{name} on {os.path.basename(model)}: {e}")
                        seen[name] = None
            ours = seen["Ingot"]
            if not ours:
                break
            median = lambda rows, i: statistics.median(r[i] for r in rows)
            for name, rows in seen.items():
                if not rows:
                    continue
                cell = lambda i: f"{median(rows, i):.1f} ({min(r[i] for r in rows):.0f}-{max(r[i] for r in rows):.0f})"
                ratio = lambda i: "" if name == "Ingot" else f"{median(ours, i) / median(rows, i):.2f}"
                print(f"| {os.path.basename(model)} | {threads} | {name} | {cell(0)} | {cell(1)} | {ratio(0)} | {ratio(1)} "
                      f"| {max(r[2] for r in rows):.2f} |", flush=True)
                table.append({"model": os.path.basename(model), "threads": threads, "engine": name,
                              "prefill_tok_s": median(rows, 0), "decode_tok_s": median(rows, 1)})
            limit = lambda key: statistics.median(r[3][key] for r in ours)
            notes.append(f"{os.path.basename(model)}, {threads} threads: read {limit('read_gb_s'):.1f} GB/s, Ingot's decode "
                         f"{100 * limit('decode_bandwidth_share'):.0f} % of it; prefill {100 * limit('prefill_peak_share'):.0f} % "
                         f"of the {limit('peak_gop_s'):.0f} Gop/s peak of its type")
    print("\n".join(notes))
    if o.json:
        with open(o.json, "w") as f:
            json.dump(table, f, indent=1)


if __name__ == "__main__":
    sys.exit(main())
