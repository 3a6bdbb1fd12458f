#!/usr/bin/env python3
"""The whole table of docs/speed.md, measured on this machine: `make bench` runs it.

    make bench                                            everything: it says how long it will take
    make bench QUICK=1                                    one round, few types, the smallest shape: a look, no figures
    make bench SHAPES=qwen2.5-0.5b TYPES=q4_0,q8_0 THREADS=2 PARTS=speed
    make bench ONLY='start|neighbour'                     cells whose name matches
    make bench LIST=1                                     names of the cells, finished or not, and estimated minutes
    bench/table.py --write docs/speed.md                  puts the table into the document, measures nothing new if all is there

Parts: limits, kernels, speed, context (32k), start, neighbour, perplexity. Peers are optional (bench/peers.py says how they
are named); each absent one is named under the table. Models have random weights (bench/random_model.py), are made when a cell needs
them and removed after it. What is finished lies in --state and is not measured again (--again REGEX measures it
again); so an interrupted run goes on where it was. The machine should do nothing else: a cell beside which other
processes took more than 5 % of the CPU time is marked with ~.
"""
import argparse, json, os, re, shutil, subprocess, sys, time
import urllib.request

import peers
from peers import Failed, ROOT, middle

SHAPES = {"qwen2.5-0.5b": "Qwen2.5-0.5B", "qwen3-0.6b": "Qwen3-0.6B", "llama-3.2-1b": "Llama-3.2-1B", "qwen2.5-7b": "Qwen2.5-7B"}
TYPES = {"qwen2.5-0.5b": "q4_0 q4_k_m q6_k q8_0 f16 bf16 f32 q4_1 q5_0 q5_1 q5_k_m q3_k q2_k iq4_nl iq4_xs mxfp4".split(),
         "qwen3-0.6b": "q4_0 q4_k_m q6_k q8_0 bf16".split(), "llama-3.2-1b": "q4_0 q4_k_m q6_k q8_0 bf16".split(),
         "qwen2.5-7b": "q4_0 q4_k_m".split()}
COMMON = ("q4_0", "q4_k_m", "q6_k", "q8_0", "f16", "bf16", "f32")  # types that every peer is run with; others: llama.cpp alone
OPENVINO_TYPES = ("q4_0", "q8_0", "f16")
PARTS = "limits kernels speed context start neighbour perplexity".split()
NOISY = 0.05


# ---- models, made when needed ----
class Models:
    def __init__(self, o):
        self.o, self.made, self.why = o, set(), {}
        os.makedirs(o.models, exist_ok=True)

    def make(self, path, *arguments):
        if not os.path.exists(path):
            need = {"--hf": 2.2}.get(arguments[-1], 1.1)
            shape = random_shape(arguments[0])
            if shutil.disk_usage(self.o.models).free < need * shape.bytes("bf16" if "--hf" in arguments else arguments[-1]):
                raise Failed(f"no room for {os.path.basename(path)} under {self.o.models}")
            peers.timed([self.o.python, os.path.join(ROOT, "bench/random_model.py"), arguments[0], path, *arguments[1:]])
            self.made.add(path)
        return path

    def gguf(self, shape, kind):
        return self.make(os.path.join(self.o.models, f"{shape}.{kind}.gguf"), config_path(shape), "--type", kind)

    def ort(self, shape):
        """Its own int4 of the same shape, by its model builder."""
        out = os.path.join(self.o.models, f"{shape}.ort-int4")
        if not os.path.exists(os.path.join(out, "genai_config.json")) and shape not in self.why:
            hf = self.make(os.path.join(self.o.models, f"{shape}.hf"), config_path(shape), "--type", "bf16", "--hf")
            part = out + ".part"
            shutil.rmtree(part, ignore_errors=True)
            try:
                peers.timed([self.o.ort, "-m", "onnxruntime_genai.models.builder", "-i", hf, "-o", part, "-p", "int4", "-e", "cpu",
                             "-c", os.path.join(self.o.models, "ort-cache"), "--extra_options", "int4_accuracy_level=4"])
                os.rename(part, out)
                self.made.add(out)
            except Failed as e:
                self.why[shape] = f"its model builder: {e}"
            self.remove(hf)
        if shape in self.why:
            raise Failed(self.why[shape])
        return out

    def remove(self, path):
        if path in self.made and not self.o.keep:
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
            self.made.discard(path)

    def remove_all(self, but=()):
        for path in [p for p in self.made if p not in but]:
            self.remove(path)


