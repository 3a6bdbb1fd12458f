"""Clients by API key: nothing shared in the prefix cache, a fair share of the engine, keys that come and go at SIGHUP."""
import concurrent.futures
import hashlib
import os
import signal
import tempfile
import threading
import time

import server

TEXT = "Once upon a time there was a little girl who had a red ball and a big dog. " * 5


def write(path, *rows):
    with open(path, "w") as f:
        f.write("keys:\n" + "".join(f"- {r}\n" for r in rows))


def ask(s, key, **fields):
    body = {"prompt": TEXT[:400], "max_tokens": 4, "temperature": 0, **fields}
    return s.call("POST", "/v1/completions", body, {"Authorization": "Bearer " + key} if key else {})


def cached(s, key, **fields):
    status, a = ask(s, key, **fields)
    assert status == 200, a
    return a["usage"]["prompt_tokens_details"]["cached_tokens"], a["choices"][0]["text"]


def test_keys(path):
    hidden = hashlib.sha256(b"bobs-secret").hexdigest()
    write(path, "{name: alice, key: alices-secret}", f'{{name: bob, sha256: "{hidden}"}}')
    with server.Server("--api-keys", path, "--ctx", "512", env={"INGOT_API_KEY": "one-more"}) as s:
        for key in None, "", "alice", "alices-secre", hidden:
            assert ask(s, key)[0] == 401, key
        none, text = cached(s, "alices-secret")
        assert none == 0 and cached(s, "alices-secret")[0] > 64
        for salt in {}, {"cache_salt": "alice"}, {"cache_salt": "alice\0"}:  # whatever another says, it finds nothing
            assert cached(s, "bobs-secret", **salt) == (0, text), salt
            assert cached(s, "bobs-secret", **salt)[0] > 64
        assert cached(s, "alices-secret", cache_salt="mine") == (0, text)  # a client's own salt divides further
        assert cached(s, "one-more") == (0, text) and cached(s, "one-more", cache_salt="bob\0")[0] == 0
        write(path, "{name: alice, key: alices-second}", "{name: carol, key: carols-secret}")
        s.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if ask(s, "carols-secret")[0] == 200:
                break
            time.sleep(0.05)
        assert ask(s, "alices-secret")[0] == 401 == ask(s, "bobs-secret")[0]
        assert cached(s, "alices-second")[0] > 64  # the same tenant, its blocks too
        write(path, "{name: alice}")
        s.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if any("stay as they were" in line for line in s.lines):
                break
            time.sleep(0.05)
        assert any("keys[0]: expected either key or sha256" in line for line in s.lines), s.lines[-3:]
        assert ask(s, "alices-second")[0] == 200


def test_fair_share(path):
    write(path, "{name: greedy, key: greedy}", "{name: modest, key: modest}")
    greedy, modest = 24, 4
    with server.Server("--api-keys", path, "--max-sequences", "1", "--ctx", "512") as s:
        def run(key):
            assert ask(s, key, max_tokens=200, ignore_eos=True)[0] == 200
            with lock:
                ends.append(key)
        for _ in range(10):
            ends, lock = [], threading.Lock()
            with concurrent.futures.ThreadPoolExecutor(40) as pool:
                jobs = [pool.submit(run, "greedy") for _ in range(greedy)]
                while len(ends) < 2 and not all(j.done() for j in jobs):
                    time.sleep(0.001)
                jobs += [pool.submit(run, "modest") for _ in range(modest)]
                while len(ends) + s.call("GET", "/health")[1]["waiting"] + 1 < greedy + modest:
                    if all(j.done() for j in jobs):
                        break
                    time.sleep(0.001)
                before = len(ends)
                [j.result() for j in jobs]
            if before < greedy / 3:  # else the modest came too late to tell
                break
        else:
            raise AssertionError("never were all requests there in time")
    places = [i for i, key in enumerate(ends) if key == "modest"]
    # in turns they would have the first places after `before`, first come, first served the very last
    assert sum(places) / modest < (before + greedy + modest) / 2, (before, ends)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ingot-tenants-") as folder:
        for name, test in list(globals().items()):
            if name.startswith("test_"):
                test(os.path.join(folder, "keys.yaml"))
                print("ok", name)
