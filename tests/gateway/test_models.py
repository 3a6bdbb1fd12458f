"""Several models and adapters in one server: loaded when asked for, swapped, unloaded, listed; a broken one harms none."""
import concurrent.futures
import json
import os
import re
import shutil
import tempfile
import time

import server

MODEL = os.path.join(server.ROOT, "models", "storyteller.gguf")
LORA = os.path.join(server.ROOT, "tests", "golden", "lora")
TMP = tempfile.mkdtemp(prefix="ingot-models-")


def tiny(name="tiny", characters="".join(chr(33 + i) for i in range(64)), template=None):
    """The goldens' base with a vocabulary of 64 characters; with a template, the last one is its end."""
    folder = os.path.join(TMP, name)
    if os.path.isdir(folder):
        return folder
    os.mkdir(folder)
    shutil.copy(os.path.join(LORA, "qwen2", "model.safetensors"), folder)
    with open(os.path.join(LORA, "qwen2", "config.json")) as f:
        config = json.load(f)
    words, added, bytes_of = {{" ": "\u0120", "\n": "\u010a"}.get(c, c): i for i, c in enumerate(characters)}, [], None
    if template:
        config["eos_token_id"] = words["<end>"] = 63
        bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        added = [{"id": 63, "content": "<end>", "special": True, "single_word": False, "lstrip": False,
                  "rstrip": False, "normalized": False}]
        with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
            json.dump({"chat_template": template, "eos_token": "<end>"}, f)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump({"version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": bytes_of,
                   "post_processor": None, "decoder": bytes_of,
                   "model": {"type": "BPE", "vocab": words, "merges": []}}, f)
    return folder


def metrics(s):
    """{name: {labels' text: value}}"""
    found = {}
    for name, labels, value in re.findall(r"^([a-z_:0-9]+)\{([^}]*)\} (\S+)$", s.call("GET", "/metrics")[1], re.M):
        found.setdefault(name, {})[labels] = float(value)
    return found


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


