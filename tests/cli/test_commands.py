"""Every command: help, good input, bad input with the right exit code and a sentence that names what and where."""
import json
import os
import struct

from support import INGOT, Case, ingot, main, tiny_model

COMMANDS = ["run", "generate", "serve", "embed", "inspect", "tokenize", "detokenize", "tokenizer", "template", "bench", "logits", "train",
            "convert", "quantize", "imatrix", "perplexity", "version"]


class Frame(Case):
    def test_help_names_every_command(self):
        for flag in ("help", "--help", "-h"):
            out = self.good(flag).decode()
            for c in COMMANDS:
                self.assertRegex(out, rf"(?m)^  {c} ")

    def test_every_command_has_help_with_examples(self):
        for c in COMMANDS:
            code, out, err = ingot(c, "--help")
            self.assertEqual((code, err), (0, ""), c)
            self.assertTrue(out.startswith(b"usage: ingot " + c.encode()), c)
            self.assertIn(b"examples:", out)

    def test_unknown_words_get_a_suggestion(self):
        self.bad("invalid", "`ingot template`", "tempate")
        self.bad("invalid", "`ingot help` lists all", "xyzzy")
        self.bad("invalid", "did you mean --temperature?", "generate", "m", "--temprature", "1")
        self.bad("invalid", "unknown option --xyzzy", "generate", "m", "--xyzzy")
        self.bad("invalid", "needs a value", "generate", "m", "-p")
        self.bad("invalid", "whole number", "generate", "m", "-p", "x", "-n", "many")
        self.bad("invalid", "an argument is missing", "tokenize")
        self.bad("invalid", "unexpected argument b", "tokenize", "a", "b")

    def test_options_come_from_the_environment_and_lose_to_flags(self):
        model = tiny_model(self.folder)
        run = ["generate", model, "--raw", "-p", "the", "--temperature", "0", "--json"]
        env = {"INGOT_MAX_TOKENS": "3"}
        self.assertEqual(self.good_json(*run, env=env)["usage"]["completion_tokens"], 3)
        self.assertEqual(self.good_json(*run, "-n", "2", env=env)["usage"]["completion_tokens"], 2)
        self.bad("invalid", "INGOT_MAX_TOKENS", *run, env={"INGOT_MAX_TOKENS": "x"})

    def test_instruction_sets(self):
        v = self.good_json("version", "--json")
        self.assertEqual(set(v), {"version", "commit", "numerics_version", "cpu", "isa", "isa_available"})
        self.assertIn("ref", v["isa_available"])
        self.assertEqual(self.good_json("version", "--json", env={"INGOT_ISA": "ref"})["isa"], "ref")
        self.bad("invalid", "mmx", "version", env={"INGOT_ISA": "mmx"})
        self.assertIn(v["version"].encode(), self.good("version"))


