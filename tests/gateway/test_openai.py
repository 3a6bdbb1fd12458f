"""The openai client from PyPI, unmodified, against a real server with a small real model."""
import json
import math
import re
import sys

import server

try:
    import openai
except ImportError:
    server.skip("the openai client is not installed")

S = server.Server("--ctx", "512")
client = openai.OpenAI(base_url=S.url("/v1"), api_key="none", max_retries=0)
MESSAGES = [{"role": "user", "content": "Tell me a story about a little girl named Lily."}]


def chat(**fields):
    fields.setdefault("max_tokens", 24)
    fields.setdefault("temperature", 0)
    return client.chat.completions.create(model=S.model, messages=MESSAGES, **fields)


def test_models():
    assert [m.id for m in client.models.list()] == [S.model]
    assert client.models.retrieve(S.model).owned_by == "ingot"


def test_chat():
    r = chat()
    assert r.object == "chat.completion" and r.choices[0].message.role == "assistant"
    assert r.choices[0].message.content and r.choices[0].finish_reason == "length"
    assert r.usage.completion_tokens == 24 and r.usage.total_tokens == r.usage.prompt_tokens + 24
    assert r.id.startswith("chatcmpl-") and re.fullmatch("fp_[0-9a-f]{10}", r.system_fingerprint)


def test_chat_streamed_equals_whole():
    whole = chat().choices[0].message.content
    text, last, usage = "", None, None
    for chunk in chat(stream=True, stream_options={"include_usage": True}):
        assert chunk.object == "chat.completion.chunk"
        if chunk.usage:
            usage = chunk.usage
            assert not chunk.choices
            continue
        last = chunk.choices[0]
        text += last.delta.content or ""
    assert text == whole and last.finish_reason == "length" and usage.completion_tokens == 24


def test_stream_helper_and_raw_response():
    raw = client.chat.completions.with_raw_response.create(model=S.model, messages=MESSAGES, max_tokens=2)
    assert raw.headers["x-request-id"] and raw.parse().choices
    with client.chat.completions.with_streaming_response.create(
            model=S.model, messages=MESSAGES, max_tokens=2, stream=True) as r:
        assert r.headers["content-type"].startswith("text/event-stream")
        assert any("[DONE]" in line for line in r.iter_lines())


