"""Several models and adapters in one server: loaded when asked for, swapped, unloaded, listed; a broken one harms none."""
import concurrent.futures
import json
import os
import shutil
import tempfile
import time

import server

MODEL = os.path.join(server.ROOT, "models", "storyteller.gguf")
LORA = os.path.join(server.ROOT, "tests", "golden", "lora")
TMP = tempfile.mkdtemp(prefix="ingot-models-")


def tiny():
    """The goldens' base with a vocabulary of 64 characters."""
    folder = os.path.join(TMP, "tiny")
    if not os.path.isdir(folder):
        os.mkdir(folder)
        for name in "config.json", "model.safetensors":
            shutil.copy(os.path.join(LORA, "qwen2", name), folder)
        words = {chr(33 + i): i for i in range(64)}
        with open(os.path.join(folder, "tokenizer.json"), "w") as f:
            json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                       "post_processor": None, "decoder": None,
                       "model": {"type": "BPE", "vocab": words, "merges": []}}, f)
    return folder


def ask(s, model=None, prompt="ABCDEFG", **fields):
    body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, **fields}
    if model:
        body["model"] = model
    status, a = s.call("POST", "/v1/completions", body)
    assert status == 200, a
    assert a["model"] == (model or s.model), a
    return a["choices"][0]["text"]


def states(s):
    return {m["id"]: m for m in s.call("GET", "/v1/models")[1]["data"]}


def wait_state(s, name, state):
    for _ in range(200):
        if states(s)[name]["state"] == state:
            return
        time.sleep(0.05)
    raise AssertionError((name, states(s)[name]))


def test_lazy_lists_and_unload():
    with server.Server(tiny(), "--allow-runtime-loading", path=MODEL) as s:
        assert states(s)["tiny"]["state"] == "unloaded" and states(s)["storyteller"]["state"] == "ready"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:  # all wait for one load
            texts = set(pool.map(lambda _: ask(s, "tiny"), range(8)))
        assert len(texts) == 1
        row = states(s)["tiny"]
        assert row["state"] == "ready" and row["max_model_len"] == 64
        assert ask(s, prompt="Once upon a time") == ask(s, "storyteller", prompt="Once upon a time")
        assert s.call("GET", "/v1/models/tiny")[1]["id"] == "tiny"
        assert s.call("POST", "/v1/completions", {"model": "nobody", "prompt": "A"})[0] == 404
        assert s.call("GET", "/v1/models/nobody")[0] == 404
        assert s.call("POST", "/v1/models/unload", {"model": "tiny"})[0] == 200
        wait_state(s, "tiny", "unloaded")
        assert {ask(s, "tiny")} == texts
        assert s.call("POST", "/v1/models/unload", {"model": "storyteller"})[0] == 400
        assert s.call("POST", "/v1/models/unload", {"model": "nobody"})[0] == 404


def test_adapters():
    with server.Server("--lora", f"poet={LORA}/all,prose={LORA}/some", "--allow-runtime-loading", path=tiny()) as s:
        alone = {m: ask(s, m) for m in (None, "poet", "prose")}
        assert len(set(alone.values())) == 3
        rows = states(s)
        assert rows["poet"]["parent"] == "tiny" and rows["poet"]["root"] == f"{LORA}/all"
        assert len({rows[m]["fingerprint"] for m in ("tiny", "poet", "prose")}) == 3
        load = {"lora_name": "first", "lora_path": f"{LORA}/first"}
        assert s.call("POST", "/v1/load_lora_adapter", load) == (200, "Success: LoRA adapter 'first' added successfully.")
        assert s.call("POST", "/v1/load_lora_adapter", load)[0] == 400
        assert s.call("POST", "/v1/load_lora_adapter", {"lora_name": "x"})[0] == 400
        assert s.call("POST", "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": f"{LORA}/conv"})[0] == 400
        assert s.call("POST", "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": TMP})[0] == 404
        alone["first"] = ask(s, "first")
        with concurrent.futures.ThreadPoolExecutor(12) as pool:  # together: the bits of alone
            names = list(alone) * 6
            assert list(pool.map(lambda m: ask(s, m), names)) == [alone[m] for m in names]
        assert s.call("POST", "/v1/unload_lora_adapter", {"lora_name": "first"})[0] == 200
        assert s.call("POST", "/v1/unload_lora_adapter", {"lora_name": "first"})[0] == 404
        assert s.call("POST", "/v1/completions", {"model": "first", "prompt": "A"})[0] == 404
        a = s.call("POST", "/v1/completions", {"model": "poet", "prompt": "ABC", "max_tokens": 5, "return_replay": True})[1]
        assert a["replay"]["fingerprint"] == rows["poet"]["fingerprint"]


