"""What the command line's tests share: running the binary, and a tiny model made on the spot."""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

INGOT = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else "build/release/ingot"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHARED = os.path.join(os.path.dirname(ROOT), "shared", "data")
EXIT = {"invalid": 2, "corrupt": 65, "not_found": 66, "unsupported": 69, "limit": 75, "io": 74, "denied": 77}


def ingot(*args, text=b"", env=None):
    """(exit code, standard output, standard error) of one run."""
    if isinstance(text, str):
        text = text.encode()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("INGOT_")}
    p = subprocess.run([INGOT, *map(str, args)], input=text, capture_output=True, timeout=300, env={**clean, **(env or {})})
    return p.returncode, p.stdout, p.stderr.decode()


def tiny_model(folder, vocab=270, seed=1, ctx=64):
    """A llama2.c checkpoint with random weights (2 layers, width 32, 4 heads, 2 for keys) and its byte vocabulary."""
    r = random.Random(seed)
    dim, hidden, layers, heads, kv = 32, 64, 2, 4, 2
    head = dim // heads
    sizes = [vocab * dim, layers * dim, layers * dim * dim, layers * dim * kv * head, layers * dim * kv * head,
             layers * dim * dim, layers * dim, layers * dim * hidden, layers * hidden * dim, layers * dim * hidden,
             dim, ctx * head // 2, ctx * head // 2]
    norms = {1, 6, 10}
    path = os.path.join(folder, "tiny.bin")
    with open(path, "wb") as f:
        f.write(struct.pack("<7i", dim, hidden, layers, heads, kv, vocab, ctx))
        for i, n in enumerate(sizes):
            f.write(struct.pack(f"<{n}f", *([1.0] * n if i in norms else [r.gauss(0, 0.3) for _ in range(n)])))
    words = [b" ", b" a", b"th", b"the", b" the", b"he", b"in", b"er", b"an", b"re", b"on"]
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % b for b in range(256)] + words
    with open(os.path.join(folder, "tokenizer.bin"), "wb") as f:
        f.write(struct.pack("<i", max(map(len, pieces))))
        for i, p in enumerate(pieces):
            f.write(struct.pack("<fi", -float(i), len(p)) + p)
    return path


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = cls.temporary.name

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def path(self, name, content=None):
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "wb") as f:
                f.write(content.encode() if isinstance(content, str) else content)
        return path

    def good(self, *args, **kw):
        code, out, err = ingot(*args, **kw)
        self.assertEqual(code, 0, f"{args}: {err}")
        return out

    def good_json(self, *args, **kw):
        return json.loads(self.good(*args, **kw))

    def bad(self, status, says, *args, **kw):
        """Fails with this status, one line on standard error that holds `says`, nothing on standard output."""
        code, out, err = ingot(*args, **kw)
        self.assertEqual(code, EXIT[status], f"{args}: {err}")
        self.assertEqual(out, b"")
        self.assertIn(says, err)
        self.assertTrue(err.startswith("ingot"), err)
        self.assertEqual(err.count("\n"), 1, err)
        return err


def main():
    unittest.main(argv=[sys.argv[0]], verbosity=1)