def config_path(shape):
    return os.path.join(ROOT, f"bench/configs/{shape}.json")


def random_shape(path):
    from random_model import Shape
    return Shape(path)


# ---- cells: a name, what it needs, an estimate in seconds, and what measures it ----
class Cell:
    def __init__(self, name, seconds, run, model=None):
        self.name, self.seconds, self.run, self.model = name, seconds, run, model


def estimate(o, shape, kind, threads, gen, rounds, engines):
    """Rough: 250 Gop/s a thread in prefill, 25 GB/s in decode; peers take twice as long and warm up."""
    s = random_shape(config_path(shape))
    size = s.bytes(kind)
    once = 3 + size / 1e9 + 2 * o.prompt * s.params() / (200e9 * threads) + gen * size / 22e9
    return rounds * once * (1 + 2.2 * (engines - 1))


def generated(o, shape):
    return 32 if "7b" in shape else o.gen


def speed_cell(o, runs, models, shape, kind, threads):
    gen, rounds = generated(o, shape), o.rounds if kind in COMMON and "7b" not in shape else min(o.rounds, 2)
    use = {n: r for n, r in runs.items() if n in ("Ingot", "llama.cpp") or kind in COMMON}
    if kind not in OPENVINO_TYPES or "7b" in shape:  # it loads other files as f16, or not at all
        use.pop("OpenVINO", None)
    if kind != "q4_0" or "7b" in shape:  # its int4 stands beside ours; its builder holds the model several times
        use.pop("ONNX Runtime", None)

    def run(said):
        path, cell, failed = models.gguf(shape, kind), argparse.Namespace(**{**vars(o), "gen": gen, "depth": 0, "rounds": rounds}), {}
        paths = {n: path for n in use}
        if "ONNX Runtime" in use:
            try:
                paths["ONNX Runtime"] = models.ort(shape)
            except Failed as e:
                failed["ONNX Runtime"] = str(e)
                paths["ONNX Runtime"] = None
        seen, more = peers.interleaved(cell, use, paths.get, threads, said)
        return {"prompt": o.prompt, "gen": gen, "runs": seen, "failed": {**failed, **more}}
    return Cell(f"speed {shape} {kind} {threads}T", estimate(o, shape, kind, threads, gen, rounds, len(use)), run, f"{shape}.{kind}.gguf")


def context_cell(o, runs, models, shape, kind, threads):
    use = {n: runs[n] for n in ("Ingot", "llama.cpp") if n in runs}

    def run(said):
        path = models.gguf(shape, kind)
        cell = argparse.Namespace(**{**vars(o), "gen": 32, "depth": o.context, "rounds": 1})
        seen, failed = peers.interleaved(cell, use, lambda n: path, threads, said)
        return {"depth": o.context, "prompt": o.prompt, "gen": 32, "runs": seen, "failed": failed}
    # llama-bench fills the depth by prefill: about 200 us a token and thousand keys with two threads
    seconds = 60 + (o.context / 1000) ** 2 * 0.5 * 2 / threads * (len(use) > 1)
    return Cell(f"context {shape} {kind} {threads}T", seconds, run, f"{shape}.{kind}.gguf")


def limits_cell(o, threads):
    def run(said):
        out, foreign = peers.timed([o.ingot, "bench", "--random", config_path("qwen2.5-0.5b"), "--type", "q4_0", "--prompt", "16",
                                    "--gen", "4", "--repeat", "3", "--threads", str(threads), "--json"])
        j = json.loads(out)
        return {"foreign": foreign, **{k: j[k] for k in ("isa", "read_gb_s", "f32_gop_s", "bf16_gop_s", "int8_gop_s")}}
    return Cell(f"limits {threads}T", 25, run)


