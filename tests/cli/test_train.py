"""ingot train pretrain, as a user types it: keys, errors, Ctrl-C and resume, and the folder it leaves."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

INGOT = sys.argv.pop(1) if len(sys.argv) > 1 else "build/release/ingot"
TINY = Path(__file__).resolve().parents[1] / "golden/train/tiny"


def ingot(*args, **more):
    return subprocess.run([INGOT, *map(str, args)], capture_output=True, text=True, timeout=300, **more)


class Train(unittest.TestCase):
    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix="ingot-train-"))
        (self.dir / "text").write_text("the cat sat on the mat, and the dog sat there too. " * 60)
        self.config = self.dir / "config.yaml"
        self.write(max_steps=6)

    def tearDown(self):
        shutil.rmtree(self.dir)

    def write(self, **more):
        keys = {"model": TINY / "config.json", "data": self.dir / "text", "eval_data": self.dir / "text",
                "output_dir": self.dir / "out", "block_size": 16, "per_device_train_batch_size": 2, "logging_steps": 1,
                "save_steps": 0, "learning_rate": "1e-2", "threads": 1, "eval_windows": 2} | more
        self.config.write_text("".join(f"{k}: {v}\n" for k, v in keys.items()))

    def weights(self, name="out"):
        return (self.dir / name / "model.safetensors").read_bytes()

    def test_help_lists_every_key(self):
        r = ingot("train", "pretrain", "--help")
        self.assertEqual(r.returncode, 0)
        for key in ("learning_rate", "gradient_accumulation_steps", "resume_from_checkpoint", "eval_data"):
            self.assertIn(key, r.stdout)

    def test_a_run_and_its_folder(self):
        r = ingot("train", "pretrain", self.config)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(r.stdout.strip(), str(self.dir / "out"))
        self.assertIn("bits per byte", r.stderr)
        self.assertIn("memory:", r.stderr)
        lines = [json.loads(l) for l in (self.dir / "out/metrics.jsonl").read_text().splitlines()]
        self.assertEqual([l["step"] for l in lines], [1, 2, 3, 4, 5, 6])
        self.assertIn("eval_loss", lines[-1])
        config = json.loads((self.dir / "out/config.json").read_text())
        self.assertEqual(config["model_type"], "llama")
        self.assertTrue((self.dir / "out/tokenizer.json").exists())
        # flags win over the file, in both spellings
        r = ingot("train", "pretrain", self.config, "--output-dir", self.dir / "b", "--seed=43", "--max_steps", 2)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertNotEqual(self.weights(), self.weights("b"))

    def test_errors(self):
        for args, code, says in ((["--learning_rat", "1"], 2, "learning_rate"), (["--max_steps", "soon"], 2, "max_steps"),
                                 (["--data", "/no/such/file"], 66, "/no/such/file"), (["--block_size", "1"], 2, "block_size")):
            r = ingot("train", "pretrain", self.config, *args)
            self.assertEqual(r.returncode, code, r.stderr)
            self.assertIn(says, r.stderr)
            self.assertEqual(len(r.stderr.strip().splitlines()[-1:]), 1)
        self.assertEqual(ingot("train", "sft").returncode, 2)

    def test_interrupt_and_resume(self):
        r = ingot("train", "pretrain", self.config, "--output_dir", self.dir / "whole", "--max_steps", 60)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.write(max_steps=60)
        child = subprocess.Popen([INGOT, "train", "pretrain", str(self.config)], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
        deadline = time.time() + 60
        while time.time() < deadline and not (self.dir / "out/metrics.jsonl").exists():
            time.sleep(0.005)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
        if child.returncode == 0:
            self.skipTest("the run was over before the signal came")
        self.assertEqual(child.returncode, 130, stderr)
        self.assertIn("resume_from_checkpoint", stderr)
        r = ingot("train", "pretrain", self.config)
        self.assertEqual(r.returncode, 2)
        self.assertIn("already holds a run", r.stderr)
        r = ingot("train", "pretrain", self.config, "--resume_from_checkpoint", "true")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(self.weights(), self.weights("whole"))


if __name__ == "__main__":
    if not os.access(INGOT, os.X_OK):
        print("skipped: no ingot binary")
        sys.exit(77)
    unittest.main()