def test_a_file_of_models_swap_and_failures():
    broken = os.path.join(TMP, "broken.gguf")
    with open(broken, "wb") as f:
        f.write(b"GGUF" + b"\xff" * 100)
    listing = os.path.join(TMP, "models.yaml")
    with open(listing, "w") as f:
        f.write(f"models:\n- name: small\n  path: {tiny()}\n  pinned: true\n  aliases: [gpt-4]\n  loras:\n"
                f"    poet: {LORA}/all\n- name: broken\n  path: {broken}\n")
    with server.Server("--models", listing, "--allow-runtime-loading", path=MODEL) as s:
        wait_state(s, "small", "ready")  # pinned
        text = ask(s, "small")
        assert ask(s, "gpt-4") == text != ask(s, "poet")
        status, a = s.call("POST", "/v1/completions", {"model": "broken", "prompt": "A"})
        assert status == 503 and "cannot be loaded" in a["error"]["message"], a
        assert states(s)["broken"]["state"] == "failed" and ask(s, "small") == text
        assert s.call("POST", "/v1/models/load", {"model": "small", "path": broken})[0] == 400
        assert ask(s, "small") == text
        assert s.call("POST", "/v1/models/load", {"model": "small", "path": MODEL})[0] == 200  # hot swap
        assert ask(s, "gpt-4", prompt="Once upon a time") == ask(s, prompt="Once upon a time")
        names = [m["name"] for m in s.call("GET", "/api/ps")[1]["models"]]
        assert names == ["storyteller:latest", "small:latest", "gpt-4:latest"], names  # poet has no base any more
        tags = [m["name"] for m in s.call("GET", "/api/tags")[1]["models"]]
        assert set(tags) == {f"{n}:latest" for n in ("storyteller", "small", "gpt-4", "poet", "broken")}, tags


def test_budget_and_permission():
    with server.Server(tiny(), "--memory-budget", "1M", path=MODEL) as s:
        status, a = s.call("POST", "/v1/completions", {"model": "tiny", "prompt": "A"})
        assert status == 507 and "needs" in a["error"]["message"] and "GB" in a["error"]["message"], a
        assert ask(s, prompt="Once upon a time")
        for path in "/v1/load_lora_adapter", "/v1/models/load", "/v1/models/unload":
            assert s.call("POST", path, {"model": "tiny"})[0] == 403


def test_the_first_model_is_swapped():
    with server.Server("--allow-runtime-loading", path=MODEL) as s:
        names = [m["name"] for m in s.call("GET", "/api/tags")[1]["models"]]
        before = ask(s, prompt="Once upon a time")
        assert s.call("POST", "/v1/models/load", {"model": names[0].removesuffix(":latest"), "path": tiny()})[0] == 200
        status, a = s.call("POST", "/v1/completions", {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0})
        assert status == 200 and a["choices"][0]["text"] != before, a  # a request that names no model goes there, too


def test_idle_models_go():
    with server.Server(tiny(), "--keep-alive", "1", path=MODEL) as s:
        ask(s, "tiny")
        wait_state(s, "tiny", "unloaded")
        ask(s, "tiny")


try:
    server.run(dict(globals()))
finally:
    shutil.rmtree(TMP)
