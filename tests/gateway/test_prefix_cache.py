"""What a server computed once it finds again: by salt, over a restart, to the same text; metrics and damaged files."""
import os
import re
import shutil
import tempfile
import time

import server

TEXT = "Once upon a time there was a little girl who had a red ball and a big dog. " * 12


def ask(s, salt=None, n=1):
    body = {"prompt": TEXT[:400], "max_tokens": 12, "seed": 7, "temperature": 0.9, "n": n}
    if salt is not None:
        body["cache_salt"] = salt
    status, answer = s.call("POST", "/v1/completions", body)
    assert status == 200, answer
    usage = answer["usage"]
    return [c["text"] for c in answer["choices"]], usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


def metric(s, name):
    return float(re.search(rf"^{name}{{.*}} (\S+)$", s.call("GET", "/metrics")[1], re.M)[1])


def wait_until_written(s, blocks, salt):
    """Keeps asking: what is found on disk is known a moment after the start."""
    end = time.time() + 30
    while metric(s, "ingot:kv_spill_written_total") < blocks:
        assert time.time() < end
        ask(s, salt)
        time.sleep(0.02)


def test_found_by_salt_alone():
    with server.Server("--ctx", "512") as s, server.Server("--ctx", "512", "--no-prefix-cache") as plain:
        want, cached, n = ask(plain)
        assert cached == 0 and n > 64
        assert ask(plain)[1] == 0 and metric(plain, "vllm:prefix_cache_hits_total") == 0
        for salt in (None, "a", "tenant-" * 40):
            text, cached, _ = ask(s, salt)
            assert text == want and cached == 0, (salt, cached)
            text, cached, _ = ask(s, salt)
            assert text == want and cached == n - 1, (salt, cached)
        assert metric(s, "vllm:prefix_cache_hits_total") == 3 * (n - 1)
        assert metric(s, "vllm:prefix_cache_queries_total") == 6 * n
        assert ask(s, "new", n=3)[0][0] == want[0]


def test_found_after_a_restart():
    folder = tempfile.mkdtemp(prefix="ingot-kv-")
    options = ("--ctx", "512", "--kv-spill", folder, "--kv-spill-bytes", "100M")
    try:
        with server.Server(*options) as s:
            want, cached, n = ask(s, "x")
            assert cached == 0
            wait_until_written(s, n // 64, "x")
        with server.Server(*options) as s:
            wait_until_written(s, 1, "y")
            text, cached, _ = ask(s, "x")
            assert text == want and cached == n // 64 * 64 - (n % 64 == 0) * 64, cached
            assert metric(s, "ingot:kv_spill_read_total") > 0
        for name in os.listdir(folder):
            if name.startswith("kv-"):
                path = os.path.join(folder, name)
                os.chmod(path, 0o600)
                with open(path, "r+b") as f:
                    f.seek(1000)
                    byte = f.read(1)
                    f.seek(1000)
                    f.write(bytes([byte[0] ^ 4]))
        with server.Server(*options) as s:
            wait_until_written(s, 1, "z")
            text, cached, _ = ask(s, "x")
            assert text == want and cached == 0, cached
            assert metric(s, "ingot:kv_spill_damaged_total") > 0
    finally:
        shutil.rmtree(folder)


server.run(dict(globals()))
