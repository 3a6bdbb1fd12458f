"""Headless Chromium over its DevTools protocol, with the standard library alone."""
import base64
import http.client
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time


def find():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return shutil.which(name)
    return None


class Browser:
    def __init__(self, width=1000, height=800, dark=False):
        self.folder = tempfile.mkdtemp(prefix="ingot-browser-")
        self.process = subprocess.Popen(
            [find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-extensions",
             "--remote-debugging-port=0", f"--user-data-dir={self.folder}", "about:blank"],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "HOME": self.folder})
        for line in self.process.stderr:
            found = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line)
            if found:
                self.port = int(found[1])
                break
        else:
            raise RuntimeError("chromium did not start")
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request("GET", "/json")
        page = [t for t in json.loads(c.getresponse().read()) if t["type"] == "page"][0]
        self.next_id, self.events, self.input = 0, [], b""
        self._open(page["webSocketDebuggerUrl"].split(str(self.port), 1)[1])
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.size(width, height, dark)

    def _open(self, path):
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.socket.sendall((f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                             "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.input:
            self.input += self.socket.recv(4096)
        self.input = self.input.split(b"\r\n\r\n", 1)[1]

    def _take(self, n):
        while len(self.input) < n:
            self.input += self.socket.recv(65536)
        taken, self.input = self.input[:n], self.input[n:]
        return taken

    def _message(self):
        data = b""
        while True:
            first, second = self._take(2)
            n = second & 127
            if n == 126:
                n = struct.unpack(">H", self._take(2))[0]
            elif n == 127:
                n = struct.unpack(">Q", self._take(8))[0]
            data += self._take(n)
            if first & 0x80:
                return json.loads(data)

    def call(self, method, **params):
        self.next_id += 1
        text = json.dumps({"id": self.next_id, "method": method, "params": params}).encode()
        size = bytes([0x80 | len(text)]) if len(text) < 126 else (
            bytes([0x80 | 126]) + struct.pack(">H", len(text)) if len(text) < 65536 else
            bytes([0x80 | 127]) + struct.pack(">Q", len(text)))
        self.socket.sendall(b"\x81" + size + b"\0\0\0\0" + text)  # masked with zeros
        while True:
            m = self._message()
            if m.get("id") == self.next_id:
                if "error" in m:
                    raise RuntimeError(method + ": " + m["error"]["message"])
                return m["result"]
            self.events.append(m)

    def size(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script):
        r = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in r:
            raise RuntimeError(json.dumps(r["exceptionDetails"])[:500])
        return r["result"].get("value")

    def wait(self, condition, seconds=30):
        end = time.time() + seconds
        while not self.run(f"!!({condition})"):
            if time.time() > end:
                raise AssertionError("never true: " + condition)
            time.sleep(0.05)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                      **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}))

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
