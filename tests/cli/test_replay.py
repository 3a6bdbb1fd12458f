"""generate --save and replay: the same bits for any threads and instruction sets; every difference is named."""
import json
import os
import shutil

import support
from support import Case, ROOT

MODEL = os.path.join(ROOT, "models", "storyteller.gguf")


class Replay(Case):
    def save(self, *options, model=MODEL):
        path = self.path("answer.json")
        self.good("generate", model, "-p", "Once upon a time", "-n", "40", "--save", path, "--cache", "off", *options)
        with open(path) as f:
            return path, json.load(f)

    def test_same_whatever_threads_and_processor(self):
        path, answer = self.save("--temperature", "0.9", "--threads", "2")
        isas = self.good_json("version", "--json")["isa_available"]
        self.assertIn("ref", isas)
        for isa in isas:
            for threads in "1", "2", "3":
                out = self.good_json("replay", path, MODEL, "--threads", threads, "--cache", "off", "--json",
                                     env={"INGOT_ISA": isa})
                self.assertTrue(out["same"])
                self.assertEqual(out["tokens"], len(answer["output_ids"][0]))
                self.assertEqual(out["fingerprint"], answer["fingerprint"])

    def test_shapes_are_not_saved(self):
        self.bad("invalid", "--save takes no", "generate", MODEL, "-p", "A", "--save", self.path("a.json"), "--regex", "a+")

    def test_the_file_holds_what_it_should(self):
        path, a = self.save("--seed", "7")
        self.assertEqual(set(a) >= {"request", "response", "prompt_ids", "output_ids", "seeds", "fingerprint"}, True)
        self.assertEqual(a["seeds"], [7])
        self.assertEqual(a["output_ids"][0], a["response"]["ids"])
        self.assertEqual(len(bytes.fromhex(a["fingerprint"])), 32)

    def test_kv_type_and_exact_come_from_the_file(self):
        for options in (["--kv", "int8"], ["--exact"]):
            path, a = self.save(*options)
            self.good("replay", path, MODEL, "--cache", "off")
            self.bad("invalid", "kv differs", "replay", path, MODEL, "--cache", "off", "--kv", "f16")

    def test_a_changed_answer_is_found(self):
        path, a = self.save("--seed", "3")
        a["output_ids"][0][5] += 1
        changed = self.path("changed.json", json.dumps(a))
        self.bad("corrupt", "output 0, token 5: id", "replay", changed, MODEL, "--cache", "off")
        a["output_ids"][0][5] -= 1
        a["outputs"][0]["text"] = "!" + a["outputs"][0]["text"][1:]
        changed = self.path("changed.json", json.dumps(a))
        self.bad("corrupt", "another text from byte 0", "replay", changed, MODEL, "--cache", "off")

    def test_another_model_is_named(self):
        path, _ = self.save()
        other = self.path("other.gguf")
        shutil.copy(MODEL, other)
        self.good("replay", path, other, "--cache", "off")  # another name, the same bytes
        with open(other, "r+b") as f:
            f.seek(-1, 2)
            last = f.read(1)[0]
            f.seek(-1, 2)
            f.write(bytes([last ^ 1]))
        self.bad("invalid", "weights differs", "replay", path, other, "--cache", "off")

    def test_other_files_are_no_answers(self):
        self.bad("corrupt", "no saved answer", "replay", self.path("x.json", "{}"), MODEL)
        self.bad("corrupt", "line 1", "replay", self.path("x.json", "{"), MODEL)
        self.bad("not_found", "nothing.json", "replay", self.path("nothing.json"), MODEL)


if __name__ == "__main__":
    support.main()