def kernels_cell(o, name, seconds):
    def run(said):
        out, foreign = peers.timed([os.path.join(os.path.dirname(o.ingot), name)])
        return {"foreign": foreign, "text": out}
    return Cell(f"kernels {name}", seconds, run)


# ---- start-up ----
def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_once(command, env=None):
    """Seconds from exec to /health 200, and the peak of resident memory by then."""
    port = free_port()
    begin = time.perf_counter()
    p = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         env={**os.environ, **(env or {})})
    try:
        while time.perf_counter() - begin < 120:
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200:
                    took = time.perf_counter() - begin
                    status = open(f"/proc/{p.pid}/status").read()
                    kb = lambda key: int(re.search(rf"{key}:\s+(\d+)", status).group(1))
                    return {"seconds": round(took, 3), "peak_mb": kb("VmHWM") / 1024, "anonymous_mb": kb("RssAnon") / 1024}
            except OSError:
                if p.poll() is not None:
                    raise Failed(f"{os.path.basename(command[0])} ended with {p.returncode} before it was ready") from None
                time.sleep(0.005)
        raise Failed(f"{os.path.basename(command[0])}: not ready after 120 s")
    finally:
        p.terminate()
        try:
            p.wait(30)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()


def start_cell(o, models, shape, kind):
    server = os.path.join(o.llama_cpp, "llama-server") if o.llama_cpp else None

    def run(said):
        path, cache = models.gguf(shape, kind), os.path.join(o.models, "start-cache")
        serve = [o.ingot, "serve", path]
        ways = {"Ingot, packed at start": (serve, {"INGOT_CACHE": "off"}), "Ingot, panels kept": (serve, {"INGOT_CACHE": cache})}
        failed = {}
        if server and os.access(server, os.X_OK):
            ways["llama-server"] = ([server, "-m", path, "-t", "2"], None)
        else:
            failed["llama-server"] = f"{server} cannot be run" if server else "not named"
        first, seen = start_once(*ways["Ingot, panels kept"]), {}  # writes the panels
        for i in range(max(o.rounds, 1)):
            for name, way in ways.items():
                if name in failed:
                    continue
                said(name, i)
                try:
                    seen.setdefault(name, []).append(start_once(*way))
                except Failed as e:
                    failed[name] = str(e)
                    seen.pop(name, None)
        shutil.rmtree(cache, ignore_errors=True)
        return {"first": first, "runs": seen, "failed": failed}
    return Cell(f"start {shape} {kind}", 25 + o.rounds * 8, run, f"{shape}.{kind}.gguf")


