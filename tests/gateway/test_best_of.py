"""best_of: of so many candidates the n likeliest come, by a token's mean log-probability; all of them are counted."""
import server

ASK = {"prompt": ["Once upon a time", "The dog"], "max_tokens": 12, "temperature": 1.3, "seed": 11, "ignore_eos": True}


def complete(s, **fields):
    status, answer = s.call("POST", "/v1/completions", {**ASK, **fields})
    assert status == 200, answer
    return answer


def test_the_likeliest_are_chosen():
    with server.Server("--ctx", "256") as s:
        every = complete(s, n=6, logprobs=0)
        mean = lambda c: sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"])
        best = complete(s, n=2, best_of=6, return_replay=True)
        want = []
        for prompt in range(2):
            candidates = every["choices"][6 * prompt:6 * prompt + 6]
            want += sorted(candidates, key=mean, reverse=True)[:2]
            assert len({c["text"] for c in candidates}) == 6
        got = best["choices"]
        assert [c["text"] for c in got] == [c["text"] for c in want], (got, want)
        assert [c["index"] for c in got] == [0, 1, 2, 3] and all(c["logprobs"] is None for c in got)
        assert [c["text"] for c in want] != [every["choices"][i]["text"] for i in (0, 1, 6, 7)]  # it did choose
        assert best["usage"]["completion_tokens"] == 2 * 6 * 12, best["usage"]
        assert best["usage"]["prompt_tokens"] == every["usage"]["prompt_tokens"]
        drawn = [o["index"] for o in best["replay"]["outputs"]]  # what `ingot replay` draws again
        assert drawn == [c["index"] % 6 for c in want], (drawn, want)
        asked = complete(s, n=1, best_of=6, logprobs=1)["choices"]
        assert [c["logprobs"]["token_logprobs"] for c in asked] == [want[i]["logprobs"]["token_logprobs"] for i in (0, 2)]


def test_it_cannot_be_streamed_and_shares_the_prompt():
    with server.Server("--ctx", "256") as s:
        status, answer = s.call("POST", "/v1/completions", {**ASK, "best_of": 3, "stream": True})
        assert status == 400 and answer["error"]["param"] == "best_of", answer
        long = {"prompt": "Once upon a time there was a dog. " * 8, "max_tokens": 4, "best_of": 8}
        before = s.call("GET", "/metrics")[1]
        complete(s, **long)
        value = lambda text, name: sum(float(line.split()[-1]) for line in text.split("\n") if line.startswith(name))
        after = s.call("GET", "/metrics")[1]
        asked, hit = (value(after, f"vllm:prefix_cache_{k}") - value(before, f"vllm:prefix_cache_{k}")
                      for k in ("queries_total", "hits_total"))
        assert hit > asked * 0.8, (hit, asked)  # seven of eight candidates computed next to nothing of it


server.run(dict(globals()))
