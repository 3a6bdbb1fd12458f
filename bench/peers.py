#!/usr/bin/env python3
"""Ingot beside other engines: the same weights, one run, interleaved.

    bench/peers.py MODEL.gguf ... [--threads 1,2] [--rounds 3] [--prompt 512] [--gen 128] [--json OUT] [peers' paths]

Peers are optional; each is named by the path of what runs it, on the command line or in the environment:
    --llama-cpp  INGOT_LLAMA_CPP  folder with llama-bench (and llama-server, llama-perplexity) of a native llama.cpp build
    --ik-bench   INGOT_IK_BENCH   llama-bench of ik_llama.cpp (run with -rtr 1, its fastest setting)
    --openvino   INGOT_OPENVINO   a Python that has openvino_genai (it reads Qwen2 and Llama GGUF files: F16, Q8_0, Q4_0)
    --ort        INGOT_ORT        a Python that has onnxruntime_genai, torch and transformers (its own int4, bench/table.py)
A round runs every engine once; medians over the rounds are printed, with the range. The read bandwidth and the peaks are
those `ingot bench` probes in each of its runs. "foreign" is the largest share of CPU time that other processes took
during any measurement: above 0.05 a figure is not worth much. A peer that cannot load a file is left out, and it is said.
bench/table.py measures the whole table that docs/speed.md keeps with what is defined here.
"""
import argparse, json, os, re, statistics, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
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
ORT = r'''
import json, sys, time
import numpy, onnxruntime_genai as og
folder, threads, prompt, gen = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
config = og.Config(folder)
config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
model = og.Model(config)
def once(first):
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=prompt + gen + 1, min_length=prompt + gen + 1, do_sample=False)
    run = og.Generator(model, params)
    start = time.perf_counter()
    run.append_tokens(numpy.array([(i * 7919 + first) % 30000 for i in range(prompt)], dtype="int32"))
    run.generate_next_token()
    middle = time.perf_counter()
    for _ in range(gen):
        run.generate_next_token()
    return prompt / (middle - start), gen / (time.perf_counter() - middle)
once(13)
print(json.dumps(once(4711)))
'''


class Failed(Exception):
    """An engine that did not do it: the text says which and why."""


def busy():
    v = list(map(int, open("/proc/stat").readline().split()[1:9]))
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK")


def reason(p):
    lines = [l for l in (p.stderr + "\n" + p.stdout).splitlines() if l.strip()]
    wrong = [l for l in lines if re.search(r"error|failed|exception|unsupported|cannot|not ", l, re.I)]
    return (wrong or lines or [f"exit code {p.returncode}"])[-1].strip()[:200]


def timed(command, timeout_s=1800):
    """stdout, and the share of the CPU time spent meanwhile that was not the command's."""
    start, own = busy(), os.times()
    env = {**os.environ, "INGOT_CACHE": "off"}
    try:
        p = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=env)
    except subprocess.TimeoutExpired:
        raise Failed(f"no answer in {timeout_s} s") from None
    except OSError as e:
        raise Failed(str(e)) from None
    spent, now = busy() - start, os.times()
    mine = now.children_user - own.children_user + now.children_system - own.children_system
    if p.returncode:
        raise Failed(reason(p))
    return p.stdout, max(0.0, spent - mine) / max(spent, 1e-9)


# ---- engines: (options, model, threads) -> {"prefill", "decode", "foreign", and for Ingot the probed limits} ----
def result(prefill, decode, foreign, **more):
    return {"prefill": prefill, "decode": decode, "foreign": round(foreign, 3), **more}


def ingot(o, model, threads):
    depth = ["--depth", str(o.depth)] if o.depth else []
    out, foreign = timed([o.ingot, "bench", model, "--prompt", str(o.prompt), "--gen", str(o.gen), "--repeat", "1",
                          "--threads", str(threads), "--json", *depth])
    j = json.loads(out)
    keys = ("read_gb_s", "peak_gop_s", "decode_bandwidth_share", "prefill_peak_share", "type", "isa", "weight_bytes")
    return result(j["prefill_tok_s"], j["decode_tok_s"], foreign, **{k: j[k] for k in keys})


def llama_bench(path, extra=()):
    def run(o, model, threads):
        depth = ["-d", str(o.depth)] if o.depth else []
        out, foreign = timed([path, "-m", model, "-p", str(o.prompt), "-n", str(o.gen), "-r", "1", "-t", str(threads),
                              "-o", "json", *extra, *depth])
        if "[" not in out:
            raise Failed("no figures in its output")
        rows = json.loads(out[out.index("["):])
        rate = lambda key: next((r["avg_ts"] for r in rows if r[key] == 0), None)
        return result(rate("n_gen"), rate("n_prompt"), foreign)
    return run


def python_engine(python, script):
    def run(o, model, threads):
        out, foreign = timed([python, "-c", script, model, str(threads), str(o.prompt), str(o.gen)])
        return result(*json.loads(out.strip().splitlines()[-1]), foreign)
    return run


def add_peers(a):
    env = os.environ.get
    a.add_argument("--ingot", default=os.path.join(ROOT, "build/release/ingot"))
    a.add_argument("--llama-cpp", default=env("INGOT_LLAMA_CPP"))
    a.add_argument("--ik-bench", default=env("INGOT_IK_BENCH"))
    a.add_argument("--openvino", default=env("INGOT_OPENVINO"))
    a.add_argument("--ort", default=env("INGOT_ORT"))


