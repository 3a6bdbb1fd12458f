"""generate --lora: the adapter's tokens, saved and proved again; without it, or with another, the answer is refused."""
import json
import os

import support
from support import Case, ROOT

LORA = os.path.join(ROOT, "tests", "golden", "lora")


class Lora(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        support.tiny_model(cls.folder)  # its vocabulary serves the tiny model of the goldens, whose ids are below 64
        cls.model = os.path.join(cls.folder, "model")
        os.mkdir(cls.model)
        for name in "config.json", "model.safetensors":
            os.symlink(os.path.join(LORA, "qwen2", name), os.path.join(cls.model, name))
        words = {chr(33 + i): i for i in range(64)}
        tokenizer = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                     "post_processor": None, "decoder": None,
                     "model": {"type": "BPE", "vocab": words, "merges": []}}
        with open(os.path.join(cls.model, "tokenizer.json"), "w") as f:
            json.dump(tokenizer, f)

    def answer(self, *options):
        return self.good_json("generate", self.model, "--raw", "-p", "ABCDEFG", "-n", "20", "--temperature", "0",
                              "--cache", "off", "--json", *options)["ids"]

    def test_adapters_change_answers(self):
        ids = [self.answer(*(["--lora", os.path.join(LORA, a)] if a else [])) for a in (None, "all", "some", "first")]
        self.assertEqual(len({tuple(i) for i in ids[:3]}), 3)
        self.assertEqual(ids[1], self.answer("--lora", os.path.join(LORA, "all"), "--threads", "1"))

    def test_run_takes_an_adapter(self):
        ask = ["ABCDEFG", "-n", "20", "--temperature", "0", "--cache", "off"]
        lora = ["--lora", os.path.join(LORA, "all")]
        plain, tuned = self.good("run", self.model, *ask), self.good("run", self.model, *ask, *lora)
        self.assertNotEqual(plain, tuned)
        self.assertEqual(tuned, self.good("generate", self.model, "-p", *ask, *lora))

    def test_an_adapters_answer_is_proved_with_it_alone(self):
        path = self.path("answer.json")
        self.answer("--lora", os.path.join(LORA, "all"), "--save", path)
        self.good("replay", path, self.model, "--cache", "off", "--lora", os.path.join(LORA, "all"))
        self.bad("invalid", "adapter differs", "replay", path, self.model, "--cache", "off")
        self.bad("invalid", "adapter differs", "replay", path, self.model, "--cache", "off", "--lora",
                 os.path.join(LORA, "some"))

    def test_no_adapter(self):
        self.bad("not_found", "adapter_config.json", "generate", self.model, "-p", "A", "--lora", self.folder)
        self.bad("unsupported", "c_attn", "generate", self.model, "-p", "A", "--lora", os.path.join(LORA, "conv"))


if __name__ == "__main__":
    support.main()