def test_seeds_repeat_and_choices_differ():
    a = chat(temperature=1.0, seed=7, n=4)
    b = chat(temperature=1.0, seed=7, n=4)
    texts = [c.message.content for c in a.choices]
    assert texts == [c.message.content for c in b.choices] and len(set(texts)) > 1
    assert [c.index for c in a.choices] == [0, 1, 2, 3]
    c = chat(temperature=1.0, seed=8, n=4)
    assert texts != [x.message.content for x in c.choices]
    streamed = {i: "" for i in range(4)}
    for chunk in chat(temperature=1.0, seed=7, n=4, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert [streamed[i] for i in range(4)] == texts


def test_stop():
    whole = client.completions.create(model=S.model, prompt="Once upon a time", max_tokens=40, temperature=0).choices[0].text
    word = whole.split()[8]
    r = client.completions.create(model=S.model, prompt="Once upon a time", max_tokens=40, temperature=0, stop=[word, "\x00"])
    assert r.choices[0].finish_reason == "stop" and r.choices[0].text == whole[:whole.index(word)]
    text = "".join(c.choices[0].text for c in client.completions.create(
        model=S.model, prompt="Once upon a time", max_tokens=40, temperature=0, stop=word, stream=True))
    assert text == whole[:whole.index(word)]


def test_chat_logprobs():
    r = chat(logprobs=True, top_logprobs=3)
    content = r.choices[0].logprobs.content
    assert len(content) == 24
    for t in content:
        tops = [x.logprob for x in t.top_logprobs]
        assert len(tops) == 3 and tops == sorted(tops, reverse=True) and t.logprob <= 0
        assert t.logprob == tops[0] and t.token == t.top_logprobs[0].token  # greedy
        assert sum(math.exp(x) for x in tops) <= 1.0001
        assert bytes(t.bytes).decode(errors="replace") == t.token
    streamed = [t for c in chat(logprobs=True, top_logprobs=3, stream=True) if c.choices and c.choices[0].logprobs
                for t in c.choices[0].logprobs.content]
    assert [(t.token, t.logprob) for t in streamed] == [(t.token, t.logprob) for t in content]


def test_completions():
    r = client.completions.create(model=S.model, prompt=["Once upon a time", "The dog"], n=2, max_tokens=6, temperature=0,
                                  logprobs=2, seed=1)
    assert [c.index for c in r.choices] == [0, 1, 2, 3]
    assert r.choices[0].text == r.choices[1].text != r.choices[2].text
    l = r.choices[0].logprobs
    assert len(l.tokens) == len(l.token_logprobs) == len(l.top_logprobs) == len(l.text_offset) == 6
    assert l.text_offset[0] == 0 and l.text_offset == sorted(l.text_offset)
    echo = client.completions.create(model=S.model, prompt="Once upon a time", max_tokens=6, temperature=0, echo=True)
    assert echo.choices[0].text == "Once upon a time" + r.choices[0].text
    ids = S.call("POST", "/v1/tokenize", {"prompt": "Once upon a time"})[1]["tokens"]
    by_ids = client.completions.create(model=S.model, prompt=ids, max_tokens=6, temperature=0)
    assert by_ids.choices[0].text == r.choices[0].text
    default = client.completions.create(model=S.model, prompt="The dog")
    assert default.usage.completion_tokens <= 16


def test_logit_bias_and_penalties():
    greedy = client.completions.create(model=S.model, prompt="Once upon a time", max_tokens=1, temperature=0, logprobs=1)
    ids = S.call("POST", "/v1/tokenize", {"prompt": "x", "add_special_tokens": False})[1]["tokens"]
    forced = client.completions.create(model=S.model, prompt="Once upon a time", max_tokens=3, temperature=0,
                                       logit_bias={str(ids[-1]): 100})
    assert forced.choices[0].text.replace(" ", "") == "xxx", forced.choices[0].text
    assert greedy.choices[0].text != "x"
    r = chat(presence_penalty=2, frequency_penalty=2, extra_body={"top_k": 5, "min_p": 0.05, "repetition_penalty": 1.1})
    assert r.choices[0].message.content


def expect(error, call, param=None, code=None):
    try:
        call()
    except error as e:
        assert param is None or e.param == param, e.param
        assert code is None or e.code == code, e.code
        assert e.message
        return
    raise AssertionError("no " + error.__name__)


def test_errors():
    expect(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-9", messages=MESSAGES), "model",
           "model_not_found")
    expect(openai.NotFoundError, lambda: client.models.retrieve("gpt-9"), "model", "model_not_found")
    expect(openai.BadRequestError, lambda: chat(temperature=9), "temperature")
    expect(openai.BadRequestError, lambda: chat(n=17), "n")
    expect(openai.BadRequestError, lambda: chat(stop=["x"] * 17), "stop")
    expect(openai.BadRequestError, lambda: chat(tools=[{"type": "function", "function": {"name": "f"}}]), "tools",
           "unsupported_value")
    expect(openai.BadRequestError, lambda: chat(extra_body={"temprature": 1}), "temprature", "unknown_parameter")
    expect(openai.BadRequestError, lambda: client.chat.completions.create(model=S.model, messages=[]), "messages")
    expect(openai.BadRequestError,
           lambda: client.completions.create(model=S.model, prompt="word " * 2000), "prompt", "context_length_exceeded")
    expect(openai.BadRequestError, lambda: client.embeddings.create(model=S.model, input="x"), "model", "unsupported_value")
    expect(openai.NotFoundError, lambda: client.fine_tuning.jobs.list(), None, "unknown_url")


def test_sixteen_at_once_equal_one_alone():
    import concurrent.futures
    alone = chat(max_tokens=20).choices[0].message.content
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda _: chat(max_tokens=20).choices[0].message.content, range(16)))
    assert set(together) == {alone}


def test_metrics_counted_all_that():
    import urllib.request
    text = urllib.request.urlopen(S.url("/metrics")).read().decode()
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and line[0] != "#"}
    label = '{model_name="%s",engine="0"}' % S.model
    assert values["vllm:generation_tokens_total" + label] > 100
    assert values["vllm:time_to_first_token_seconds_count" + label] > 10
    assert values["vllm:kv_cache_usage_perc" + label] == 0
    assert values['vllm:request_success_total{model_name="%s",engine="0",finished_reason="length"}' % S.model] > 10


with S:
    server.run(dict(globals()))
    assert S.blocks_return()