def engines(o):
    """Those that are there, by name; and what is said of each that is not."""
    found, absent = {"Ingot": ingot}, []
    tool = os.path.join(o.llama_cpp, "llama-bench") if o.llama_cpp else None
    for name, path, run, option in (
            ("llama.cpp", tool, lambda p: llama_bench(p), "--llama-cpp or INGOT_LLAMA_CPP"),
            ("ik_llama.cpp", o.ik_bench, lambda p: llama_bench(p, ("-rtr", "1")), "--ik-bench or INGOT_IK_BENCH"),
            ("OpenVINO", o.openvino, lambda p: python_engine(p, OPENVINO), "--openvino or INGOT_OPENVINO"),
            ("ONNX Runtime", o.ort, lambda p: python_engine(p, ORT), "--ort or INGOT_ORT")):
        if path and os.access(path, os.X_OK):
            found[name] = run(path)
        else:
            absent.append(f"{name}: not run, " + (f"{path} cannot be run" if path else f"{option} names none"))
    return found, absent


def interleaved(o, runs, model_of, threads, said=None):
    """{engine: [a result a round]} and what failed; engines take turns. model_of(name): its file, or None to leave it out."""
    seen, failed = {name: [] for name in runs if model_of(name)}, {}
    for i in range(o.rounds):
        for name in list(seen):
            if said:
                said(name, i)
            try:
                seen[name].append(runs[name](o, model_of(name), threads))
            except (Failed, ValueError, KeyError) as e:
                failed[name] = str(e)
                del seen[name]
        if "Ingot" not in seen:
            break
    return seen, failed


def middle(rows, key):
    values = [r[key] for r in rows if r.get(key) is not None]
    return statistics.median(values) if values else None


def cpu():
    """(name, kind): kind says which of the tables of docs/speed.md its figures belong to."""
    info = open("/proc/cpuinfo").read()
    of = lambda key: (re.search(rf"^{key}\s*: (.*)", info, re.M) or [0, ""])[1].strip()
    flags, name = set(of("flags").split()), of("model name") or "processor unknown"
    family, model = int(of("cpu family") or 0), int(of("model") or 0)
    cores = {25: "Zen 4" if model in range(0x10, 0x20) or model in range(0x60, 0x80) else "Zen 3", 26: "Zen 5"} \
        if "AMD" in of("vendor_id") else {6: {85: "Skylake or Cascade Lake", 106: "Ice Lake", 143: "Sapphire Rapids"}.get(model)}
    wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    more = [n for f, n in (("avx512_vnni", "VNNI"), ("avx512_bf16", "BF16"), ("amx_int8", "AMX")) if f in flags]
    kind = wide + (" with " + " and ".join(more) if more else " without VNNI" if wide == "AVX-512" else "")
    known = cores.get(family)
    return name + (f" ({known})" if known else ""), kind


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("models", nargs="+")
    a.add_argument("--threads", default="1,2")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--prompt", type=int, default=512)
    a.add_argument("--gen", type=int, default=128)
    a.add_argument("--depth", type=int, default=0)
    a.add_argument("--json")
    add_peers(a)
    o = a.parse_args()
    runs, notes = engines(o)
    runs.pop("ONNX Runtime", None)  # reads no GGUF
    print("%s, %s; prompt %d, gen %d, medians of %d (range)" % (*cpu(), o.prompt, o.gen, o.rounds))
    print("| model | threads | engine | prefill tok/s | decode tok/s | Ingot's prefill x | decode x | foreign |")
    print("|---|---|---|---|---|---|---|---|")
    table = []
    for path in o.models:
        model = os.path.basename(path)
        for threads in map(int, o.threads.split(",")):
            seen, failed = interleaved(o, runs, lambda name: path, threads)
            notes += [f"{name} on {model}: {why}" for name, why in failed.items()]
            if "Ingot" not in seen:
                break
            ours = seen["Ingot"]
            for name, rows in seen.items():
                cell = lambda k: f"{middle(rows, k):.1f} ({min(r[k] for r in rows):.0f}-{max(r[k] for r in rows):.0f})"
                ratio = lambda k: "" if name == "Ingot" else f"{middle(ours, k) / middle(rows, k):.2f}"
                print(f"| {model} | {threads} | {name} | {cell('prefill')} | {cell('decode')} | {ratio('prefill')} "
                      f"| {ratio('decode')} | {max(r['foreign'] for r in rows):.2f} |", flush=True)
                table.append({"model": model, "threads": threads, "engine": name, "runs": rows})
            share = lambda k: 100 * middle(ours, k)
            notes.append(f"{model}, {threads} threads: read {middle(ours, 'read_gb_s'):.1f} GB/s, Ingot's decode "
                         f"{share('decode_bandwidth_share'):.0f} % of it; prefill {share('prefill_peak_share'):.0f} % "
                         f"of the {middle(ours, 'peak_gop_s'):.0f} Gop/s peak of its type")
    print("\n".join(notes))
    if o.json:
        with open(o.json, "w") as f:
            json.dump(table, f, indent=1)


if __name__ == "__main__":
    sys.exit(main())
