"""Calls that must be made, from a real small model with a template of Hermes: whatever it babbles, they are valid."""
import json
import re
import tempfile

import server

TEMPLATE = """{%- if tools %}<tool_call>{% for t in tools %}{{ t.function | tojson }}{% endfor %}</tool_call>{% endif %}
{%- for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}assistant: """
FILE = tempfile.NamedTemporaryFile("w", suffix=".jinja")
FILE.write(TEMPLATE)
FILE.flush()

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9},
                                           "days": {"type": "integer", "minimum": 1, "maximum": 9}},
          "required": ["city", "days"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
         {"type": "function", "function": {"name": "now"}}]
S = server.Server("--ctx", "2048", "--chat-template", FILE.name)


def chat(**fields):
    body = {"messages": [{"role": "user", "content": "Weather?"}], "tools": TOOLS, "max_tokens": 400, **fields}
    status, answer = S.call("POST", "/v1/chat/completions", body)
    assert status == 200, answer
    return answer["choices"][0]


def check(call):
    assert call["type"] == "function" and call["function"]["name"] in ("weather", "now"), call
    args = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "weather":
        assert set(args) == {"city", "days"} and len(args["city"]) <= 9 and 1 <= args["days"] <= 9, args
    else:
        assert args == {}


def test_one_call_is_no_replay():
    body = {"messages": [{"role": "user", "content": "Weather?"}], "tools": TOOLS, "parallel_tool_calls": False,
            "return_replay": True}
    status, answer = S.call("POST", "/v1/chat/completions", body)
    assert status == 400 and answer["error"]["param"] == "return_replay", answer


def test_required():
    done = 0
    for seed in range(8):
        c = chat(tool_choice="required", seed=seed, temperature=1, parallel_tool_calls=False)
        if c["finish_reason"] == "length" and c["message"].get("reasoning_content"):  # which comes first, and is free
            continue
        done += 1
        assert c["finish_reason"] == "tool_calls" and not c["message"]["content"], c
        assert len(c["message"]["tool_calls"]) == 1
        check(c["message"]["tool_calls"][0])
    assert done


def test_several():
    for seed in range(4):
        c = chat(tool_choice="required", seed=seed, temperature=1)
        for call in c["message"]["tool_calls"][:-1] if c["finish_reason"] == "length" else c["message"]["tool_calls"]:
            check(call)


def test_named():
    for seed in range(4):
        c = chat(tool_choice={"type": "function", "function": {"name": "weather"}}, seed=seed, temperature=1)
        assert [t["function"]["name"] for t in c["message"]["tool_calls"]] == ["weather"]
        check(c["message"]["tool_calls"][0])


def test_strict_is_taken_and_plain_text_stays_free():
    strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    c = chat(tools=strict, seed=1, max_tokens=40)
    assert c["message"]["content"] or c["message"].get("tool_calls")


def test_what_cannot_be_enforced_is_refused():
    bad = [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "string", "format": "no-such-format", "pattern": "(?<x>a)\\k<x>"}}}}}]
    status, answer = S.call("POST", "/v1/chat/completions", {
        "messages": [{"role": "user", "content": "x"}], "tools": bad, "tool_choice": "required"})
    assert status == 400 and answer["error"]["param"] == "tool_choice", answer


def test_other_protocols():
    status, m = S.call("POST", "/v1/messages", {
        "max_tokens": 300, "messages": [{"role": "user", "content": "x"}], "tool_choice": {"type": "any"},
        "tools": [{"name": "weather", "input_schema": SCHEMA}]})
    assert status == 200 and m["stop_reason"] in ("tool_use", "max_tokens") and m["content"][0]["name"] == "weather", m
    tools = {"tools": [{"name": "weather", "input_schema": SCHEMA}]}
    counted = {k: S.call("POST", "/v1/messages/count_tokens", {
        "messages": [{"role": "user", "content": "x"}], **v})[1]["input_tokens"] for k, v in (("with", tools), ("", {}))}
    used = m["usage"]["input_tokens"] + m["usage"]["cache_read_input_tokens"]
    assert counted["with"] == used > counted[""] + 20, (counted, m["usage"])
    status, r = S.call("POST", "/v1/responses", {
        "input": "x", "max_output_tokens": 300, "tool_choice": {"type": "function", "name": "weather"},
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}]})
    assert status == 200 and r["output"][0]["type"] == "function_call", r
    assert list(json.loads(r["output"][0]["arguments"])) == ["city", "days"]
    status, r = S.call("POST", "/v1/responses", {
        "input": "x", "max_output_tokens": 300,
        "text": {"format": {"type": "json_schema", "name": "w", "strict": True, "schema": SCHEMA}}})
    assert status == 200 and set(json.loads(r["output"][0]["content"][0]["text"])) == {"city", "days"}, r


def test_either_the_shape_or_a_call():
    shape = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}
    strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    done = 0
    for seed in range(8):
        c = chat(seed=seed, temperature=1.5, parallel_tool_calls=False, tools=strict, **shape)
        m = c["message"]
        if c["finish_reason"] == "length":  # of channels that come first, and are free
            continue
        done += 1
        if m["content"]:
            assert set(json.loads(m["content"])) == {"city", "days"} and not m.get("tool_calls"), c
        else:
            check(m["tool_calls"][0])
    assert done
    c = chat(tool_choice="none", **shape)
    if c["finish_reason"] == "stop":
        assert set(json.loads(c["message"]["content"])) == {"city", "days"} and not c["message"].get("tool_calls"), c


with S:
    server.run(dict(globals()))
    assert S.blocks_return()

# The same model with the templates of Qwen3-Coder and gpt-oss, as far as they tell how calls are written.
for sign in ("<tool_call> <function=", "<|channel|>"):
    FILE.seek(0)
    FILE.truncate()
    FILE.write(TEMPLATE.replace("<tool_call>", sign, 1))
    FILE.flush()
    S = server.Server("--ctx", "2048", "--chat-template", FILE.name)
    with S:
        server.run({f"{n}[{sign}]": f for n, f in globals().copy().items()
                    if n in ("test_required", "test_named", "test_either_the_shape_or_a_call")})
        for seed in range(4):  # a final message of a shape, whatever channels come before it
            m = chat(tools=[], seed=seed, guided_regex="[A-Z]{3}-[0-9]{2}")
            assert m["finish_reason"] == "length" or re.fullmatch("[A-Z]{3}-[0-9]{2}", m["message"]["content"]), m
        assert S.blocks_return()
