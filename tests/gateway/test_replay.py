"""A server's answer proved by the command line: other threads, other instruction sets, other KV type refused."""
import json
import os
import subprocess
import sys
import tempfile

import server

INGOT = sys.argv[1] if len(sys.argv) > 1 else ""
STORY = {"prompt": "Once upon a time there was", "max_tokens": 30, "temperature": 0.8, "return_replay": True}


def replay(answer, *options, isa="", expect=0):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(answer, f)
        f.flush()
        p = subprocess.run([INGOT, "replay", f.name, server.model(), *options], capture_output=True, text=True,
                           env={**os.environ, **({"INGOT_ISA": isa} if isa else {})})
    assert p.returncode == expect, (p.returncode, p.stderr)
    return p.stdout or p.stderr


def isas():
    out = subprocess.run([INGOT, "version", "--json"], capture_output=True, text=True, check=True).stdout
    return json.loads(out)["isa_available"]


def stream(s, path, body):
    """The events of a stream as objects, and its headers."""
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    c.request("POST", path, json.dumps({**body, "stream": True}))
    r = c.getresponse()
    events = [line[6:] for line in r.read().decode().split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(e) for e in events[:-1]], dict(r.getheaders())


def test_answers_come_out_again_anywhere():
    with server.Server() as s:
        body = {**STORY, "prompt": [STORY["prompt"], "The other day"], "n": 3, "top_p": 0.9, "min_p": 0.01, "top_k": 50, "seed": 7,
                "presence_penalty": 0.5, "stop": ["xyz", "."], "logit_bias": {"5": -2}, "logprobs": 2, "echo": True}
        status, a = s.call("POST", "/v1/completions", body)
        assert status == 200, a
        r = a["replay"]
        assert len(r["output_ids"]) == len(r["seeds"]) == 6 and len(r["prompt_ids"]) == 2
        assert r["request"] == body and r["fingerprint"].startswith(a["system_fingerprint"][3:])
        for c, o in zip(a["choices"], r["outputs"]):
            assert c["text"] == body["prompt"][o["prompt"]] + o["text"] and c["finish_reason"] == o["finish_reason"]
        for isa in isas():
            assert replay(a, "--threads", "2", isa=isa).startswith("same: 6 outputs")
        replay(a, "--threads", "3")
        assert "kv differs" in replay(a, "--kv", "f32", expect=2)
        r["seeds"][4] += 1
        assert "output 4" in replay(a, expect=65)


def test_chats_and_streams():
    with server.Server() as s:
        chat = {"messages": [{"role": "user", "content": "Hi there"}], "max_tokens": 20, "return_replay": True}
        status, a = s.call("POST", "/v1/chat/completions", chat)
        assert status == 200, a
        assert replay(a).startswith("same: 1 output,")
        for path, body in ("/v1/chat/completions", chat), ("/v1/completions", {**STORY, "n": 2}):
            events, headers = stream(s, path, body)
            assert all("replay" not in e for e in events[:-1])
            assert {e["system_fingerprint"] for e in events} == {"fp_" + headers["ingot-fingerprint"][:10]}
            assert events[-1]["choices"] == [] and replay(events[-1]).startswith("same: ")


def test_fingerprint_is_whole_in_models_and_in_a_header():
    with server.Server() as s:
        _, headers = stream(s, "/v1/completions", {"prompt": "a", "max_tokens": 1})
        model = s.call("GET", "/v1/models")[1]["data"][0]
        assert model["fingerprint"] == headers["ingot-fingerprint"] and len(model["fingerprint"]) == 64
        a = s.call("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})[1]
        assert "replay" not in a and a["system_fingerprint"] == "fp_" + model["fingerprint"][:10]
        assert s.call("POST", "/v1/completions", {"prompt": "a", "return_replay": 1})[0] == 400


def test_two_servers_with_the_same_fingerprint_answer_the_same():
    body = {**STORY, "seed": 11, "max_tokens": 60}
    answers = []
    for options, isa in ((["--threads", "2"], ""), (["--threads", "1", "--ctx", "300"], "ref")):
        with server.Server(*options, env={"INGOT_ISA": isa} if isa else {}) as s:
            a = s.call("POST", "/v1/completions", body)[1]
            answers.append((a["system_fingerprint"], a["choices"][0]["text"], a["replay"]["output_ids"]))
    with server.Server("--temperature", "0.1") as s:  # a default is part of what a request means
        other = s.call("POST", "/v1/completions", body)[1]["system_fingerprint"]
    assert answers[0] == answers[1] and other != answers[0][0]


server.run(dict(globals()))