# ---- a busy neighbour, and what a quantized model knows ----
def neighbour_cell(o, models, shape, kind):
    def run(said):
        tool = os.path.join(o.llama_cpp, "llama-bench") if o.llama_cpp else ""
        more = ["--llama-bench", tool] if os.access(tool, os.X_OK) else []
        out, _ = peers.timed([sys.executable, os.path.join(ROOT, "bench/neighbour"), models.gguf(shape, kind), "--ingot", o.ingot,
                              "--rounds", str(o.rounds), "--prompt", str(o.prompt // 2), "--gen", str(o.gen // 2), "--json", *more])
        return json.loads(out)
    return Cell(f"neighbour {shape} {kind}", 10 + o.rounds * (18 + 60 * bool(o.llama_cpp)), run, f"{shape}.{kind}.gguf")


def perplexity_cell(o, model, text):
    tool = os.path.join(o.llama_cpp, "llama-perplexity") if o.llama_cpp else None

    def run(said):
        said("Ingot", 0)
        chunks = ["--chunks", str(o.chunks)]
        out, _ = peers.timed([o.ingot, "perplexity", model, "--file", text, *chunks, "--json"])
        exact, _ = peers.timed([o.ingot, "perplexity", model, "--file", text, *chunks, "--exact", "--json"])
        j, e, found = json.loads(out), json.loads(exact), {}
        if tool and os.access(tool, os.X_OK):
            said("llama.cpp", 0)
            p = subprocess.run([tool, "-m", model, "-f", text, "-c", "512", *chunks, "-t", "2"], capture_output=True, text=True, errors="replace")
            estimate_line = re.search(r"PPL = ([\d.]+) \+/- ([\d.]+)", p.stdout + p.stderr)
            found = {"llama.cpp": float(estimate_line.group(1)), "llama.cpp +-": float(estimate_line.group(2))} if estimate_line else {}
        return {"model": os.path.basename(model), "text": os.path.basename(text), "chunks": j["chunks"], "tokens": j["tokens"],
                "Ingot": j["perplexity"], "Ingot +-": j["error"], "Ingot --exact": e["perplexity"], **found}
    return Cell("perplexity smollm2-135m", 20 + o.chunks * 6, run)


def first_file(*candidates):
    return next((c for c in candidates if c and os.path.exists(c)), None)


def all_cells(o, runs, models):
    notes, cells = [], []
    parts, shapes, threads = (x.split(",") if x else None for x in (o.parts, o.shapes, o.threads))
    types = o.types.split(",") if o.types else None
    shapes = [s for s in SHAPES if not shapes or s in shapes]
    threads = [int(t) for t in threads]
    of = lambda shape: [t for t in (types or (["q4_0", "q8_0"] if o.quick else TYPES[shape]))]
    has = lambda part: not parts or part in parts
    if o.quick and not o.shapes:
        shapes = shapes[:1]
    if has("limits"):
        cells += [limits_cell(o, t) for t in threads]
    if has("kernels"):
        for name, seconds in (("bench_kernels", 60), ("bench_sampler", 10)):
            if os.access(os.path.join(os.path.dirname(o.ingot), name), os.X_OK):
                cells.append(kernels_cell(o, name, seconds))
    small = shapes[0] if shapes else "qwen2.5-0.5b"
    if has("start"):
        cells += [start_cell(o, models, small, k) for k in (types or ["q8_0", "f16"])]
    if has("neighbour"):
        cells.append(neighbour_cell(o, models, small, (types or ["q8_0"])[0]))
    if has("perplexity"):
        model = first_file(o.smollm2, os.path.expanduser("~/.cache/ingot/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
        text = first_file(o.text, os.path.join(os.path.dirname(ROOT), "shared/data/text/wikitext2-valid.txt"))
        if model and text:
            cells.append(perplexity_cell(o, model, text))
        else:
            notes.append("perplexity: not run, " + ("--text names no text" if model else "no SmolLM2-135M (tools/get-model)"))
    if has("speed"):
        wide = max(threads)
        cells += [speed_cell(o, runs, models, s, k, t) for s in shapes for k in of(s) for t in threads
                  if types or k in COMMON or t == wide]
    if has("context"):
        cells.append(context_cell(o, runs, models, small, (types or ["q8_0"])[0], max(threads)))
    cells.sort(key=lambda c: weight_of(c.name, max(threads)))
    return [c for c in cells if not o.only or re.search(o.only, c.name)], notes


def weight_of(name, wide):
    """What says most comes first: whoever interrupts the run has that. One model's cells stay together."""
    part, *rest = name.split()
    if part != "speed":
        return {"limits": 0, "context": 3}.get(part, 2), 0, 0, name
    shape, kind, threads = rest
    place = list(SHAPES).index(shape)
    return (4 if kind not in COMMON else 1 if place == 0 else 3), place, (COMMON + tuple(TYPES[shape])).index(kind), f"{wide - int(threads[:-1]):03}"


# ---- what is finished ----
def commit():
    p = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return p.stdout.strip() or "unknown"


def load_state(path):
    state = {}
    if os.path.exists(path):
        for line in open(path):
            try:
                row = json.loads(line)
                state[row["cell"]] = row
            except (ValueError, KeyError):
                pass  # a line cut off by an interruption
    return state


def hours(seconds):
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


class Progress:
    def __init__(self, cells):
        self.left, self.all, self.done = sum(c.seconds for c in cells), len(cells), 0
        self.speed, self.guessed, self.spent = 1.0, 0.0, 0.0

    def begin(self, cell):
        self.cell, self.start = cell, time.time()
        self.say("")

    def say(self, text):
        left = max(0, self.left * self.speed - (time.time() - self.start))
        line = f"[{self.done + 1}/{self.all}] {self.cell.name}  {text}  ({hours(left)} left)"
        tty = sys.stderr.isatty()
        if tty or not text:
            print("\r\033[K" + line if tty else line, end="" if tty else "\n", file=sys.stderr, flush=True)

    def end(self):
        took = time.time() - self.start
        self.left, self.done = self.left - self.cell.seconds, self.done + 1
        self.guessed, self.spent = self.guessed + self.cell.seconds, self.spent + took
        self.speed = self.spent / self.guessed
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def measure(o, cells, models, state):
    todo = [c for c in cells if c.name not in state or (o.again and re.search(o.again, c.name))]
    if not todo:
        return []
    print(f"{len(todo)} cells to measure, about {hours(sum(c.seconds for c in todo))}; finished ones are kept in {o.state}",
          file=sys.stderr)
    bar, notes = Progress(todo), []
    os.makedirs(os.path.dirname(o.state) or ".", exist_ok=True)
    for i, cell in enumerate(todo):
        bar.begin(cell)
        try:
            data = cell.run(lambda name, i: bar.say(f"{name}, round {i + 1}"))
            row = {"cell": cell.name, "cpu": o.cpu, "kind": o.kind, "commit": commit(), "date": time.strftime("%Y-%m-%d"),
                   "seconds": round(time.time() - bar.start), "data": data}
            state[cell.name] = row
            with open(o.state, "a") as f:
                f.write(json.dumps(row) + "\n")
        except (Failed, ValueError, KeyError) as e:
            notes.append(f"{cell.name}: {e}")
        bar.end()
        models.remove_all(but=[os.path.join(o.models, c.model) for c in todo[i + 1:i + 3] if c.model] +
                          [p for p in models.made if p.endswith(".ort-int4") and
                           any(c.name.startswith("speed " + os.path.basename(p)[:-9]) for c in todo[i + 1:])])
    return notes


# ---- the table ----
def noisy(rows):
    return "~" if max((r.get("foreign") or 0) for r in rows) > NOISY else ""


def figure(rows, key):
    values = [r[key] for r in rows if r.get(key) is not None]
    if not values:
        return "-"
    spread = "" if len(values) == 1 else f" ({min(values):.0f}-{max(values):.0f})"
    return f"{middle(rows, key):.1f}{spread}{noisy(rows)}"


def beside(ours, theirs, key):
    if not theirs or middle(theirs, key) is None:
        return ""
    return f"{middle(theirs, key):.1f}{noisy(theirs)} (**{middle(ours, key) / middle(theirs, key):.2f}**)"


def speed_table(out, state, shape, phase, share_key, share_name):
    rows = [r for n, r in state.items() if n.startswith(f"speed {shape} ") and "Ingot" in r["data"]["runs"]]
    if not rows:
        return
    names = [n for n in ("llama.cpp", "ik_llama.cpp", "OpenVINO", "ONNX Runtime") if any(n in r["data"]["runs"] for r in rows)]
    d = rows[0]["data"]
    what = f"prefill of {d['prompt']} tokens" if phase == "prefill" else f"decode of {d['gen']} tokens after {d['prompt']}"
    out.append(f"\n{SHAPES[shape]}, {what}, tokens per second:\n")
    out.append(f"| Weights | Threads | Ingot | {share_name} | " + " | ".join(f"{n} (x)" for n in names) + " |")
    out.append("|---" * (4 + len(names)) + "|")
    order = {k: i for i, k in enumerate(TYPES["qwen2.5-0.5b"])}
    for r in sorted(rows, key=lambda r: (-int(r["cell"].split()[3][:-1]), order.get(r["cell"].split()[2], 99))):
        _, _, kind, threads = r["cell"].split()
        runs = r["data"]["runs"]
        ours = runs["Ingot"]
        out.append(f"| {kind.upper()} | {threads[:-1]} | {figure(ours, phase)} | {100 * middle(ours, share_key):.0f} % | " +
                   " | ".join(beside(ours, runs.get(n), phase) for n in names) + " |")


def limits_table(out, state):
    rows = [r for n, r in state.items() if n.startswith("limits ")]
    if rows:
        out += ["\n| Limits | read GB/s | f32 Gop/s | bf16 | int8 |", "|---|---|---|---|---|"]
    for r in rows:
        d = r["data"]
        out.append(f"| {r['cell'].split()[1][:-1]} thread(s), {d['isa']} | {d['read_gb_s']:.1f} | {d['f32_gop_s']:.0f} | {d['bf16_gop_s']:.0f} "
                   f"| {d['int8_gop_s']:.0f} |")


def context_table(out, state):
    rows = [r for n, r in state.items() if n.startswith("context ")]
    for r in rows:
        d, (_, shape, kind, threads) = r["data"], r["cell"].split()
        out += [f"\n{SHAPES[shape]} {kind.upper()}, {threads[:-1]} threads, {d['depth']:,} tokens before: prompt of {d['prompt']}, then {d['gen']} "
                "decoded, tokens per second; one run:\n", "| | prefill | decode |", "|---|---|---|"]
        out += [f"| {name} | {figure(x, 'prefill')} | {figure(x, 'decode')} |" for name, x in d["runs"].items()]


def start_table(out, state):
    rows = [r for n, r in state.items() if n.startswith("start ")]
    if rows:
        out += ["\nStart to `/health` 200, files in memory:\n", "| Model | | seconds (range) | peak RSS MB | anonymous MB, ready |", "|---|---|---|---|---|"]
    for r in rows:
        d, (_, shape, kind) = r["data"], r["cell"].split()
        for name, x in [("Ingot, first start", [d["first"]]), *d["runs"].items()]:
            s = [y["seconds"] for y in x]
            out.append(f"| {SHAPES[shape]} {kind.upper()} | {name} | {middle(x, 'seconds'):.2f} ({min(s):.2f}-{max(s):.2f}) "
                       f"| {middle(x, 'peak_mb'):.0f} | {middle(x, 'anonymous_mb'):.0f} |")


def neighbour_table(out, state):
    for r in (r for n, r in state.items() if n.startswith("neighbour ")):
        d, (_, shape, kind) = r["data"], r["cell"].split()
        out += [f"\n{SHAPES[shape]} {kind.upper()}, another process spinning on one of {d['cpus']} CPUs, which leaves {d['share']:.0f} % of the CPU time:\n",
                "| | neighbour | prefill tok/s | kept | decode tok/s | kept |", "|---|---|---|---|---|---|"]
        out += [f"| {x['engine']} | {x['where']} | {x['prefill']:.1f} | {100 * x['prefill_kept']:.0f} % | {x['decode']:.1f} "
                f"| {100 * x['decode_kept']:.0f} % |" for x in d["rows"]]


def perplexity_lines(out, state):
    for r in (r for n, r in state.items() if n.startswith("perplexity ")):
        d = r["data"]
        theirs = f"llama.cpp {d['llama.cpp']:.4f} +- {d['llama.cpp +-']:.4f}" if "llama.cpp" in d else "llama.cpp not run"
        out.append(f"\nPerplexity of {d['model']} on {d['text']} ({d['chunks']} chunks of 512, {d['tokens']:,} predictions): Ingot "
                   f"{d['Ingot']:.4f} +- {d['Ingot +-']:.4f}, with `--exact` {d['Ingot --exact']:.4f}; {theirs}.")


def missing(state, notes):
    said = list(notes)
    for n, r in state.items():
        said += [f"{engine} on {n}: {why}" for engine, why in (r["data"].get("failed") or {}).items()]
    return said


def render(o, state, notes):
    mine = {n: r for n, r in state.items() if r["kind"] == o.kind}
    dates, commits = sorted({r["date"] for r in mine.values()}), sorted({r["commit"] for r in mine.values()})
    out = [f"{o.cpu}: {o.kind}; {os.cpu_count()} CPUs; {', '.join(dates)}; commit {', '.join(commits)}."]
    out.append(f"Prompt and decode speeds are medians of {o.rounds} rounds (7B and the rarer types: 2) in which the engines took turns (range); shares are of what was "
               "probed in the same runs; in brackets: how many times faster Ingot is. ~: others took more than 5 % of the CPU time.")
    limits_table(out, mine)
    for shape in SHAPES:
        speed_table(out, mine, shape, "decode", "decode_bandwidth_share", "of read")
        speed_table(out, mine, shape, "prefill", "prefill_peak_share", "of peak")
    for part in (context_table, start_table, neighbour_table, perplexity_lines):
        part(out, mine)
    out += ["", *[f"- {n}" for n in missing(mine, notes)]]
    return "\n".join(out) + "\n"


def write_into(path, kind, text):
    """Between the marks of this kind of processor; at the end of the document when it has none."""
    begin, end = f"<!-- bench: {kind} -->", f"<!-- end of bench: {kind} -->"
    page = open(path).read()
    block = f"{begin}\n{text}{end}"
    if begin in page and end in page:
        page = page[:page.index(begin)] + block + page[page.index(end) + len(end):]
    else:
        page = page.rstrip("\n") + f"\n\n## {kind}\n{block}\n"
    with open(path, "w") as f:
        f.write(page)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--shapes", help=", ".join(SHAPES))
    a.add_argument("--types", help="q4_0,q8_0 ... (default: those listed in SHAPES)")
    a.add_argument("--threads", default="1,2")
    a.add_argument("--parts", help=", ".join(PARTS))
    a.add_argument("--only", help="cells whose name matches")
    a.add_argument("--again", help="measures cells whose name matches although they are finished")
    a.add_argument("--quick", action="store_true")
    a.add_argument("--list", action="store_true")
    a.add_argument("--rounds", type=int)
    a.add_argument("--prompt", type=int, default=512)
    a.add_argument("--gen", type=int)
    a.add_argument("--context", type=int, default=32256)
    a.add_argument("--chunks", type=int, default=20, help="of 512 tokens, for perplexity")
    a.add_argument("--smollm2", help="GGUF file for perplexity")
    a.add_argument("--text", help="for perplexity")
    a.add_argument("--models", default=os.path.join(ROOT, "build/bench/models"))
    a.add_argument("--keep", action="store_true", help="keeps the models that were made")
    a.add_argument("--state", help="default: build/bench/results.jsonl; QUICK has its own")
    a.add_argument("--python", default=os.environ.get("INGOT_BENCH_PYTHON", sys.executable), help="a Python with numpy")
    a.add_argument("--json", help="everything measured, as one file")
    a.add_argument("--write", help="document that gets the table")
    peers.add_peers(a)
    o = a.parse_args()
    o.rounds = o.rounds or (1 if o.quick else 3)
    o.gen = o.gen or (32 if o.quick else 128)
    o.depth = 0
    o.state = o.state or os.path.join(ROOT, "build/bench", "quick.jsonl" if o.quick else "results.jsonl")
    o.cpu, o.kind = peers.cpu()
    runs, absent = peers.engines(o)
    models, state = Models(o), load_state(o.state)
    cells, notes = all_cells(o, runs, models)
    if o.list:
        for c in cells:
            print(f"{'done' if c.name in state else '    '}  {c.seconds / 60:6.1f} min  {c.name}")
        print(f"{hours(sum(c.seconds for c in cells if c.name not in state))} to go")
        return 0
    try:
        notes = absent + notes + measure(o, cells, models, state)
    except KeyboardInterrupt:
        print(f"\ninterrupted: what is finished is kept in {o.state}; the same command goes on", file=sys.stderr)
        return 130
    finally:
        models.remove_all()
    text = render(o, state, notes)
    print(text)
    for n, r in state.items():
        if n.startswith("kernels ") and (not o.only or re.search(o.only, n)):
            print(f"== {n.split()[1]}\n{r['data']['text']}")
    if o.json:
        with open(o.json, "w") as f:
            json.dump({"cpu": o.cpu, "kind": o.kind, "cells": list(state.values()), "notes": notes}, f, indent=1)
    if o.write:
        write_into(o.write, o.kind, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
