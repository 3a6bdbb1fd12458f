"""--answer-timeout: whole answers become 504, streams end with the error, and no block stays behind."""
import http.client
import json

import server

LONG = {"prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": True, "n": 16}
ENDLESS = {**LONG, "prompt": ["Once upon a time"] * 8}  # seconds, on any machine


def test_late_answers_end():
    with server.Server("--ctx", "512", "--answer-timeout", "0.4") as s:
        status, answer = s.call("POST", "/v1/completions", ENDLESS)
        assert status == 504 and "deadline" in answer["error"]["message"], (status, answer)
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        c.request("POST", "/v1/completions", json.dumps({**ENDLESS, "stream": True}))
        events = [line[6:] for line in c.getresponse().read().decode().split("\n") if line.startswith("data: ")]
        assert "deadline" in json.loads(events[-1])["error"]["message"], events[-1]
        assert len(events) > 1 and s.blocks_return()
        assert s.call("GET", "/health")[0] == 200


def test_no_limit_by_default():
    with server.Server("--ctx", "512") as s:
        status, answer = s.call("POST", "/v1/completions", LONG)
        assert status == 200 and answer["usage"]["completion_tokens"] == 16 * 400, answer


server.run(dict(globals()))
