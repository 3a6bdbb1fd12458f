"""Real clients from PyPI against the stand-in engine with a Hermes template: tools, reasoning, streams, errors.

    clients.py URL        each client that is not installed is skipped; exit 77 when none is here
"""
import importlib.util
import json
import os
import sys

URL = sys.argv[1]
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network
CALL = '<think>hm</think>Ok.<tool_call>{"name": "f", "arguments": {"n": 1}}</tool_call>'
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}


def said(text):
    return [{"role": "user", "content": "SAY " + text}]


def test_openai():
    import openai
    c = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
    m = c.chat.completions.create(model="fake", messages=said(CALL), tools=[TOOL]).choices[0]
    assert m.finish_reason == "tool_calls" and m.message.content == "Ok." and m.message.reasoning_content == "hm"
    assert json.loads(m.message.tool_calls[0].function.arguments) == {"n": 1}
    with c.chat.completions.stream(model="fake", messages=said(CALL), tools=[TOOL]) as stream:
        done = [e for e in stream if e.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert done[0].name == "f" and final.message.tool_calls[0].id.startswith("call_")
    history = said("x")[:1] + [m.message, {"role": "tool", "tool_call_id": m.message.tool_calls[0].id, "content": "42"},
                               *said("done")]
    assert c.chat.completions.create(model="fake", messages=history, tools=[TOOL]).choices[0].message.content
    try:
        c.chat.completions.create(model="fake", messages=said("x"), tools=[TOOL], tool_choice="sometimes")
        raise AssertionError("not refused")
    except openai.BadRequestError as e:
        assert e.param == "tool_choice" and e.request_id


def test_openai_every_field():
    """Each parameter the client knows is honoured, ignored or refused by name, as docs/server.md says."""
    import openai
    from openai.types import chat, completion_create_params
    values = {
        "audio": {"voice": "x", "format": "mp3"}, "frequency_penalty": 0.1, "function_call": {"name": "f"},
        "functions": [{"name": "f"}], "logit_bias": {"5": 1}, "logprobs": True, "max_completion_tokens": 5,
        "max_tokens": 5, "metadata": {"a": "b"}, "modalities": ["text", "audio"], "moderation": {"x": 1}, "n": 2,
        "parallel_tool_calls": True, "prediction": {"type": "content", "content": "x"}, "presence_penalty": 0.1,
        "prompt_cache_key": "k", "prompt_cache_options": {}, "prompt_cache_retention": "24h",
        "reasoning_effort": "low", "response_format": {"type": "text"}, "safety_identifier": "s", "seed": 1,
        "service_tier": "flex", "stop": "zz", "store": True, "stream_options": {"include_usage": True},
        "temperature": 0.5, "tool_choice": "auto", "tools": [TOOL], "top_logprobs": 1, "top_p": 0.5, "user": "u",
        "verbosity": "low", "web_search_options": {"x": 1}, "best_of": 1, "echo": True, "suffix": "s",
        "messages": said("yes"), "prompt": "x", "model": "fake"}
    docs = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/server.md")).read()
    rows = {r.split("|")[1].strip(): r.split("|")[2:4] for r in docs.splitlines()
            if r.startswith(("| honoured |", "| ignored |", "| refused |"))}
    c = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
    for column, params, create, base in (
            (0, chat.completion_create_params, c.chat.completions.create, {"messages": said("yes")}),
            (1, completion_create_params, c.completions.create, {"prompt": "x"})):
        for name in params.CompletionCreateParamsBase.__annotations__:
            said_to_be = [k for k, cells in rows.items() if f"`{name}`" in cells[column]]
            assert len(said_to_be) == 1, (column, name, said_to_be)
            fields = {"model": "fake", **base, name: values[name]}
            if name == "stream_options":
                fields["stream"] = True
            if name == "top_logprobs":
                fields["logprobs"] = True
            if column and name == "logprobs":
                fields["logprobs"] = 1
            try:
                create(**fields)
                assert said_to_be != ["refused"], name
            except openai.BadRequestError as e:
                assert said_to_be == ["refused"] and e.param == name, (name, e)


def test_openai_responses():
    import openai
    c = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
    tool = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}
    r = c.responses.create(model="fake", input="SAY " + CALL, tools=[tool])
    assert r.output_text == "Ok." and [o.type for o in r.output] == ["reasoning", "message", "function_call"]
    with c.responses.stream(model="fake", input="SAY " + CALL, tools=[tool]) as stream:
        types = [e.type for e in stream]
        final = stream.get_final_response()
    assert types[0] == "response.created" and types[-1] == "response.completed" and final.output_text == "Ok."
    assert json.loads(final.output[2].arguments) == {"n": 1}
    items = [{"role": "user", "content": "x"}] + [o.model_dump(exclude_none=True) for o in final.output] + [
        {"type": "function_call_output", "call_id": final.output[2].call_id, "output": "42"},
        {"role": "user", "content": "SAY done"}]
    assert c.responses.create(model="fake", input=items, tools=[tool]).output_text
    nxt = c.responses.create(model="fake", input="SAY more", previous_response_id=r.id)
    assert nxt.output_text and c.responses.retrieve(nxt.id).id == nxt.id
    listed = list(c.responses.input_items.list(nxt.id, order="asc", limit=1))  # a page each
    assert [i.content[0].text for i in listed if i.type == "message"] == ["SAY " + CALL, "Ok.", "SAY more"], listed
    r = c.responses.create(model="fake", input="x", include=["message.output_text.logprobs"], top_logprobs=2)
    assert len(r.output[0].content[0].logprobs) == 5 and r.output[0].content[0].logprobs[0].top_logprobs[1].token
    job = c.responses.create(model="fake", input="SAY later", background=True)
    assert job.background and job.status in ("queued", "in_progress", "completed")
    while job.status in ("queued", "in_progress"):
        job = c.responses.retrieve(job.id)
    assert job.output_text == "later"
    seen = []
    with c.responses.create(model="fake", input="x", background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    again = list(c.responses.retrieve(seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number))
    assert [e.sequence_number for e in again][0] == seen[-1].sequence_number + 1
    assert again[-1].type == "response.completed" and again[-1].response.output_text == "w0 w1 w2 w3 w4"
    c.responses.delete(nxt.id)
    try:
        c.responses.retrieve(nxt.id)
        raise AssertionError("not deleted")
    except openai.NotFoundError:
        pass


def test_anthropic():
    import anthropic
    c = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
    tool = {"name": "f", "description": "d", "input_schema": SCHEMA}
    m = c.messages.create(model="fake", max_tokens=400, messages=said(CALL), tools=[tool])
    assert [b.type for b in m.content] == ["thinking", "text", "tool_use"] and m.stop_reason == "tool_use"
    assert m.content[2].input == {"n": 1} and m.usage.output_tokens > 10
    with c.messages.stream(model="fake", max_tokens=400, messages=said(CALL), tools=[tool]) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "Ok." and final.content[2].input == {"n": 1} and final.content[0].thinking == "hm"
    history = said("x") + [{"role": "assistant", "content": final.content},
                           {"role": "user", "content": [{"type": "tool_result", "tool_use_id": final.content[2].id,
                                                         "content": "42"}, {"type": "text", "text": "SAY done"}]}]
    assert c.messages.create(model="fake", max_tokens=9, messages=history, tools=[tool]).content[0].text
    assert c.beta.messages.create(model="fake", max_tokens=40, messages=said("hi"),
                                  betas=["interleaved-thinking-2025-05-14"]).content[0].text == "hi"
    assert c.messages.count_tokens(model="fake", messages=said("x")).input_tokens == 6
    m = c.messages.create(model="fake", max_tokens=40, messages=said("<think>hm</think>a"), stop_sequences=["zz"],
                          thinking={"type": "adaptive", "display": "omitted"}, tool_choice={"type": "none"}, tools=[tool])
    assert m.content[0].thinking == "" and m.content[1].text == "a" and m.stop_reason == "end_turn"
    assert m.usage.output_tokens_details.thinking_tokens > 0 and m.usage.cache_read_input_tokens == 0
    for kind, says in (({"type": "any"}, anthropic.InternalServerError), ({"type": "dance"}, anthropic.BadRequestError)):
        try:  # what it would say is no call: the stand-in engine fails it
            c.messages.create(model="fake", max_tokens=40, messages=said("words"), tools=[tool], tool_choice=kind)
            raise AssertionError("not refused")
        except says as e:
            assert e.body["error"]["type"] in ("invalid_request_error", "overloaded_error"), e.body
    assert [m.id for m in c.models.list()] == ["fake"]
    try:
        c.messages.create(model="claude-none", max_tokens=1, messages=said("x"))
        raise AssertionError("not refused")
    except anthropic.NotFoundError as e:
        assert e.request_id and e.body["type"] == "error"


def test_ollama():
    import ollama
    c = ollama.Client(host=URL)
    r = c.chat(model="fake", messages=said(CALL), tools=[TOOL])
    assert r.message.tool_calls[0].function.arguments == {"n": 1} and r.message.content == "Ok."
    assert r.message.thinking == "hm" and r.eval_count > 10 and r.done_reason == "stop"
    parts = list(c.chat(model="fake:latest", messages=said(CALL), tools=[TOOL], stream=True))
    assert "".join(p.message.content or "" for p in parts) == "Ok." and parts[-1].done
    assert c.generate(model="fake", prompt="SAY yes").response == "yes"
    assert c.list().models[0].model == "fake:latest" and c.ps().models[0].model == "fake:latest"
    shown = c.show("fake")
    assert "tools" in shown.capabilities and shown.modelfile == "FROM fake\n" and shown.modelinfo
    assert c.generate(model="fake", prompt="SAY yes", logprobs=True, top_logprobs=1).logprobs[0].top_logprobs
    assert c.generate(model="fake", prompt="", keep_alive="5m").done_reason == "load"
    assert c.pull("fake").status == "success" and [p.status for p in c.pull("fake", stream=True)][-1] == "success"
    for refused in (lambda: c.pull("llama3"), lambda: list(c.pull("llama3", stream=True)), lambda: c.push("fake"),
                    lambda: c.create("b", from_="fake", system="s"), lambda: c.copy("fake", "b"),
                    lambda: c.delete("fake"), lambda: c.generate(model="fake", prompt="", keep_alive="soon")):
        try:
            refused()
            raise AssertionError("not refused")
        except ollama.ResponseError as e:
            assert len(e.error) > 20, e
    history = said("x") + [r.message, {"role": "tool", "tool_name": "f", "content": "42"}, *said("done")]
    assert c.chat(model="fake", messages=history).message.content
    try:
        c.chat(model="none", messages=said("x"))
        raise AssertionError("not refused")
    except ollama.ResponseError as e:
        assert e.status_code == 404 and "none" in e.error


def test_langchain_openai():
    from langchain_openai import ChatOpenAI
    c = ChatOpenAI(base_url=URL + "/v1", api_key="none", model="fake", max_retries=0).bind_tools([TOOL])
    m = c.invoke("SAY " + CALL)
    assert m.tool_calls[0]["name"] == "f" and m.tool_calls[0]["args"] == {"n": 1}
    whole = None
    for chunk in c.stream("SAY " + CALL):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"] == {"n": 1} and whole.content == "Ok."


def test_websockets():
    from websockets.sync.client import connect
    ws = URL.replace("http", "ws")
    with connect(ws + "/v1/stream") as c:
        c.send(json.dumps({"model": "fake", "messages": said("yes")}))
        frames = [json.loads(m) for m in c]
    assert "".join(f["choices"][0]["delta"].get("content") or "" for f in frames) == "yes"
    assert c.protocol.close_code == 1000
    with connect(ws + "/v1/responses") as c:
        for _ in range(2):
            c.send(json.dumps({"type": "response.create", "model": "fake", "input": "SAY yes"}))
            event = {"type": ""}
            while event["type"] != "response.completed":
                event = json.loads(c.recv())
        c.ping().wait(10)


def test_litellm():
    import litellm
    litellm.suppress_debug_info = True
    r = litellm.completion(model="openai/fake", api_base=URL + "/v1", api_key="none", messages=said(CALL), tools=[TOOL])
    assert r.choices[0].message.tool_calls[0].function.name == "f"
    r = litellm.completion(model="anthropic/fake", api_base=URL, api_key="none", max_tokens=400, messages=said(CALL),
                           tools=[TOOL])
    assert json.loads(r.choices[0].message.tool_calls[0].function.arguments) == {"n": 1}
    text = ""
    for chunk in litellm.completion(model="ollama_chat/fake", api_base=URL, messages=said("yes"), stream=True):
        text += chunk.choices[0].delta.content or ""
    assert text == "yes"


if __name__ == "__main__":
    ran = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        if importlib.util.find_spec(name[5:].replace("_responses", "").replace("_every_field", "").split(".")[0]) is None:
            print("skipped:", name[5:], "is not installed", flush=True)
            continue
        try:
            test()
        except ModuleNotFoundError as e:  # a client that lacks a part of itself
            print("skipped:", name[5:], e, flush=True)
            continue
        ran += 1
        print("ok", name, flush=True)
    sys.exit(0 if ran else 77)
