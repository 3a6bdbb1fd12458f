"""llama.cpp loads every type that quantize writes, and answers as Ingot does. Skipped where its programs are not:
INGOT_LLAMA_CPP names the folder with llama-completion."""
import os
import subprocess
import sys

from support import ROOT, Case, ingot, main

BIN = os.environ.get("INGOT_LLAMA_CPP", "")
PROGRAM = os.path.join(BIN, "llama-completion")
MODELS = [os.path.join(ROOT, "models", "storyteller.gguf")]
for extra in (os.path.expanduser("~/.cache/ingot/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
              os.path.join(os.path.dirname(ROOT), "shared", "data", "models", "stories260K", "stories260K.gguf")):
    if os.path.exists(extra):
        MODELS.append(extra)
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "iq4_nl", "iq4_xs", "mxfp4", "f16",
         "bf16", "f32"]
PROMPT = "Once upon a time there was a little"
TOKENS = 24


class LlamaCpp(Case):
    def answers(self, model):
        run = subprocess.run([PROGRAM, "-m", model, "-p", PROMPT, "-n", str(TOKENS), "--temp", "0", "-t", "1", "-no-cnv",
                              "--no-warmup", "--no-display-prompt"], capture_output=True, timeout=500, stdin=subprocess.DEVNULL)
        self.assertEqual(run.returncode, 0, run.stderr.decode()[-2000:])
        ours = self.good("generate", model, "--raw", "-p", PROMPT, "-n", TOKENS, "--temperature", "0", "--threads", "1")
        clean = lambda b: b.decode(errors="replace").replace("[end of text]", "").strip()
        return clean(run.stdout), clean(ours)

    def test_same_greedy_words(self):
        same = total = 0
        for source in MODELS:
            for t in TYPES:
                out = self.path("m.gguf")
                self.good("quantize", source, out, "--type", t)
                theirs, ours = self.answers(out)
                n = len(os.path.commonprefix([theirs, ours]))
                whole = max(len(theirs), 1)
                print(f"{os.path.basename(source)} {t}: {n}/{whole} characters alike", file=sys.stderr)
                self.assertTrue(theirs and ours, t)
                same += n == whole or n == len(ours)
                total += 1
                self.assertGreaterEqual(n, 1, (source, t, theirs, ours))
        self.assertGreaterEqual(same, total * 2 // 3)  # activations are rounded differently: close calls may part


if __name__ == "__main__":
    if not os.path.exists(PROGRAM):
        print("skipped: INGOT_LLAMA_CPP names no folder with llama-completion")
        sys.exit(77)
    main()
