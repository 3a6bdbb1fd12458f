"""A server of our own for one test: starts `ingot serve`, waits for its ready line, stops it. Standard library only."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHARED = os.path.join(os.path.dirname(ROOT), "shared", "data", "models")
SKIP = 77


def skip(why):
    print("skipped:", why)
    sys.exit(SKIP)


def model():
    """A small real model: the shared one, else the built-in one."""
    candidates = [os.environ.get("INGOT_TEST_MODEL", ""), os.path.join(SHARED, "stories260K", "stories260K.gguf")]
    built_in = os.path.join(ROOT, "models")
    if os.path.isdir(built_in):
        candidates += sorted(os.path.join(built_in, f) for f in os.listdir(built_in) if f.endswith(".gguf"))
    for path in candidates:
        if path and os.path.exists(path):
            return path
    skip("no model: neither ../shared/data/models nor models/*.gguf is here")


def chat_model():
    """A model with a chat template and special tokens: SmolLM2 where it was fetched, else None."""
    cache = os.environ.get("INGOT_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ingot")
    for folder, _, files in os.walk(cache):
        for f in files:
            if "SmolLM2" in f and f.endswith(".gguf"):
                return os.path.join(folder, f)
    return os.environ.get("INGOT_TEST_CHAT_MODEL")


def need_binary():
    if len(sys.argv) < 2 or not os.access(sys.argv[1], os.X_OK):
        skip("the ingot binary is not built")


class Server:
    def __init__(self, *options, path=None, env=None):
        need_binary()
        self.process = subprocess.Popen(
            [sys.argv[1], "serve", path or model(), "--port", "0", "--threads", "1", *options],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "INGOT_API_KEY": "", **(env or {})})
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line)
            ready = re.match(r"ingot: ready (https?)://([^ ]+):(\d+) model=(.+)", line)
            if ready:
                break
        else:
            raise RuntimeError("no ready line: " + "".join(self.lines))
        self.scheme, self.host, self.port, self.model = ready[1], ready[2], int(ready[3]), ready[4]
        threading.Thread(target=self._drain_log, daemon=True).start()

    def _drain_log(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        assert self.process.returncode == 0, (self.process.returncode, self.lines[-5:])

    def url(self, path=""):
        return f"{self.scheme}://{self.host}:{self.port}{path}"

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return s

    def call(self, method, path, body=None, headers=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request(method, path, None if body is None else json.dumps(body), headers or {})
        r = c.getresponse()
        data = r.read()
        c.close()
        try:
            return r.status, json.loads(data)
        except ValueError:
            return r.status, data.decode()

    def blocks_return(self, seconds=10):
        """Nothing runs or waits, and every KV block is free again, within so many seconds."""
        end = time.time() + seconds
        while time.time() < end:
            h = self.call("GET", "/health")[1]
            if h["kv_blocks_free"] == h["kv_blocks_total"] and h["running"] + h["waiting"] == 0:
                return True
            time.sleep(0.02)
        return False


def run(tests):
    """Runs functions named test_*; prints each; exits 1 at the first failure."""
    for name, test in tests.items():
        if name.startswith("test_") and callable(test):
            begin = time.time()
            test()
            print(f"ok {name} ({time.time() - begin:.2f} s)", flush=True)
