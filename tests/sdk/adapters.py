"""Adapters through ctypes: python3 adapters.py LIBINGOT.so GOLDENS. The first token of each golden case, chosen greedily
by a stream with the case's adapter, is the likeliest of its logits. Prints how many were, and how many differ from the
base's."""
import ctypes as c
import json
import os
import sys

lib, goldens = c.CDLL(sys.argv[1]), sys.argv[2]


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("text", c.c_char * 512)]


class Sampling(c.Structure):
    _fields_ = [("size", c.c_size_t), ("temperature", c.c_float), ("top_p", c.c_float), ("top_k", c.c_int32),
                ("min_p", c.c_float), ("repetition_penalty", c.c_float), ("presence_penalty", c.c_float),
                ("frequency_penalty", c.c_float), ("max_tokens", c.c_int32)]


class Token(c.Structure):
    _fields_ = [("size", c.c_size_t), ("id", c.c_int32)]


OnToken = c.CFUNCTYPE(c.c_int, c.c_void_p, c.POINTER(Token))


class Request(c.Structure):
    _fields_ = [("size", c.c_size_t), ("prompt", c.c_char_p), ("messages", c.c_char_p), ("ids", c.POINTER(c.c_int32)),
                ("n_id", c.c_size_t), ("flags", c.c_int32), ("priority", c.c_int32), ("choice", c.c_int32),
                ("timeout_ms", c.c_int32), ("sampling", c.POINTER(Sampling)), ("on_token", OnToken),
                ("on_finish", c.c_void_p), ("ctx", c.c_void_p), ("adapter", c.c_char_p)]


def check(status):
    if status:
        sys.exit(error.text.decode())


error, model = Error(), c.c_void_p()
with open(os.path.join(goldens, "logits.json")) as f:
    doc = json.load(f)
check(lib.ingot_model_open(c.byref(model), os.path.join(goldens, "qwen2").encode(), None, c.byref(error)))
answers, right = {}, 0
for case in doc["cases"]:
    if case["model"] != "qwen2" or case["adapter"] not in (None, "all", "some"):
        continue
    name = case["adapter"] and case["adapter"].encode()
    if name:
        check(lib.ingot_adapter_load(model, name, os.path.join(goldens, case["adapter"]).encode(), c.byref(error)))
    seen, stream = [], c.c_void_p()
    on_token = OnToken(lambda ctx, token: seen.append(token[0].id) or 0)
    ids = (c.c_int32 * len(doc["ids"]))(*doc["ids"])
    sampling = Sampling(size=c.sizeof(Sampling), temperature=0, top_p=1, repetition_penalty=1, max_tokens=1)
    request = Request(size=c.sizeof(Request), ids=ids, n_id=len(ids), sampling=c.pointer(sampling), on_token=on_token,
                      adapter=name)
    check(lib.ingot_stream_start(c.byref(stream), model, c.byref(request), c.byref(error)))
    check(lib.ingot_stream_wait(stream, None, c.byref(error)))
    lib.ingot_stream_close(stream)
    last = case["logits"][-1]
    right += seen[0] == last.index(max(last))
    answers[case["adapter"]] = seen[0]
lib.ingot_model_close(model)
print(json.dumps({"tokens": right, "other": len(set(answers.values()))}))
