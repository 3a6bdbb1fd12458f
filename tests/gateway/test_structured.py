"""Answers that must have a shape, asked for in every way that clients know, from a real small model."""
import json
import re
import sys

import server

try:
    import openai
except ImportError:
    server.skip("the openai client is not installed")

S = server.Server("--ctx", "512")
client = openai.OpenAI(base_url=S.url("/v1"), api_key="none", max_retries=0)
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog", None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}


def chat(**fields):
    fields.setdefault("max_tokens", 300)
    fields.setdefault("temperature", 0)
    return client.chat.completions.create(model=S.model, messages=MESSAGES, **fields)


def text(**fields):
    r = chat(**fields).choices[0]
    assert r.finish_reason == "stop", r
    return r.message.content


def check(value):
    assert set(value) == set(SCHEMA["required"]), value
    assert len(value["name"]) <= 12 and 0 <= value["age"] <= 120 and value["kind"] in ("cat", "dog", None)
    assert 1 <= len(value["tags"]) <= 3 and all(isinstance(t, bool) for t in value["tags"])


def response_format(schema, strict=True):
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": strict, "schema": schema}}


def test_json_schema():
    for seed in range(6):
        value = json.loads(text(response_format=response_format(SCHEMA), temperature=1.5, seed=seed))
        check(value)
        assert list(value) == list(SCHEMA["properties"])  # strict: in the order of the schema
        check(json.loads(text(response_format=response_format(SCHEMA, False), temperature=1.5, seed=seed)))


def test_same_answer_streamed_alone_and_in_company():
    fields = {"response_format": response_format(SCHEMA), "temperature": 1.2, "seed": 3}
    alone = text(**fields)
    streamed = "".join(c.choices[0].delta.content or "" for c in chat(stream=True, **fields))
    assert streamed == alone
    several = chat(n=4, **fields)
    assert several.choices[0].message.content == alone
    for choice in several.choices:
        check(json.loads(choice.message.content))
    again = client.chat.completions.create(model=S.model, messages=MESSAGES, max_tokens=300, **fields)
    assert again.choices[0].message.content == alone


def test_other_names_of_it():
    for extra in ({"guided_json": SCHEMA}, {"guided_json": json.dumps(SCHEMA)}, {"json_schema": SCHEMA},
                  {"structured_outputs": {"json": SCHEMA}},
                  {"response_format": {"type": "json_object", "schema": SCHEMA}}):
        check(json.loads(text(extra_body=extra)))
    compact = text(extra_body={"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}})
    check(json.loads(compact))
    assert not re.search(r"\s", re.sub(r'"([^"\\]|\\.)*"', '""', compact)), compact
    for extra in ({"guided_choice": ["yes", "no, never"]}, {"structured_outputs": {"choice": ["yes", "no, never"]}}):
        assert text(extra_body=extra) in ("yes", "no, never")
    for extra in ({"guided_regex": "[A-Z]{3}-\\d{2,4}"}, {"structured_outputs": {"regex": "[A-Z]{3}-\\d{2,4}"}}):
        assert re.fullmatch("[A-Z]{3}-[0-9]{2,4}", text(extra_body=extra))
    for name in ("guided_grammar", "grammar"):
        grammar = 'root ::= "(" root ")" | [ab]{2,3}'
        answer = chat(extra_body={name: grammar}, max_tokens=40, temperature=2, seed=1).choices[0]
        inner = answer.message.content.lstrip("(")
        assert answer.finish_reason == "length" or re.fullmatch(r"[ab]{2,3}\)*", inner), answer
    r = client.completions.create(model=S.model, prompt="Once", max_tokens=300, temperature=0,
                                  extra_body={"guided_regex": "x{3}"})
    assert r.choices[0].text == "xxx" and r.choices[0].finish_reason == "stop"


def test_logprobs_are_of_the_model():
    free = chat(max_tokens=1, logprobs=True, top_logprobs=5).choices[0].logprobs.content[0]
    held = chat(max_tokens=1, logprobs=True, top_logprobs=5,
                extra_body={"guided_regex": "[0-9]"}).choices[0].logprobs.content[0]
    assert held.token.isdigit() and [t.logprob for t in held.top_logprobs] == [t.logprob for t in free.top_logprobs]


def test_the_end_comes_where_it_must():
    r = chat(extra_body={"guided_regex": "ab", "min_tokens": 20, "ignore_eos": True})
    assert r.choices[0].message.content == "ab" and r.choices[0].finish_reason == "stop"


def refused(param, says, **fields):
    try:
        chat(**fields)
    except openai.BadRequestError as e:
        assert e.param == param and says in e.message, e
        return
    raise AssertionError(f"{fields} was not refused")


def test_refusals_name_field_and_keyword():
    bad = {"type": "object", "properties": {"t": {"type": "array", "uniqueItems": True}}}
    refused("response_format", "#/properties/t/uniqueItems", response_format=response_format(bad))
    refused("guided_json", "#/minLength", extra_body={"guided_json": {"minLength": "x"}})
    refused("guided_regex", "back reference", extra_body={"guided_regex": "(a)\\1"})
    refused("guided_regex", "too", extra_body={"guided_regex": "(a{1,900}){1,900}{1,900}"})
    refused("guided_regex", "too complex", extra_body={"guided_regex": "(a|b)*a(a|b){40}"})
    refused("grammar", "not defined", extra_body={"grammar": "root ::= x"})
    refused("guided_choice", "strings", extra_body={"guided_choice": []})
    refused("guided_regex", "exclude", extra_body={"guided_json": SCHEMA, "guided_regex": "a"})
    refused("structured_outputs", "structural_tag", extra_body={"structured_outputs": {"structural_tag": "x"}})
    refused("response_format", "expected", response_format={"type": "yaml"})


def test_too_much_work_for_an_answer_is_a_400():
    rules = ["root ::= a0"]
    for i in range(22):  # each rule begins with either of two others
        rules.append(f'a{i} ::= a{i + 1} "x" | b{i + 1} "y" | "(" root')
        rules.append(f'b{i} ::= a{i + 1} "z" | b{i + 1} "w" | "[" root')
    rules += ['a22 ::= "c"', 'b22 ::= "c" | "d"']
    status, a = S.call("POST", "/v1/completions", {"prompt": "A", "max_tokens": 4, "grammar": "\n".join(rules)})
    assert status == 400 and "ambiguous" in a["error"]["message"], (status, a)


with S:
    server.run(dict(globals()))
    assert S.blocks_return()
