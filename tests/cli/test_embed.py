"""embed: a tiny decoder made to pool, by every way of giving texts; what cannot be embedded is said."""
import json
import math
import os

from support import Case, main, tiny_model


class Embed(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = tiny_model(cls.folder)

    def vectors(self, *args, **more):
        return [json.loads(line) for line in self.good("embed", self.model, "--pooling", "last", *args, **more).splitlines()]

    def test_vectors_have_length_one_and_do_not_depend_on_company_or_threads(self):
        both = self.vectors("the cat", "on the mat and more")
        self.assertEqual([len(v) for v in both], [32, 32])
        for v in both:
            self.assertAlmostEqual(math.fsum(x * x for x in v), 1, places=6)
        self.assertNotEqual(both[0], both[1])
        self.assertEqual(self.vectors("the cat", "-t", "1"), both[:1])
        self.assertEqual(self.vectors("on the mat and more", "-t", "3"), both[1:])
        file = self.path("lines", "the cat\non the mat and more\n")
        self.assertEqual(self.vectors("--file", file), both)
        self.assertEqual(self.vectors(text="the cat\non the mat and more"), both)

    def test_pooling_shortening_and_raw_vectors(self):
        raw, = self.vectors("the cat", "--raw")
        short, = self.vectors("the cat", "--dimensions", "5")
        length = math.sqrt(math.fsum(x * x for x in raw[:5]))
        for got, whole in zip(short, raw):
            self.assertAlmostEqual(got, whole / length, places=6)
        self.assertEqual(len(short), 5)
        kinds = {p: self.good("embed", self.model, "--pooling", p, "the cat sat") for p in ("mean", "cls", "last")}
        self.assertEqual(len(set(kinds.values())), 3)

    def test_json_is_the_servers_object(self):
        a = self.good_json("embed", self.model, "--pooling", "mean", "--json", "the cat", "a")
        self.assertEqual([d["index"] for d in a["data"]], [0, 1])
        self.assertEqual(a["usage"]["prompt_tokens"], a["usage"]["total_tokens"])
        self.assertGreater(a["usage"]["prompt_tokens"], 2)
        self.assertEqual(a["model"], "tiny")

    def test_what_cannot_be_is_said(self):
        pooled = ("embed", self.model, "--pooling", "mean")
        self.bad("invalid", "--pooling mean, cls, last, max", "embed", self.model, "a")
        self.bad("invalid", "--pooling best", "embed", self.model, "--pooling", "best", "a")
        self.bad("invalid", "expected 1 to 32", *pooled, "a", "--dimensions", "33")
        self.bad("invalid", "no prompt of this name", *pooled, "a", "--prompt", "query")
        self.bad("invalid", "only a reranker", *pooled, "a", "--query", "b")
        self.bad("invalid", "text 2", *pooled, "a", "the " * 200)
        self.good(*pooled, "a", "the " * 200, "--truncate")
        self.bad("not_found", "nofile", *pooled, "--file", self.path("nofile"))
        self.bad("unsupported", "GGUF only", "convert", self.encoder(), self.path("copy"))
        self.bad("unsupported", "generates no text", "generate", self.encoder(), "-p", "a")

    def encoder(self):
        """An encoder without weights is enough for what is refused before they are read."""
        folder = self.path("encoder")
        os.makedirs(folder, exist_ok=True)
        return self.tiny_bert(folder)

    def tiny_bert(self, folder):
        import struct
        config = dict(model_type="bert", vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
                      intermediate_size=4, max_position_embeddings=8, type_vocab_size=2)
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f)
        shapes = {"embeddings.word_embeddings.weight": [8, 4], "embeddings.position_embeddings.weight": [8, 4],
                  "embeddings.token_type_embeddings.weight": [2, 4]}
        layer = "encoder.layer.0."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
                     "intermediate.dense", "output.dense"):
            shapes[layer + name + ".weight"], shapes[layer + name + ".bias"] = [4, 4], [4]
        for name in ("embeddings.", layer + "attention.output.", layer + "output."):
            shapes[name + "LayerNorm.weight"] = shapes[name + "LayerNorm.bias"] = [4]
        header, data = {}, b""
        for name, shape in shapes.items():
            n = 4 * math.prod(shape)
            header[name] = dict(dtype="F32", shape=shape, data_offsets=[len(data), len(data) + n])
            data += struct.pack(f"<{n // 4}f", *([0.5] * (n // 4)))
        head = json.dumps(header).encode()
        with open(os.path.join(folder, "model.safetensors"), "wb") as f:
            f.write(struct.pack("<Q", len(head)) + head + data)
        return folder


if __name__ == "__main__":
    main()
