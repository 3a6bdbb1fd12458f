"""What a new user gets wrong: each command answers with one sentence that names what and where, and the right exit code."""
import os
import subprocess
import unittest

from support import EXIT, INGOT, Case, ingot, main, tiny_model

STREAM_COMMANDS = [["help"], [], ["version"], ["version", "--json"], ["generate", "--help"], ["train", "--help"]]


class BadInput(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = tiny_model(cls.folder)
        cls.gguf = os.path.join(cls.folder, "tiny.gguf")
        assert ingot("convert", cls.model, os.path.join(cls.folder, "hf"), "--type", "f32")[0] == 0
        os.remove(os.path.join(cls.folder, "hf", "tokenizer.bin"))
        assert ingot("convert", os.path.join(cls.folder, "hf"), cls.gguf)[0] == 0

    def of_a_model(self, model):
        """Every command that reads a model, reading this one."""
        chat = self.path("chat.json", '[{"role": "user", "content": "Hi"}]')
        return [["inspect", model], ["tokenize", model], ["detokenize", model], ["generate", model, "-p", "x"],
                ["run", model, "-p", "x"], ["serve", model, "--port", "0"], ["template", model, "--messages", chat],
                ["bench", model], ["logits", model, "--ids", "1", "--npy", self.path("out.npy")],
                ["convert", model, self.path("out.gguf")]]

    def test_models_that_are_none(self):
        with open(self.gguf, "rb") as f:
            whole = f.read()
        os.makedirs(self.path("empty"), exist_ok=True)
        os.makedirs(self.path("config"), exist_ok=True)
        self.path("config/config.json", '{"model_type": "llama"}')
        rows = [
            ("not_found", self.path("nowhere"), "nowhere"),
            ("not_found", self.path("empty"), "empty"),
            ("not_found", self.path("config"), "expected"),
            ("corrupt", self.path("cut.gguf", whole[:200]), "truncated or damaged"),
            ("corrupt", self.path("cut-later.gguf", whole[:-500]), "truncated or damaged"),
            ("corrupt", self.path("zero.gguf", b""), "the file is empty"),
            ("corrupt", self.path("text.bin", b"hello world, this is no model"), "that Ingot knows"),
            ("invalid", "/dev/null", "/dev/null: expected a regular file, found a device"),
            ("invalid", "", "an argument is empty; usage: ingot"),
        ]
        for status, model, says in rows:
            for command in self.of_a_model(model):
                with self.subTest(command=command):
                    message = self.bad(status, says, *command)
                    self.assertLess(len(message), 500)
        self.assertFalse(os.path.exists(self.path("out.gguf")) or os.path.exists(self.path("out.npy")))

    @unittest.skipUnless(hasattr(os, "setresuid"), "no setresuid here")
    def test_files_that_may_not_be_read(self):
        locked = self.path("locked.gguf", b"GGUF")
        os.chmod(locked, 0)
        os.chmod(self.folder, 0o755)
        root = os.getuid() == 0  # who may read anything: so become nobody

        def nobody():
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)

        try:
            subprocess.run([INGOT, "version"], preexec_fn=nobody if root else None, check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError):
            self.skipTest("nobody may not run the binary here")
        for command in self.of_a_model(locked):
            p = subprocess.run([INGOT, *command], preexec_fn=nobody if root else None, capture_output=True, stdin=subprocess.DEVNULL)
            self.assertEqual(p.returncode, EXIT["denied"], (command, p.stderr))
            self.assertIn(b"locked.gguf: cannot open: Permission denied", p.stderr)

    def test_a_full_disk(self):
        for command in STREAM_COMMANDS + [c for c in self.of_a_model(self.model) if c[0] not in ("serve", "logits", "convert")] + [
                ["generate", self.model, "-p", "x", "-n", "3", "--json"], ["inspect", self.model, "--json"],
                ["convert", self.model, self.path("copy")],
                ["tokenizer", "train", self.path("a.txt", "text"), "--vocab-size", "257", "--out", self.path("tok")]]:
            with open("/dev/full", "wb") as full:
                p = subprocess.run([INGOT, *command], stdout=full, stderr=subprocess.PIPE, input=b"1\n")
            self.assertEqual(p.returncode, EXIT["io"], (command, p.stderr))
            self.assertTrue(p.stderr.startswith((b"ingot", b"trained")), p.stderr)
            self.assertIn(b"standard output", p.stderr)
        self.bad("io", "/dev/full: cannot write: No space left", "logits", self.model, "--ids", "1", "--npy", "/dev/full")
        self.assertFalse(os.path.isfile("/dev/full"), "the device was replaced by a file")

    def test_arguments(self):
        m, file = self.model, self.path("file.txt", "text")
        npy = ["--npy", self.path("x.npy")]
        train = ["tokenizer", "train", file, "--vocab-size", "300", "--out"]
        rows = [
            ("did you mean `ingot generate`?", "genrate"), ('unknown command ""', ""), ("`ingot --help`", "--hepl"),
            ('unknown command "foo"', "help", "foo"), ("did you mean --tensors?", "inspect", m, "--tenors"),
            ("did you mean --top-k?", "generate", m, "--to", "1"), ("did you mean -n?", "generate", m, "--n", "3"),
            ("--raw takes no value", "generate", m, "--raw=1"), ("an argument is missing", "generate"),
            ("one of -p TEXT and -f FILE", "generate", m), ("unexpected argument more", "generate", m, "more", "-p", "x"),
            ("--max-tokens 99999999999: expected 0 to 16777216", "generate", m, "-p", "x", "-n", "99999999999"),
            ("--max-tokens -1", "generate", m, "-p", "x", "-n", "-1"),
            ("--temperature nan: expected a number", "generate", m, "-p", "x", "--temperature", "nan"),
            ("--top-p: top_p is 0", "generate", m, "-p", "x", "--top-p", "0"),
            ("--ctx 99999999999: expected", "generate", m, "-p", "x", "--ctx", "99999999999"),
            ("expected a size such as", "generate", m, "-p", "x", "--kv-bytes", "99999999999G"),
            ("expected a whole number", "generate", m, "-p", "x", "--seed", "99999999999999999999"),
            ("found a folder", "generate", m, "-f", self.folder), ("not UTF-8", "generate", m, "-p", b"a\xff"),
            ('"270": expected ids from 0 to 269', "logits", m, "--ids", "1,270", *npy),
            ('"-1": expected ids', "logits", m, "--ids", "-1", *npy), ("at least one id", "logits", m, "--ids", "", *npy),
            ("found a folder", "logits", m, "--ids", "1", "--npy", self.folder),
            ("--ids and --npy are needed", "logits", m, "--ids", "1"),
            ("expected a list of at least one message", "template", m, "--messages", self.path("m.json", '{"messages": 3}')),
            ("expected a JSON list of tools", "template", m, "--messages", self.path("c.json", '[{"role": "user", "content": "x"}]'),
             "--tools", self.path("t.json", "{}")),
            ("MODEL or --template FILE is missing", "template"), ("--prompt 0: expected 1 to", "bench", m, "--prompt", "0"),
            ("--type goes with --random", "bench", m, "--type", "q8_0"),
            ("one of MODEL and --random", "bench"), ("file.txt is a file", "convert", m, file),
            ("--type q9: expected f32", "convert", m, self.path("x.gguf"), "--type", "q9"),
            ("an argument is empty", "convert", m, ""), ("--port 99999: expected 0 to 65535", "serve", m, "--port", "99999"),
            ("expected pretrain", "train", "foo"), ("did you mean max_steps?", "train", "pretrain", "--maxsteps", "3"),
            ("expected a file, found a folder", "train", "pretrain", self.folder), ("a text file is missing", "tokenizer", "train"),
            ("found a file of that name", *train, file), ("--min-frequency 0", *train, self.path("tok"), "--min-frequency", "0"),
            ("holds no text", "tokenizer", "train", self.path("none.txt", ""), "--vocab-size", "300", "--out", self.path("tok")),
            ('no pre-tokenizer "x"', *train, self.path("tok"), "--pretokenizer", "x"), ("unexpected argument x", "version", "x"),
        ]
        for says, *command in rows:
            with self.subTest(command=command):
                code, out, err = self.run_bytes(*command)
                self.assertEqual((code, out), (2, b""), err)
                self.assertIn(says, err)
                self.assertEqual(err.count("\n"), 1, err)

    def run_bytes(self, *args):
        p = subprocess.run([INGOT, *args], input=b"", capture_output=True)
        return p.returncode, p.stdout, p.stderr.decode()

    def test_input_text(self):
        self.assertEqual(self.good("tokenize", self.model, text=b""), b"")
        self.assertEqual(self.good("detokenize", self.model, text=b""), b"")
        code, out, err = ingot("tokenize", self.model, text=b"ok\na\xff\n")
        self.assertEqual((code, out.count(b"\n")), (2, 1))
        self.assertIn("input line 2: tokenizer: the text to encode is not UTF-8", err)
        self.bad("corrupt", "input line 1: expected a JSON string: column 1", "tokenize", self.model, "--jsonl", text="abc\n")
        self.bad("corrupt", "input line 1: expected a JSON array of ids: column 2", "detokenize", self.model, "--jsonl", text="[x\n")
        self.bad("corrupt", "bad.jinja: template line 1", "template", self.model, "--template", self.path("bad.jinja", "{{ x"),
                 "--messages", self.path("c.json", '[{"role": "user", "content": "x"}]'))
        self.bad("corrupt", "m.json: line 1", "template", self.model, "--messages", self.path("m.json", ""))


main()
