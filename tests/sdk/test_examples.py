"""The library as a user meets it: what it exports, the examples built against it (shared, static, installed) and run,
and their answers the command line's."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

INGOT = os.path.abspath(sys.argv[1])
BUILD = os.path.dirname(INGOT)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEADER = os.path.join(ROOT, "include", "ingot.h")
SHARED, STATIC = os.path.join(BUILD, "libingot.so"), os.path.join(BUILD, "libingot.a")
MODEL = os.path.join(ROOT, "models", "storyteller.gguf")
ADAPTERS = os.path.join(ROOT, "tests", "golden", "lora")
PROMPT = "Once upon a time"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]

if not os.path.exists(SHARED) or not os.path.exists(STATIC):
    print("skipped: libingot is not built")
    sys.exit(77)
with open(os.path.join(BUILD, "CMakeCache.txt")) as f:
    KIND = re.search(r"INGOT_BUILD:\w+=(\w+)", f.read())[1]
SANITIZE = {"asan": ["-fsanitize=address,undefined"], "tsan": ["-fsanitize=thread"], "coverage": ["--coverage"]}.get(KIND, [])


def run(*command, **kw):
    p = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300,
                       env={**os.environ, "LSAN_OPTIONS": "detect_leaks=1"}, **kw)
    assert p.returncode == 0, f"{command}: {p.stdout}{p.stderr}"
    return p.stdout


def declared():
    with open(HEADER) as f:
        return set(re.findall(r"INGOT_API[^;(]*?\b(ingot_\w+)\(", f.read()))


class Library(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.out = cls.temporary.name

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def build(self, source, *flags, compiler="cc", standard="-std=c11"):
        program = os.path.join(self.out, "program")
        run(compiler, standard, *STRICT, *SANITIZE, os.path.join(ROOT, "examples", source), "-o", program, *flags)
        return program

    def shared(self):
        return ["-I", os.path.dirname(HEADER), "-L", BUILD, "-lingot", f"-Wl,-rpath,{BUILD}"]

    def expected(self, *options):
        return run(INGOT, "generate", MODEL, "-p", PROMPT, "--cache", "off", *options)

    def test_exports_are_the_header_and_nothing_else(self):
        names = {line.split()[-1].split("@")[0] for line in run("nm", "-D", "--defined-only", SHARED).splitlines()}
        self.assertEqual(names, declared())
        names = {line.split()[-1] for line in run("nm", "--defined-only", "--extern-only", STATIC).splitlines()
                 if re.match(r"[0-9a-f]+ [A-Z] ", line)}
        if KIND == "release":
            self.assertEqual(names, declared())

    def test_versions_agree(self):
        with open(HEADER) as f:
            text = f.read()
        numbers = [re.search(rf"INGOT_VERSION_{part} (\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH")]
        version = re.search(r'INGOT_VERSION +"(.*)"', text)[1]
        abi = re.search(r"INGOT_ABI +(\d+)", text)[1]
        self.assertEqual(".".join(numbers), version)
        self.assertIn(f"libingot.so.{abi}]", run("readelf", "-d", SHARED))
        self.assertTrue(os.path.exists(f"{SHARED}.{version}"))
        with open(os.path.join(BUILD, "ingot.pc")) as f:
            self.assertIn(f"Version: {version}\n", f.read())
        self.assertIn(f'"version":"{version}"', run(INGOT, "version", "--json"))
        self.assertNotIn("TEXTREL", run("readelf", "-d", SHARED))

    def test_header_stands_alone(self):
        for compiler, standard in ("cc", "-std=c99"), ("c++", "-std=c++11"), ("clang", "-std=c17"):
            if shutil.which(compiler):
                run(compiler, standard, *STRICT, "-fsyntax-only", "-I", os.path.dirname(HEADER), "-x",
                    "c++" if compiler == "c++" else "c", "-", input="#include <ingot.h>\n")

    def test_one_call(self):
        program = self.build("generate.c", *self.shared())
        self.assertEqual(run(program, MODEL, PROMPT), self.expected("-n", "40", "--seed", "7"))
        p = subprocess.run([program, "nothing.gguf", PROMPT], capture_output=True, text=True)
        self.assertEqual((p.returncode, p.stdout), (1, ""))
        self.assertIn("nothing.gguf", p.stderr)

    def test_one_call_linked_statically(self):
        libraries = run("pkg-config", "--libs", "libcrypto", "yaml-0.1", "zlib").split()
        program = self.build("generate.c", "-I", os.path.dirname(HEADER), STATIC, *libraries, "-lpthread", "-lm")
        self.assertNotIn("libingot", run("readelf", "-d", program))
        self.assertEqual(run(program, MODEL, PROMPT), self.expected("-n", "40", "--seed", "7"))

    def test_streams(self):
        program = self.build("streams.c", *self.shared())
        prompts = [PROMPT, "The count", "A man", "In the morning", "It was"] * 3
        lines = run(program, MODEL, *prompts).split(" tokens\n")[:-1]
        self.assertEqual(len(lines), len(prompts))
        for i, line in enumerate(lines):
            self.assertEqual(line, lines[i % 5])
        alone = run(INGOT, "generate", MODEL, "-p", PROMPT, "-n", "24", "--temperature", "0", "--cache", "off")
        self.assertEqual(lines[0].split("|")[1], alone.rstrip("\n"))

    def test_chat_in_cpp(self):
        if not shutil.which("c++"):
            self.skipTest("no C++ compiler")
        program = self.build("chat.cpp", *self.shared(), compiler="c++", standard="-std=c++17")
        out = run(program, MODEL, input="Hello\nAnd then?\n")
        self.assertEqual(out, run(program, MODEL, input="Hello\nAnd then?\n"))
        self.assertGreaterEqual(out.count("\n"), 2)

    def test_python_by_ctypes(self):
        if SANITIZE:
            self.skipTest("Python is not built with the sanitizer")
        out = run(sys.executable, os.path.join(ROOT, "examples", "generate.py"), SHARED, MODEL, PROMPT)
        self.assertEqual(out, self.expected("-n", "40", "--seed", "7"))

    def test_embeddings_by_ctypes(self):
        if SANITIZE:
            self.skipTest("Python is not built with the sanitizer")
        texts = [PROMPT, "In the evening", PROMPT]
        out = run(sys.executable, os.path.join(ROOT, "examples", "embed.py"), SHARED, MODEL, *texts)
        rows = [json.loads(line) for line in
                run(INGOT, "embed", MODEL, "--pooling", "mean", "--cache", "off", *texts).splitlines()]
        self.assertEqual([line.split("  ", 1)[1] for line in out.splitlines()], texts)
        for line, row in zip(out.splitlines(), rows):
            self.assertAlmostEqual(float(line.split()[0]), sum(a * b for a, b in zip(rows[0], row)), delta=2e-6)
        self.assertLess(float(out.splitlines()[1].split()[0]), 0.9999)

    def test_adapters_by_ctypes(self):
        if SANITIZE:
            self.skipTest("Python is not built with the sanitizer")
        out = run(sys.executable, os.path.join(ROOT, "tests", "sdk", "adapters.py"), SHARED, ADAPTERS)
        self.assertEqual(json.loads(out), {"tokens": 3, "other": 3})

    def test_installed(self):
        prefix = os.path.join(self.out, "usr")
        run("cmake", "--install", BUILD, "--prefix", prefix)
        pc = glob.glob(os.path.join(prefix, "lib*", "**", "ingot.pc"), recursive=True)
        self.assertEqual(len(pc), 1)
        flags = subprocess.run(["pkg-config", f"--define-variable=prefix={prefix}", "--cflags", "--libs", "ingot"],
                               capture_output=True, text=True, check=True,
                               env={**os.environ, "PKG_CONFIG_PATH": os.path.dirname(pc[0])}).stdout.split()
        program = self.build("generate.c", *flags, f"-Wl,-rpath,{os.path.dirname(os.path.dirname(pc[0]))}")
        self.assertEqual(run(program, MODEL, PROMPT), self.expected("-n", "40", "--seed", "7"))
        self.assertTrue(os.access(os.path.join(prefix, "bin", "ingot"), os.X_OK))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