def test_ollama_keeps_shows_and_names():
    with server.Server(tiny(), "--allow-runtime-loading", path=MODEL) as s:
        def post(path, **body):
            return s.call("POST", "/api/" + path, body)

        status, a = post("show", model="tiny")  # as its files say: it is not loaded for that
        assert status == 200 and a["details"]["family"] and a["model_info"]["general.parameter_count"] > 0, a
        assert a["capabilities"] == ["completion"] and states(s)["tiny"]["state"] == "unloaded", a
        assert post("show", model="storyteller")[1]["model_info"]["general.architecture"]
        raw = {"model": "tiny:latest", "raw": True, "prompt": "ABC", "stream": False, "options": {"num_predict": 3}}
        assert post("generate", **raw, keep_alive="1h")[0] == 200
        left = {m["name"]: m for m in s.call("GET", "/api/ps")[1]["models"]}["tiny:latest"]
        expires = time.mktime(time.strptime(left["expires_at"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        assert 3000 < expires - time.time() < 3700 and left["size"] > 0, left
        assert post("show", model="tiny")[1]["details"] == a["details"]
        assert post("generate", **raw, keep_alive=0)[0] == 200
        wait_state(s, "tiny", "unloaded")
        assert post("generate", model="tiny")[1]["done_reason"] == "load"
        assert post("chat", model="tiny", messages=[], keep_alive=0)[1]["done_reason"] == "unload"
        wait_state(s, "tiny", "unloaded")
        assert post("copy", source="storyteller", destination="teller")[0] == 200
        assert post("create", model="other:latest", **{"from": "tiny"}, stream=False) == (200, {"status": "success"})
        assert {"teller:latest", "other:latest"} <= {m["name"] for m in s.call("GET", "/api/tags")[1]["models"]}
        assert ask(s, "teller") == ask(s, "storyteller") and ask(s, "other") == ask(s, "tiny")
        status, a = post("create", model="third", **{"from": "tiny"}, system="s")
        assert status == 200 and a["error"].startswith("system: "), a
        assert post("copy", source="nobody", destination="x")[0] == 404
        assert post("copy", source="tiny", destination="storyteller")[0] == 400  # a model's own name
        assert s.call("DELETE", "/api/delete", {"model": "storyteller"})[0] == 400
        assert s.call("DELETE", "/api/delete", {"model": "teller"})[0] == 200
        assert s.call("DELETE", "/api/delete", {"model": "teller"})[0] == 404
        assert s.call("POST", "/v1/completions", {"model": "teller", "prompt": "A"})[0] == 404


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
        status, a = s.call("POST", "/api/generate", {"model": "small", "keep_alive": 0})
        assert status == 400 and "pinned" in a["error"], a
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


def wait_generated(s, model, n):
    """An engine tells what it has counted a moment after the answer."""
    label = f'model_name="{model}",engine="0"'
    for _ in range(200):
        seen = metrics(s)
        if seen["vllm:generation_tokens_total"][label] == n and seen["vllm:num_requests_running"][label] == 0:
            return seen
        time.sleep(0.02)
    raise AssertionError((model, n, seen["vllm:generation_tokens_total"]))


def test_every_loaded_model_is_seen():
    with server.Server(tiny(), "--allow-runtime-loading", path=MODEL) as s:
        show = s.call("POST", "/api/show", {"model": "tiny:latest"})
        assert show[0] == 200 and show[1]["model_info"]["general.parameter_count"] > 0, show  # as its files say
        assert [m["model"] for m in s.call("GET", "/health")[1]["models"]] == ["storyteller"]
        ask(s, "tiny")
        ask(s, prompt="Once upon a time")
        show = s.call("POST", "/api/show", {"model": "tiny"})[1]
        assert show["model_info"]["general.architecture"] == "qwen2" and show["capabilities"] == ["completion"], show
        assert show["model_info"]["qwen2.context_length"] == 64
        assert s.call("POST", "/api/show", {"model": "nobody"})[0] == 404
        health = s.call("GET", "/health")[1]
        models = {m["model"]: m for m in health["models"]}
        assert set(models) == {"tiny", "storyteller"} and all(m["status"] == "ok" for m in models.values()), health
        assert health["kv_blocks_total"] == sum(m["kv_blocks_total"] for m in models.values())
        wait_generated(s, "tiny", 12)
        seen = wait_generated(s, "storyteller", 12)
        for model, prompt in ("tiny", 7), ("storyteller", 4):
            label = f'model_name="{model}",engine="0"'
            assert prompt <= seen["vllm:prompt_tokens_total"][label] <= 2 * prompt, seen["vllm:prompt_tokens_total"]
            assert seen["vllm:kv_cache_usage_perc"][label] == 0 == seen["vllm:num_requests_running"][label]
            assert seen["vllm:iteration_tokens_total_count"][label] > 0
        configured = {re.search('model_name="(.*)"', k)[1]: (k, v) for k, v in seen["vllm:cache_config_info"].items()}
        for name, m in models.items():
            assert f'num_gpu_blocks="{m["kv_blocks_total"]}",cache_dtype="f16"' in configured[name][0], configured
            assert configured[name][1] == 1
        ask(s, "tiny")  # what was counted since the last look is not lost with the model
        assert s.call("POST", "/v1/models/unload", {"model": "tiny"})[0] == 200
        wait_state(s, "tiny", "unloaded")
        label = 'model_name="tiny",engine="0"'
        seen = metrics(s)
        assert seen["vllm:generation_tokens_total"][label] == 24
        assert seen["vllm:cache_config_info"][configured["tiny"][0]] == 0
        ask(s, "tiny")  # an engine that begins at 0 again
        wait_generated(s, "tiny", 36)


def lora_info(s):
    (labels, value), = metrics(s)["vllm:lora_requests_info"].items()
    assert abs(time.time() - value) < 60
    return dict(re.findall(r'(\w+)="([^"]*)"', labels))


def test_adapters_that_run_and_wait_are_named():
    options = "--lora", f"poet={LORA}/all,prose={LORA}/some", "--max-sequences", "1"
    with server.Server(*options, path=tiny()) as s, concurrent.futures.ThreadPoolExecutor(8) as pool:
        none = {"max_lora": "1", "waiting_lora_adapters": "", "running_lora_adapters": ""}
        assert lora_info(s) == none
        busy = {"prompt": ["AB"] * 128, "max_tokens": 60, "ignore_eos": True, "temperature": 0}
        answers = [pool.submit(s.call, "POST", "/v1/completions", {"model": m, **busy}) for m in ("poet", "prose")]
        seen = set()
        while not all(a.done() for a in answers):
            now = lora_info(s)
            seen.add((now["waiting_lora_adapters"], now["running_lora_adapters"]))
        assert ("prose", "poet") in seen or ("poet", "prose") in seen, seen
        assert all(a.result()[0] == 200 for a in answers)
        assert lora_info(s) == none


def test_shapes_are_for_every_model():
    letters = "abcdefghijklmnopqrstuvwxyz0123456789{}[]\":,<>_/ \n.-ABCDEFGHIJKLMNOP"[:63]
    template = "{% if tools %}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}{# <tool_call> #}"
    caller, mirror = tiny("caller", letters, template), tiny("mirror", letters[::-1], template)
    with server.Server(tiny(), caller, mirror, path=MODEL) as s, concurrent.futures.ThreadPoolExecutor(8) as pool:
        def words(model):
            body = {"model": model, "prompt": "a", "guided_regex": "[bc]{3}d", "max_tokens": 12, "temperature": 1.5}
            status, a = s.call("POST", "/v1/completions", body)
            assert status == 200 and re.fullmatch("[bc]{3}d", a["choices"][0]["text"]), (model, a)
        list(pool.map(words, ["storyteller", "mirror", "caller"] * 8))
        schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
        messages = [{"role": "user", "content": "a"}]
        body = {"model": "caller", "messages": messages, "max_tokens": 40, "temperature": 1,
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}}
        status, a = s.call("POST", "/v1/chat/completions", body)
        assert status == 200 and json.loads(a["choices"][0]["message"]["content"])["n"] in (1, 2), a
        function = {"name": "f", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}
        del body["response_format"]
        body.update(tools=[{"type": "function", "function": function}], tool_choice="required", max_tokens=63)
        status, a = s.call("POST", "/v1/chat/completions", body)
        assert status == 200, a
        call = a["choices"][0]["message"]["tool_calls"][0]["function"]
        assert call["name"] == "f" and json.loads(call["arguments"]) == {}, a
        body["model"] = "tiny"  # whose template takes no tools
        assert s.call("POST", "/v1/chat/completions", body)[0] == 400


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
