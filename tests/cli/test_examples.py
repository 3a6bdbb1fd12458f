"""Every example that --help prints is run, as it stands, in a folder that holds the files it names."""
import json
import os
import re
import shutil
import signal
import subprocess
import unittest

from support import INGOT, ROOT, Case, ingot, main, tiny_model

# Of another program, or with a certificate: tests/gateway runs these.
ELSEWHERE = re.compile(r"^curl |--tls-cert")


def commands():
    return re.findall(r"(?m)^  (\w+) ", ingot("help")[1].decode().split("\nexamples:")[0])


def examples(text):
    return [line.strip() for line in text.decode().split("\nexamples:\n")[1].splitlines() if line.strip()]


class Examples(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        at = lambda *names: os.path.join(cls.folder, *names)

        def write(name, text):
            with open(at(name), "w") as f:
                f.write(text)

        text = "the cat and the hat sat on the mat with the other cat\n" * 200
        for name in ("a.txt", "b.txt", "corpus.txt", "text.txt", "book.txt", "calibration.txt", "wikitext2-valid.txt"):
            write(name, text)
        write("lines.jsonl", '"the cat"\n"a\\nb"\n')
        write("chat.json", '[{"role": "user", "content": "Hi"}]')
        write("chat.jinja", "{% for x in xs %}{{ x }}{% endfor %}")
        write("person.json", '{"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}')
        write("context.json", '{"xs": [1, 2]}')
        tiny = tiny_model(cls.folder, ctx=1024)
        for command in (["tokenizer", "train", at("a.txt"), "--vocab-size", "270", "--out", at("model")],
                        ["convert", tiny, at("model"), "--type", "f32"]):
            code, _, err = ingot(*command)
            assert code == 0, err
        os.remove(at("model", "tokenizer.bin"))
        shutil.copy(at("model", "tokenizer.json"), at("tokenizer.json"))
        assert ingot("convert", at("model"), at("model.gguf"))[0] == 0
        shutil.copy(at("model.gguf"), at("other.gguf"))
        with open(os.path.join(ROOT, "tests", "golden", "train", "tiny", "config.json")) as f:
            shape = json.load(f)
        os.makedirs(at("bench", "configs"))
        for name in ("config.json", "bench/configs/qwen2.5-0.5b.json"):
            write(name, json.dumps({**shape, "vocab_size": 512, "max_position_embeddings": 1024}))
        write("config.yaml", "model: config.json\ndata: a.txt\ntokenizer: model/\noutput_dir: trained\nmax_steps: 3\n"
                             "block_size: 16\nper_device_train_batch_size: 2\nthreads: 1\n")
        cls.env = {**{k: v for k, v in os.environ.items() if not k.startswith("INGOT_")},
                   "PATH": os.path.dirname(INGOT) + ":" + os.environ["PATH"], "HOME": cls.folder}

    def shell(self, line):
        return subprocess.run(["sh", "-c", line], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=250)

    def serve(self, line):
        """Until it says that it is ready; then it is asked to stop."""
        p = subprocess.Popen("exec " + line + " --port 0", shell=True, cwd=self.folder, env=self.env,
                             stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            self.assertTrue(any("ready http://" in text for text in p.stderr), line)
            p.send_signal(signal.SIGTERM)
            self.assertEqual(p.wait(60), 0)
        finally:
            p.kill()
            p.wait()
            p.stderr.close()

    def test_examples_run(self):
        n = 0
        # `tokenizer` makes what `train` reads
        for command in sorted(commands(), key=lambda c: (c != "tokenizer", c)):
            for line in examples(self.good("help", command)):
                with self.subTest(example=line):
                    if ELSEWHERE.search(line):
                        continue
                    self.assertRegex(line, r"\bingot " + command + r"\b")
                    if command == "serve":
                        self.serve(line)
                    else:
                        p = self.shell(self.quick(line))
                        self.assertEqual(p.returncode, 0, p.stderr.decode())
                    n += 1
        self.assertGreater(n, 25)

    @staticmethod
    def quick(line):
        """The same run, smaller where it would take minutes, or where the model is too small for it."""
        if line.endswith("--type awq"):
            return line + " --group 32"
        if "--max_steps 200" in line:
            return line.replace("200", "4")
        return line + " --max_steps 2 --block_size 16" if line.startswith("ingot train pretrain --model") else line

    def test_the_first_examples_run(self):
        for line in examples(self.good("help")):
            with self.subTest(example=line):
                if " serve " in line:
                    self.serve(line.replace(" --port 8080", ""))
                else:
                    p = self.shell(line)
                    self.assertEqual(p.returncode, 0, p.stderr.decode())

    def test_help_comes_in_three_ways(self):
        whole = self.good()
        for spelling in ("help", "--help", "-h"):
            self.assertEqual(self.good(spelling), whole)
        for command in commands():
            text = self.good(command, "--help")
            self.assertEqual(self.good("help", command), text)
            self.assertEqual(self.good(command, "-h"), text)


main()