class BrokenModels(Case):
    def test_each_names_the_path_and_what_was_found(self):
        with open(tiny_model(self.folder), "rb") as f:
            whole = f.read()
        os.mkdir(self.path("empty"))
        rows = [
            ("not_found", self.path("nowhere")),
            ("not_found", self.path("empty")),
            ("corrupt", self.path("nothing.gguf", b"")),
            ("corrupt", self.path("text.gguf", b"this is no model\n" * 10)),
            ("corrupt", self.path("cut.bin", whole[:-100])),
            ("corrupt", self.path("cut.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1000, 1000))),
            ("corrupt", self.path("cut.safetensors", struct.pack("<Q", 1 << 40) + b"{}")),
        ]
        for status, path in rows:
            for command in (["generate", path, "-p", "x"], ["run", path, "-p", "x"], ["inspect", path],
                            ["logits", path, "--ids", "1", "--npy", self.path("out.npy")], ["bench", path]):
                self.bad(status, os.path.basename(path), *command)


class Models(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = tiny_model(cls.folder)

    def generate(self, *more):
        return self.good_json("generate", self.model, "--raw", "-p", "the", "-n", "12", "--json", *more)

    def test_generate_prints_only_the_completion(self):
        g = self.generate("--temperature", "0")
        self.assertEqual(len(g["ids"]), g["usage"]["completion_tokens"])
        self.assertEqual(g["usage"]["total_tokens"], g["usage"]["prompt_tokens"] + g["usage"]["completion_tokens"])
        self.assertIn(g["finish_reason"], ("stop", "length"))
        code, out, err = ingot("generate", self.model, "--raw", "-p", "the", "-n", "12", "--temperature", "0")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.decode().rstrip("\n"), g["text"].rstrip("\n"))

    def test_generate_gives_the_same_bits_in_any_company(self):
        first = self.generate("--seed", "5")
        for more in (["--threads", "1"], ["--threads", "2"], ["--prefill-chunk", "1"], ["--kv-bytes", "64M"]):
            self.assertEqual(self.generate("--seed", "5", *more), first, more)
        drawn = self.generate()
        self.assertGreaterEqual(drawn["seed"], 0)
        self.assertEqual(self.generate("--seed", str(drawn["seed"])), drawn)
        self.assertTrue(any(self.generate("--seed", str(s))["ids"] != first["ids"] for s in range(6, 12)))

    def test_generate_takes_every_option(self):
        for more in (["--exact"], ["--kv", "f32"], ["--kv", "f16"], ["--kv", "int8"], ["--ctx", "32"], ["--top-k", "3"],
                     ["--top-p", "0.5"], ["--min-p", "0.1"], ["--repetition-penalty", "1.2"], ["--stop", "e"],
                     ["--presence-penalty", "0.5", "--frequency-penalty", "0.5"]):
            self.generate(*more)
        text = self.path("prompt.txt", "the")
        self.assertEqual(self.good_json("generate", self.model, "--raw", "-f", text, "-n", "12", "--json", "--seed", "5"),
                         self.generate("--seed", "5"))

    def test_generate_refuses_nonsense(self):
        run = ["generate", self.model, "--raw", "-p", "the"]
        for option, value in (("--temperature", "-1"), ("--top-p", "2"), ("--kv", "f8"), ("--threads", "-1"),
                              ("--ctx", "-5")):
            self.bad("invalid", option.strip("-").replace("-", "_").split("_")[0], *run, option, value)
        self.bad("invalid", "-p TEXT", "generate", self.model)
        self.bad("not_found", "missing.txt", "generate", self.model, "-f", self.path("missing.txt"))

    def test_run_answers_lines_and_commands(self):
        one = self.good("run", self.model, "-p", "the", "-n", "6", "--temperature", "0")
        code, out, err = ingot("run", self.model, "-n", "6", "--temperature", "0",
                               text="the\n/help\n/nonesuch\n/temperature 0.5\n\n/stats\n/exit\nnot read\n")
        self.assertEqual(code, 0, err)
        self.assertEqual(out.strip(), one.strip())
        self.assertIn("/clear", err)
        self.assertIn("/nonesuch: no such command", err)
        self.assertIn("temperature 0.5", err)
        self.assertIn("6 output tokens", err)

    def test_run_takes_the_prompt_as_a_word_and_turns_of_several_lines(self):
        how = ["-n", "6", "--temperature", "0"]
        self.assertEqual(self.good("run", self.model, "the", *how), self.good("run", self.model, "-p", "the", *how))
        self.bad("invalid", "both say what to answer", "run", self.model, "the", "-p", "the")
        lines = self.good("run", self.model, "-p", "the\nin\n\nan", *how).strip()
        for text in ('"""the\nin\n\nan""" not this\n', '"""the\nin\n\nan\n"""\n', "the\\\nin\\\n\\\nan\n"):
            code, out, err = ingot("run", self.model, *how, text=text)
            self.assertEqual((code, out.strip()), (0, lines), (text, err))

    def test_several_stops(self):
        text = self.generate("-n", "40", "--seed", "3")["text"]
        first, second = text[12], next(c for c in text[13:] if c not in text[:13])
        cut = min(text.index(first), text.index(second))
        for more in (["--stop", first, "--stop", second], ["--stop", second, "--stop", first]):
            self.assertEqual(self.generate("-n", "40", "--seed", "3", *more)["text"], text[:cut])
        self.bad("invalid", "at most 16", "generate", self.model, "-p", "a", *["--stop", "x"] * 17)
        run = ["generate", self.model, "--raw", "-p", "the", "-n", "40", "--seed", "3", "--json"]
        self.assertEqual(self.good_json(*run, env={"INGOT_STOP": first})["text"], text[:text.index(first)])
        self.assertEqual(self.good_json(*run, "--stop", second, env={"INGOT_STOP": first})["text"],
                         text[:text.index(second)])

    def test_logits_are_an_array_of_every_row(self):
        def logits(*more):
            path = self.path("logits.npy")
            self.good("logits", self.model, "--ids", "1,5,9,70,12", "--npy", path, *more)
            with open(path, "rb") as f:
                data = f.read()
            self.assertEqual(data[:6], b"\x93NUMPY")
            n = struct.unpack("<H", data[8:10])[0]
            self.assertIn(b"'shape': (5, 270)", data[10:10 + n])
            self.assertIn(b"'<f4'", data[10:10 + n])
            self.assertEqual(len(data), 10 + n + 5 * 270 * 4)
            return data
        first = logits()
        for more in (["--threads", "1"], ["--prefill-chunk", "2"], ["--prefill-chunk", "1"]):
            self.assertEqual(logits(*more), first, more)
        logits("--exact")
        self.bad("invalid", "270", "logits", self.model, "--ids", "1,270", "--npy", self.path("x.npy"))
        self.bad("invalid", "ids", "logits", self.model, "--ids", "1,x", "--npy", self.path("x.npy"))
        self.assertFalse(os.path.exists(self.path("x.npy")))

    def test_inspect_says_what_is_in_it(self):
        i = self.good_json("inspect", self.model, "--json")
        self.assertEqual(i["family"], "llama")
        text = self.good("inspect", self.model, "--tensors").decode()
        self.assertIn("tok_embeddings.weight", text)
        self.assertIn("memory plan", text)

    def test_convert_keeps_every_bit(self):
        def logits(model):
            npy = self.path("copy.npy")
            self.good("logits", model, "--ids", "1,5,9,70", "--npy", npy, "--exact")
            with open(npy, "rb") as f:
                return f.read()
        folder, gguf = self.path("copy"), self.path("copy.gguf")
        self.assertEqual(self.good("convert", self.model, folder, "--type", "f32").decode().strip(), folder)
        self.assertEqual(logits(folder), logits(self.model))
        same = self.good_json("generate", folder, "--raw", "-p", "the", "-n", "12", "--json", "--temperature", "0")
        self.assertEqual(same["ids"], self.generate("--temperature", "0")["ids"])
        os.remove(os.path.join(folder, "tokenizer.bin"))
        self.good("convert", folder, gguf, "--type", "f32")
        self.assertEqual(self.good_json("inspect", gguf, "--json")["family"], "llama")
        self.assertEqual(logits(gguf), logits(self.model))
        self.bad("invalid", "q9_9", "convert", self.model, self.path("x.gguf"), "--type", "q9_9")
        self.good("convert", self.model, gguf, "--type", "f32")  # with its tokenizer.bin
        self.assertEqual(self.good("tokenize", gguf, text="the hat\n an é"), self.good("tokenize", self.model, text="the hat\n an é"))
        self.assertEqual(logits(gguf), logits(self.model))
        alone = self.path("alone")
        os.mkdir(alone)
        os.rename(gguf, os.path.join(alone, "one.gguf"))
        gguf = os.path.join(alone, "one.gguf")
        for source, target in ((gguf, gguf), (alone, gguf), (folder, folder), (self.path("copy/model.safetensors"), folder)):
            with open(gguf, "rb") as a, open(self.path("copy/model.safetensors"), "rb") as b:
                before = a.read(), b.read()
            self.bad("invalid", "is the model that is read", "convert", source, target)
            with open(gguf, "rb") as a, open(self.path("copy/model.safetensors"), "rb") as b:
                self.assertEqual(before, (a.read(), b.read()))

    def test_bench_measures(self):
        b = self.good_json("bench", self.model, "--prompt", "16", "--gen", "4", "--json")
        self.assertGreater(b["prefill_tok_s"], 0)
        self.assertGreater(b["decode_tok_s"], 0)
        config = self.path("config.json", json.dumps({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 257,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "tie_word_embeddings": False}))
        b = self.good_json("bench", "--random", config, "--type", "q8_0", "--prompt", "16", "--gen", "4", "--json")
        self.assertGreater(b["decode_tok_s"], 0)
        self.bad("invalid", "q9_9", "bench", "--random", config, "--type", "q9_9")


class Tokens(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = tiny_model(cls.folder)
        cls.alone = os.path.join(cls.folder, "tokenizer.bin")

    def test_lines_become_ids_and_come_back(self):
        text = "the\n\n an é\ttab\nlast"
        out = self.good("tokenize", self.model, "--no-special", text=text)
        self.assertEqual(out.count(b"\n"), 4)
        self.assertEqual(self.good("tokenize", self.alone, "--no-special", text=text), out)
        file = self.path("text.txt", text)
        self.assertEqual(self.good("tokenize", self.model, "--no-special", "--file", file), out)
        back = self.good("detokenize", self.model, text=out).decode()
        self.assertEqual([line.strip(" ") for line in back.split("\n")], [line.strip(" ") for line in text.split("\n")] + [""])

    def test_bos_is_added_unless_told_not_to(self):
        plain = self.good("tokenize", self.model, "--no-special", text="the").strip()
        self.assertEqual(self.good("tokenize", self.model, text="the").strip(), b"1," + plain)

    def test_json_lines_hold_any_text(self):
        lines = ["the", "", "a\nb", "tab\t", "é😀"]
        text = "".join(json.dumps(s) + "\n" for s in lines)
        out = self.good("tokenize", self.model, "--jsonl", "--no-special", text=text)
        ids = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(len(ids), len(lines))
        back = [json.loads(line) for line in self.good("detokenize", self.model, "--jsonl", text=out).splitlines()]
        self.assertEqual([s.removeprefix(" ") for s in back], lines)

    def test_bad_lines_are_named(self):
        code, out, err = ingot("tokenize", self.model, "--jsonl", text='"ok"\n17\n')
        self.assertEqual(code, 2)
        self.assertIn("input line 2: expected a JSON string", err)
        self.bad("corrupt", "input line 1", "tokenize", self.model, "--jsonl", text='"open')
        self.bad("invalid", "input line 1: \"x\" is no token id", "detokenize", self.model, text="x\n")
        self.bad("invalid", "input line 1", "detokenize", self.model, text="99999\n")
        self.bad("invalid", "input line 1", "detokenize", self.model, "--jsonl", text="{}\n")
        self.bad("not_found", "nowhere", "tokenize", self.path("nowhere"))
        self.bad("corrupt", "tokenizer.json", "tokenize", self.path("notes.txt", "hello " * 100))

    def test_a_trained_vocabulary_loads(self):
        corpus = self.path("corpus.txt", "the cat and the hat sat on the mat with the other cat\n" * 200)
        folder = self.path("tok")
        out = self.good("tokenizer", "train", corpus, "--vocab-size", "300", "--out", folder)
        self.assertEqual(out.decode().strip(), folder)
        ids = self.good("tokenize", folder, text="the cat sat\n")
        self.assertLess(ids.count(b","), 8)
        self.assertEqual(self.good("detokenize", folder, text=ids), b"the cat sat\n")
        self.bad("invalid", "expected train", "tokenizer", "polish", corpus)
        self.bad("invalid", "--vocab-size", "tokenizer", "train", corpus, "--out", folder)
        self.bad("invalid", "--vocab-size 5", "tokenizer", "train", corpus, "--out", folder, "--vocab-size", "5")
        self.bad("not_found", "nowhere", "tokenizer", "train", self.path("nowhere"), "--vocab-size", "300", "--out", folder)


class Templates(Case):
    CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
              "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")

    def test_any_template_with_any_context(self):
        t = self.path("t.jinja", "{% for x in xs %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}|{{ ok }}|"
                                 "{{ strftime_now('%Y-%m-%d') }}\n")
        c = self.path("c.json", '{"xs": [1, "zwei", 3.0], "ok": true}')
        run = ["template", "--template", t, "--context", c, "--now", "2025-07-10T12:00:00Z"]
        self.assertEqual(self.good(*run, env={"TZ": "UTC"}), b"1, zwei, 3.0|True|2025-07-10")
        self.assertEqual(self.good(*run, "--style", "json", env={"TZ": "UTC"}), b"1, zwei, 3.0|true|2025-07-10")
        self.assertEqual(self.good_json(*run, "--json", env={"TZ": "UTC"}), {"text": "1, zwei, 3.0|True|2025-07-10"})

    def test_messages_and_what_users_wrote(self):
        t = self.path("chatml.jinja", self.CHATML)
        m = self.path("m.json", '[{"role": "user", "content": "Hi<|im_end|>"}]')
        run = ["template", "--template", t, "--messages", m]
        text = "<|im_start|>user\nHi<|im_end|><|im_end|>\n"
        self.assertEqual(self.good(*run).decode(), text + "<|im_start|>assistant\n")
        self.assertEqual(self.good(*run, "--no-generation-prompt").decode(), text)
        pieces = self.good_json(*run, "--json")["pieces"]
        self.assertEqual([p["text"] for p in pieces if p["plain"]], ["Hi<|im_end|>"])
        request = self.path("r.json", '{"messages": [{"role": "user", "content": "Hi<|im_end|>"}], "tools": []}')
        self.assertEqual(self.good("template", "--template", t, "--messages", request, "--no-generation-prompt").decode(), text)
        with open(m, "rb") as f:
            self.assertEqual(self.good("template", "--template", t, "--messages", "-", "--no-generation-prompt", text=f.read()).decode(), text)

    def test_tools_and_more_variables(self):
        t = self.path("tools.jinja", "{{ tools[0].name }}/{{ enable_thinking }}")
        m = self.path("m.json", '[{"role": "user", "content": "x"}]')
        tools = self.path("tools.json", '[{"name": "f"}]')
        self.assertEqual(self.good("template", "--template", t, "--messages", m, "--tools", tools, "--kwargs", '{"enable_thinking": false}'), b"f/False")
        self.bad("invalid", "--kwargs", "template", "--template", t, "--messages", m, "--kwargs", "[]")

    def test_a_model_without_template_uses_the_built_in_form(self):
        model = tiny_model(self.folder)
        m = self.path("m.json", '[{"role": "user", "content": "Hi"}]')
        code, out, err = ingot("template", model, "--messages", m)
        self.assertEqual((code, out), (0, b"User: Hi\nAssistant:"))
        self.assertIn("no chat template", err)

    def test_a_model_whose_template_cannot_be_used_still_continues_text(self):
        folder = self.path("odd")
        tiny_model(self.folder, vocab=300)
        self.good("convert", self.path("tiny.bin"), folder, "--type", "f32")
        os.remove(os.path.join(folder, "tokenizer.bin"))
        corpus = self.path("corpus.txt", "the cat and the hat sat on the mat with the other cat\n" * 200)
        self.good("tokenizer", "train", corpus, "--vocab-size", "300", "--out", folder)
        run = ["generate", folder, "-p", "the", "-n", "4", "--temperature", "0", "--json"]
        for status, source, says in (("unsupported", "{% include 'x' %}", "the tag 'include'"), ("corrupt", "{% if x %}", "line 1")):
            config = {"chat_template": source, "tokenizer_class": "PreTrainedTokenizerFast"}
            self.path("odd/tokenizer_config.json", json.dumps(config))
            self.assertEqual(self.good_json(*run, "--raw")["usage"]["completion_tokens"], 4)
            self.assertIn(says, self.bad(status, "chat template of odd", *run))
            self.assertIn(says, self.bad(status, "chat template of odd", "run", folder, "-p", "the"))
            self.assertIn("template: cannot be used, ", self.good("inspect", folder).decode())
            self.assertIn(says, self.good_json("inspect", folder, "--json")["chat_template_error"])

    def test_failures_say_why_and_where(self):
        c = self.path("c.json", "{}")
        rows = [
            ("invalid", "Roles must alternate", "{{ raise_exception('Roles must alternate') }}"),
            ("unsupported", "line 2: the filter 'shout'", "\n{{ 'a' | shout }}"),
            ("unsupported", "the tag 'include'", "{% include 'x' %}"),
            ("corrupt", "line 1", "{% if x %}"),
            ("limit", "step budget", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
            ("limit", "output budget", "{{ 'x' * 10000000000 }}"),
        ]
        for status, says, source in rows:
            self.bad(status, says, "template", "--template", self.path("bad.jinja", source), "--context", c)
        t = self.path("t.jinja", "x")
        self.bad("corrupt", "c.json: line 1", "template", "--template", t, "--context", self.path("c.json", "{"))
        self.bad("invalid", "messages: expected", "template", "--template", t, "--messages", self.path("m.json", "[]"))
        self.bad("invalid", "is missing", "template", "--messages", c)
        self.bad("invalid", "one of --messages", "template", "--template", t)
        self.bad("invalid", "--now", "template", "--template", t, "--context", self.path("c.json", "{}"), "--now", "noon")
        self.bad("invalid", "--style", "template", "--template", t, "--context", self.path("c.json", "{}"), "--style", "x")


main()
