"""quantize, imatrix, perplexity: on the storyteller of models/ (width 192: most rows hold no block of 256)."""
import array
import json
import os
import struct

from support import ROOT, Case, ingot, main

MODEL = os.path.join(ROOT, "models", "storyteller.gguf")
TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the sunshine. " * 40
# the largest relative error any matrix of this model may have, a little above what is measured
RELATIVE = {"q2_k": 0.3, "q3_k_m": 0.16, "q4_0": 0.1, "q4_1": 0.09, "q4_k_m": 0.09, "q5_0": 0.05, "q5_1": 0.04, "q5_k_m": 0.04,
            "q6_k": 0.025, "q8_0": 0.01, "iq4_nl": 0.09, "iq4_xs": 0.09, "mxfp4": 0.14, "f16": 0.001, "bf16": 0.003, "f32": 0}
FALLBACK = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0", "q2_k": "q4_0", "q3_k": "q4_0", "iq4_xs": "iq4_nl"}


def tensors_of(folder):
    """{name: (shape, numbers)} of a folder's safetensors, read by the format's own rules."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        bytes_ = f.read()
    head = struct.unpack_from("<Q", bytes_)[0]
    out = {}
    for name, t in json.loads(bytes_[8:8 + head]).items():
        if name != "__metadata__":
            a, b = (8 + head + x for x in t["data_offsets"])
            out[name] = t["shape"], array.array({"F32": "f", "I32": "I", "F16": "H"}[t["dtype"]], bytes_[a:b]).tolist()
    return out


def unpacked(tensors, base, kind, group):
    """scale * (level - zero), row by row of outputs: AutoAWQ's gemm order, AutoGPTQ's first format."""
    order = [0, 4, 1, 5, 2, 6, 3, 7] if kind == "awq" else list(range(8))  # where output 8c + i stands in a word
    (rows, columns), q = tensors[base + ".qweight"]
    n_in, n_out = (rows, columns * 8) if kind == "awq" else (rows * 8, columns)
    zeros, scales = tensors[base + ".qzeros"][1], tensors[base + ".scales"][1]
    if kind == "gptq":
        assert tensors[base + ".g_idx"][1] == [k // group for k in range(n_in)]
    scales = struct.unpack(f"<{len(scales)}e", struct.pack(f"<{len(scales)}H", *scales))
    out = []
    for n in range(n_out):
        at = 4 * order[n % 8]
        for k in range(n_in):
            g = k // group
            zero = (zeros[g * n_out // 8 + n // 8] >> at & 15) + (kind == "gptq")
            level = q[k * columns + n // 8] >> at & 15 if kind == "awq" else q[k // 8 * n_out + n] >> 4 * (k % 8) & 15
            out.append(scales[g * n_out + n] * (level - zero))
    return [struct.unpack("<f", struct.pack("<f", x))[0] for x in out]  # f16 times a small integer: exact, or once rounded


class Quantize(Case):
    def setUp(self):
        self.text = self.path("text.txt", TEXT.encode())

    def test_every_type_is_written_reported_and_runs(self):
        for name, bound in RELATIVE.items():
            out = self.path(f"{name}.gguf")
            r = self.good_json("quantize", MODEL, out, "--type", name, "--json")
            self.assertEqual((r["type"], r["bytes"], r["out"]), (name, os.path.getsize(out), out))
            for t in r["tensors"]:
                self.assertLessEqual(t["relative_error"], bound, (name, t))
                if t["wanted"] != t["type"]:
                    self.assertEqual(t["type"], FALLBACK[t["wanted"]])
                    self.assertNotEqual(t["shape"][-1] % 256, 0)
                else:
                    self.assertTrue(t["shape"][-1] % 256 == 0 or t["type"] not in FALLBACK, t)
            self.assertLess(r["bits_per_weight"], 32.01)
            text = self.good("generate", out, "--raw", "-p", "Once upon", "-n", "8", "--temperature", "0")
            self.assertTrue(text.strip(), name)
            os.remove(out)

    def test_report_for_people_names_the_fallback(self):
        out = self.good("quantize", MODEL, self.path("p.gguf"), "--type", "q4_k_m").decode()
        self.assertIn("rows of 192 hold no whole blocks of q4_k", out)
        self.assertIn("bits a weight", out)

    def test_pure_makes_no_exceptions(self):
        r = self.good_json("quantize", MODEL, self.path("pure.gguf"), "--type", "q4_0", "--pure", "--json")
        self.assertEqual({t["type"] for t in r["tensors"]}, {"q4_0"})
        r = self.good_json("quantize", MODEL, self.path("mix.gguf"), "--type", "q4_0", "--json")
        self.assertEqual({t["name"] for t in r["tensors"] if t["type"] != "q4_0"}, {"token_embd.weight"})

    def test_threads_change_no_byte(self):
        a, b = self.path("a.gguf"), self.path("b.gguf")
        self.good("quantize", MODEL, a, "--type", "q4_k_m", "--threads", "1")
        self.good("quantize", MODEL, b, "--type", "q4_k_m", "--threads", "3")
        with open(a, "rb") as x, open(b, "rb") as y:
            x, y = x.read(), y.read()
        cut = x.index(b"token_embd")  # before it stands the file's own name
        self.assertEqual(x[cut:], y[cut:])

    def test_perplexity_before_and_after(self):
        out = self.path("q2.gguf")
        r = self.good_json("quantize", MODEL, out, "--type", "q2_k", "--pure", "--json", "--text", self.text, "--ctx", "64",
                           "--chunks", "3")
        before = self.good_json("perplexity", MODEL, "--file", self.text, "--ctx", "64", "--chunks", "3", "--json")
        after = self.good_json("perplexity", out, "--file", self.text, "--ctx", "64", "--chunks", "3", "--json")
        self.assertEqual((r["before"], r["after"]), (before, after))
        self.assertEqual((before["chunks"], before["tokens"]), (3, 3 * 31))
        self.assertNotEqual(before["perplexity"], after["perplexity"])
        self.assertTrue(1 < before["perplexity"] < 1000)
        people = self.good("quantize", MODEL, out, "--type", "q8_0", "--text", self.text, "--ctx", "64").decode()
        self.assertRegex(people, r"perplexity \d+\.\d+, before \d+\.\d+ \([+-]\d+\.\d+ %\)")

    def test_perplexity_does_not_depend_on_threads(self):
        runs = [self.good("perplexity", MODEL, "-f", self.text, "-c", "96", "-t", t, "--json") for t in "12"]
        self.assertEqual(*runs)
        self.assertEqual(self.good("perplexity", MODEL, "-f", "-", "-c", "96", "--json", text=TEXT), runs[0])

    def test_imatrix_is_written_read_and_weighs(self):
        im = self.path("im.gguf")
        out = self.good("imatrix", MODEL, "--file", self.text, "-o", im, "--ctx", "64", "--chunks", "4").decode()
        self.assertIn("4 chunks of 64 tokens", out)
        r = self.good_json("quantize", MODEL, self.path("w.gguf"), "--type", "q4_0", "--imatrix", im, "--json")
        for t in r["tensors"]:
            self.assertEqual(t["importance"], t["name"] != "token_embd.weight", t)
        plain = self.good_json("quantize", MODEL, self.path("n.gguf"), "--type", "q4_0", "--json")
        unweighted = {t["name"]: t["rms_error"] for t in plain["tensors"]}
        same = [t for t in r["tensors"] if t["type"] == "q4_0" and t["importance"]]
        self.assertTrue(all(t["rms_error"] > unweighted[t["name"]] for t in same))  # it minimizes another error

    def test_damaged_and_foreign_importance_is_refused(self):
        im = self.path("im2.gguf")
        self.good("imatrix", MODEL, "--file", self.text, "-o", im, "--ctx", "64", "--chunks", "1")
        with open(im, "rb") as f:
            whole = f.read()
        args = ["quantize", MODEL, self.path("x.gguf"), "--type", "q4_0", "--imatrix"]
        for cut in (3, 40, 200, len(whole) // 2, len(whole) - 33):
            code, _, err = ingot(*args, self.path("cut.gguf", whole[:cut]))
            self.assertIn(code, (65, 69), (cut, err))
        nan = bytearray(whole)
        nan[-64:] = struct.pack("<16f", *[float("nan")] * 16)
        self.bad("corrupt", "imatrix", *args, self.path("nan.gguf", bytes(nan)))
        self.bad("unsupported", "no importance matrix", *args, MODEL)
        self.bad("not_found", "nowhere", *args, "nowhere")
        self.assertFalse(os.path.exists(self.path("x.gguf")))

    def test_what_a_gguf_says_of_itself_goes_along(self):
        first, second = self.path("first.gguf"), self.path("second.gguf")
        self.good("quantize", MODEL, first, "--type", "q8_0")
        with open(first, "rb") as f:
            whole = f.read()
        key = lambda k, v: struct.pack("<Q", len(k)) + k.encode() + struct.pack("<IQ", 8, len(v)) + v.encode()
        count = struct.unpack_from("<Q", whole, 16)[0]
        named = struct.pack("<Q", 12) + b"general.name"
        self.assertEqual(whole.count(named), 1)
        more = whole[:16] + struct.pack("<Q", count + 2) + key("general.author", "Someone") + key("general.license", "mit") + whole[24:]
        at = more.index(struct.pack("<Q", 12) + b"general.name")
        start = 24 + len(key("general.author", "Someone") + key("general.license", "mit"))
        self.assertGreaterEqual(at, start)
        # the tensors' numbers lie at multiples of 32 from the end of the head on: the two keys are made to fill some
        added = len(more) - len(whole)
        more = more[:16] + struct.pack("<Q", count + 3) + more[24:start] + self.filler(-added % 32) + more[start:]
        self.good("quantize", self.path("named.gguf", more), second, "--type", "q4_0")
        with open(second, "rb") as f:
            got = f.read()
        for k, v in (("author", "Someone"), ("license", "mit"), ("name", "storyteller")):  # its own name, not the file's
            self.assertTrue(key("general." + k, v) in got, k)
        self.assertEqual(got.count(b"general.name"), 1)
        self.assertEqual(got.count(b"general.file_type"), 1)

    def filler(self, n):
        """A key and a value of n bytes, or n + 32."""
        fixed = 8 + len("general.url") + 4 + 8
        return struct.pack("<Q", 11) + b"general.url" + struct.pack("<IQ", 8, (n - fixed) % 32) + b"x" * ((n - fixed) % 32)

    def test_importance_of_before_is_read(self):
        entry = lambda name, n: struct.pack("<i", len(name)) + name + struct.pack("<ii", 3, n) + struct.pack(f"<{n}f", *range(1, n + 1))
        shapes = {t["name"]: t["shape"] for t in self.good_json("quantize", MODEL, self.path("d.gguf"), "--type", "q4_0", "--json")["tensors"]}
        dat = struct.pack("<i", 1) + entry(b"blk.0.attn_q.weight", shapes["blk.0.attn_q.weight"][-1])
        r = self.good_json("quantize", MODEL, self.path("e.gguf"), "--type", "q4_0", "--imatrix", self.path("old.dat", dat), "--json")
        self.assertEqual([t["name"] for t in r["tensors"] if t["importance"]], ["blk.0.attn_q.weight"])

    def test_packed_folders_say_what_ingot_reads(self):
        """AWQ and GPTQ folders against an unpacking written here, and against the numbers they stand for."""
        whole = tensors_of(self.converted(MODEL, "whole"))
        for kind, group, most in (("awq", 64, 0.095), ("gptq", 32, 0.1), ("awq", 32, 0.08)):
            folder = self.path(f"{kind}{group}")
            r = self.good_json("quantize", MODEL, folder, "--type", kind, "--group", group, "--json")
            with open(os.path.join(folder, "config.json")) as f:
                config = json.load(f)
            q = config["quantization_config"]
            self.assertEqual((q["quant_method"], q["bits"], q["group_size"], config["torch_dtype"]), (kind, 4, group, "float16"))
            packed, read = tensors_of(folder), tensors_of(self.converted(folder, f"read{kind}{group}"))
            errors = {t["name"]: t["relative_error"] for t in r["tensors"]}
            names = [n[:-8] for n in packed if n.endswith(".qweight")]
            self.assertEqual(len(names), 5 * 7)
            self.assertEqual({n for n in packed if n.endswith(".weight")}, {n for n in whole if n[:-7] not in names})
            for base in names:
                says = unpacked(packed, base, kind, group)
                self.assertEqual(says, read[base + ".weight"][1], base)  # every bit of what Ingot makes of it
                truth = whole[base + ".weight"][1]
                energy = sum(x * x for x in truth)
                relative = (sum((x - y) ** 2 for x, y in zip(says, truth)) / energy) ** 0.5
                self.assertAlmostEqual(relative, errors[base + ".weight"], places=6)
                self.assertLess(relative, most, (kind, group, base))
        runs = []
        for model in (self.path("awq32"), self.path("readawq32")):
            self.good("logits", model, "--ids", "1,20,300", "--npy", self.path("l.npy"), "--exact")
            with open(self.path("l.npy"), "rb") as f:
                runs.append(array.array("f", f.read()[-3 * 4096 * 4:]).tolist())
        self.assertLess(max(abs(a - b) for a, b in zip(*runs)), 1e-3)  # blocks in f32 meet what f32 says

    def converted(self, model, name):
        self.good("convert", model, self.path(name), "--type", "f32")
        return self.path(name)

    def test_packed_folders_that_cannot_be(self):
        out = self.path("never")
        self.bad("unsupported", "try a smaller --group", "quantize", MODEL, out, "--type", "awq")  # 192 wide
        self.bad("invalid", "--group 48", "quantize", MODEL, out, "--type", "awq", "--group", "48")
        self.bad("invalid", "ends in .gguf", "quantize", MODEL, out + ".gguf", "--type", "gptq")
        self.bad("invalid", "--group goes with", "quantize", MODEL, out + ".gguf", "--type", "q4_0", "--group", "32")
        self.assertFalse(os.path.exists(out))

    def test_what_is_asked_wrongly(self):
        out = self.path("never.gguf")
        self.bad("invalid", "q4_k_m", "quantize", MODEL, out, "--type", "q9")
        self.bad("invalid", "--type", "quantize", MODEL, out)
        self.bad("unsupported", "rtn", "quantize", MODEL, out, "--type", "q4_0", "--method", "awq")
        self.bad("unsupported", "end OUT in .gguf", "quantize", MODEL, self.path("folder"), "--type", "q4_0")
        self.bad("invalid", "is the model that is read", "quantize", MODEL, MODEL, "--type", "q4_0")
        self.bad("not_found", "nowhere", "quantize", "nowhere", out, "--type", "q4_0")
        self.bad("not_found", "nowhere.txt", "quantize", MODEL, out, "--type", "q4_0", "--text", "nowhere.txt")
        self.bad("invalid", "give more text", "quantize", MODEL, out, "--type", "q4_0", "--text", self.path("s.txt", b"short"))
        self.bad("invalid", "--ctx", "perplexity", MODEL, "-f", self.text, "--ctx", "3")
        self.bad("invalid", "--file is needed", "perplexity", MODEL)
        self.bad("invalid", "--file and -o", "imatrix", MODEL, "-f", self.text)
        self.bad("invalid", "is the text that is read", "imatrix", MODEL, "-f", self.text, "-o", self.text)
        folder = self.path("read")
        weights = os.path.join(folder, "model.safetensors")
        self.good("convert", MODEL, folder)
        size = os.path.getsize(weights)
        self.bad("invalid", "is the model that is read", "imatrix", folder, "-f", self.text, "-o", weights)
        self.assertEqual(os.path.getsize(weights), size)
        self.assertFalse(os.path.exists(out))

    def test_numbers_that_are_not_finite_are_refused_by_name_and_leave_nothing(self):
        f32 = self.path("f32.gguf")
        self.good("quantize", MODEL, f32, "--type", "f32")
        with open(f32, "rb") as f:
            whole = bytearray(f.read())
        for value in ("nan", "inf", "-inf"):
            at = len(whole) - 4 * 1000  # in the last tensor of the file
            whole[at:at + 4] = struct.pack("<f", float(value))
            target = self.path("none/x.gguf")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            for t in ("q4_k_m", "q8_0", "bf16"):
                code, _, err = ingot("quantize", self.path("bad.gguf", bytes(whole)), target, "--type", t)
                self.assertEqual(code, 2, err)
                self.assertRegex(err, r"tensor \S+\.weight: .*row \d+, column \d+ is .*(nan|inf)")
            self.assertEqual(os.listdir(os.path.dirname(target)), [])

    def test_a_folder_gets_whole_numbers_of_bits(self):
        folder = self.path("hf")
        self.good("quantize", MODEL, folder, "--type", "bf16")
        with open(os.path.join(folder, "config.json")) as f:
            self.assertEqual(json.load(f)["torch_dtype"], "bfloat16")


if __name__ == "__main__":
    main()
