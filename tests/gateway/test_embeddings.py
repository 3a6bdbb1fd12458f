"""Embeddings and reranking: the openai client from PyPI, unmodified, LangChain's where it is installed, and bare HTTP."""
import base64
import http.client
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading

import server

server.need_binary()
FOLDER = tempfile.TemporaryDirectory()
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "sat", "on", "a", "mat", "what", "is", "##s", "ran"]


def encoder(name, labels=None):
    """A tiny BERT with random weights and word pieces; with labels, a classifier."""
    folder = os.path.join(FOLDER.name, name)
    os.makedirs(folder)
    r, n, ff, layers = random.Random(7), 32, 48, 2
    config = dict(model_type="bert", vocab_size=len(WORDS), hidden_size=n, num_hidden_layers=layers, num_attention_heads=4,
                  intermediate_size=ff, max_position_embeddings=64, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12,
                  architectures=["BertForSequenceClassification" if labels else "BertModel"])
    if labels:
        config["id2label"] = {str(i): "L%d" % i for i in range(labels)}
    shapes = {"embeddings.word_embeddings.weight": [len(WORDS), n], "embeddings.position_embeddings.weight": [64, n],
              "embeddings.token_type_embeddings.weight": [2, n]}
    for i in range(layers):
        layer = "encoder.layer.%d." % i
        for part, out, into in (("attention.self.query", n, n), ("attention.self.key", n, n), ("attention.self.value", n, n),
                                ("attention.output.dense", n, n), ("intermediate.dense", ff, n), ("output.dense", n, ff)):
            shapes[layer + part + ".weight"], shapes[layer + part + ".bias"] = [out, into], [out]
    for part in ["embeddings."] + ["encoder.layer.%d.%s" % (i, p) for i in range(layers) for p in ("attention.output.", "output.")]:
        shapes[part + "LayerNorm.weight"] = shapes[part + "LayerNorm.bias"] = [n]
    if labels:
        shapes = {"bert." + k: v for k, v in shapes.items()}
        shapes.update({"bert.pooler.dense.weight": [n, n], "bert.pooler.dense.bias": [n], "classifier.weight": [labels, n],
                       "classifier.bias": [labels]})
    header, data = {}, b""
    for key, shape in shapes.items():
        count = math.prod(shape)
        norm = key.endswith("LayerNorm.weight")
        header[key] = dict(dtype="F32", shape=shape, data_offsets=[len(data), len(data) + 4 * count])
        data += struct.pack(f"<{count}f", *(1.0 if norm else r.gauss(0, 0.3) for _ in range(count)))
    head = json.dumps(header).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + data)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    tokenizer = dict(
        version="1.0", truncation=None, padding=None,
        added_tokens=[dict(id=i, content=WORDS[i], single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
                      for i in range(4)],
        normalizer=dict(type="BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True),
        pre_tokenizer=dict(type="BertPreTokenizer"),
        post_processor=dict(type="BertProcessing", sep=["[SEP]", 3], cls=["[CLS]", 2]),
        decoder=dict(type="WordPiece", prefix="##", cleanup=True),
        model=dict(type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##", max_input_chars_per_word=100,
                   vocab={w: i for i, w in enumerate(WORDS)}))
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump(tokenizer, f)
    return folder


def minilm():
    cache = os.environ.get("INGOT_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ingot")
    path = os.path.join(cache, "models", "all-MiniLM-L6-v2")
    return path if os.path.exists(os.path.join(path, "model.safetensors")) else None


ENCODER = encoder("tiny-bert")
S = server.Server(path=ENCODER)
TEXTS = ["the cat sat", "a dog", "what is on the mat", ""]


def post(s, path, body, status=200):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    c.request("POST", path, body if isinstance(body, (str, bytes)) else json.dumps(body), {"content-type": "application/json"})
    r = c.getresponse()
    text = r.read()
    assert r.status == status, (r.status, text)
    return json.loads(text)


def vectors(texts, s=S, **fields):
    a = post(s, "/v1/embeddings", dict(fields, input=texts))
    assert a["object"] == "list" and [d["index"] for d in a["data"]] == list(range(len(a["data"])))
    assert a["usage"]["prompt_tokens"] == a["usage"]["total_tokens"] > 0
    return [d["embedding"] for d in a["data"]]


def error(body, status=400, path="/v1/embeddings", s=S):
    e = post(s, path, body, status)["error"]
    assert e["type"] == ("invalid_request_error" if status < 500 else "server_error") and e["message"], e
    return e


# ---- embeddings ----

def test_length_one_and_the_same_in_any_company():
    all_of = vectors(TEXTS)
    for v in all_of:
        assert len(v) == 32 and abs(math.fsum(x * x for x in v) - 1) < 1e-6
    for text, v in zip(TEXTS, all_of):
        assert vectors(text) == [v]
    assert len({tuple(v) for v in all_of}) == len(TEXTS)


def test_base64_is_the_same_numbers():
    for text, raw in zip(TEXTS, vectors(TEXTS, encoding_format="base64")):
        data = base64.b64decode(raw, validate=True)
        floats = struct.unpack("<32f", data)
        assert [struct.unpack("<f", struct.pack("<f", x))[0] for x in vectors(text)[0]] == list(floats)
    for n in (1, 2, 3, 31):  # every padding
        raw, = vectors("a dog", encoding_format="base64", dimensions=n)
        assert len(base64.b64decode(raw, validate=True)) == 4 * n


def test_shortened_vectors_have_length_one():
    whole, = vectors("the cat sat")
    short, = vectors("the cat sat", dimensions=4)
    length = math.sqrt(math.fsum(x * x for x in whole[:4]))
    assert all(abs(s - w / length) < 1e-6 for s, w in zip(short, whole)) and len(short) == 4
    raw, = vectors("the cat sat", normalize=False)
    length = math.sqrt(math.fsum(x * x for x in raw))
    assert length > 1.1 and all(abs(r / length - w) < 1e-6 for r, w in zip(raw, whole))


def test_token_ids():
    ids = post(S, "/v1/tokenize", {"prompt": "the cats sat"})["tokens"]
    assert ids == [2, 4, 5, 13, 7, 3]
    assert vectors(ids) == vectors("the cats sat")
    assert vectors([ids, [2, 9, 3]]) == vectors(["the cats sat", "a"])
    e = error({"input": [[2, 9, 3], [4, 5]]})
    assert "input[1]" in e["message"] and "check_embedding_ctx_length" in e["message"]
    e = error({"input": [2, 99, 3]})
    assert e["param"] == "input" and "99" in e["message"]


def test_long_texts():
    e = error({"input": ["a", "the " * 100]})
    assert e["param"] == "input[1]" and e["code"] == "context_length_exceeded" and "102 tokens" in e["message"]
    cut = vectors(["the " * 100, "the " * 62], truncate_prompt_tokens=-1)
    assert cut[0] == cut[1] == vectors("the " * 62)[0]
    assert vectors("the cat sat on", truncate_prompt_tokens=4) == vectors("the cat")
    assert error({"input": "a", "truncate_prompt_tokens": 65})["param"] == "truncate_prompt_tokens"


def test_bad_input_names_the_field():
    for body, param in [
            ({}, "input"), ({"input": []}, "input"), ({"input": {}}, "input"), ({"input": ["a", 3]}, "input[1]"),
            ({"input": ["a"] * 2049}, "input"), ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
            ({"input": "a", "dimensions": 0}, "dimensions"), ({"input": "a", "dimensions": 33}, "dimensions"),
            ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
            ({"input": "a", "prompt_name": "query"}, "prompt_name"), ({"input": "a", "dimension": 3}, "dimension"),
            ({"input": "a", "normalize": 1}, "normalize"), ({"input": [[]]}, "input"), ({"input": [[1, -1]]}, "input[0]")]:
        assert error(body)["param"] == param, (body, param)
    assert error({"input": "a", "model": "other"}, 404)["code"] == "model_not_found"
    assert error("{", 400)["code"] == "invalid_json"
    assert len(vectors(["a"] * 2048)) == 2048
    vectors("a", user="me", model=S.model)


def test_an_encoder_does_not_chat():
    message = [{"role": "user", "content": "a"}]
    for path, body in [("/v1/chat/completions", {"messages": message}), ("/v1/completions", {"prompt": "a"})]:
        e = error(body, path=path)
        assert e["param"] == "model" and "/v1/embeddings" in e["message"]
    e = error({"query": "a", "documents": ["b"]}, path="/v1/rerank")
    assert "/v1/embeddings" in e["message"]
    m = S.call("GET", "/v1/models")[1]["data"][0]
    assert m["task"] == "embed" and m["dimensions"] == 32


def test_many_clients_get_what_each_gets_alone():
    want, wrong = {t: vectors(t)[0] for t in TEXTS}, []

    def client(seed):
        r = random.Random(seed)
        for _ in range(20):
            texts = r.choices(TEXTS, k=r.randint(1, 40))
            if vectors(texts) != [want[t] for t in texts]:
                wrong.append(seed)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_clients_that_leave_cost_nothing():
    body = json.dumps({"input": ["the cat sat on the mat " * 10] * 2000}).encode()
    for _ in range(10):
        with S.connect() as c:
            c.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: %s\r\ncontent-length: %d\r\n\r\n" % (b"localhost", len(body)) + body)
    assert len(vectors("a")) == 1
    assert S.blocks_return()


# ---- clients ----

def test_openai_client():
    try:
        import openai
    except ImportError:
        return print("the openai client is not installed")
    client = openai.OpenAI(base_url=S.url("/v1"), api_key="none", max_retries=0)
    default = client.embeddings.create(model=S.model, input=TEXTS)  # asks for base64
    floats = client.embeddings.create(model=S.model, input=TEXTS, encoding_format="float")
    assert len(default.data) == 4 and default.usage.prompt_tokens == floats.usage.prompt_tokens
    for a, b in zip(default.data, floats.data):
        assert all(abs(x - y) < 1e-7 for x, y in zip(a.embedding, b.embedding)) and len(a.embedding) == 32
    assert len(client.embeddings.create(model=S.model, input="a", dimensions=5).data[0].embedding) == 5
    try:
        client.embeddings.create(model=S.model, input=["a", "the " * 300])
        raise AssertionError("too long a text was taken")
    except openai.BadRequestError as e:
        assert e.param == "input[1]" and e.code == "context_length_exceeded"


def test_langchain():
    try:
        from langchain_openai import OpenAIEmbeddings
    except ImportError:
        return print("langchain-openai is not installed")
    e = OpenAIEmbeddings(model=S.model, base_url=S.url("/v1"), api_key="none", check_embedding_ctx_length=False, max_retries=0)
    documents = e.embed_documents(TEXTS[:3])
    query = e.embed_query(TEXTS[1])
    assert all(abs(x - y) < 1e-7 for x, y in zip(documents[1], query)) and len(query) == 32


# ---- rerankers, and decoders that pool ----

def test_rerank():
    path = encoder("tiny-reranker", labels=1)
    with server.Server(path=path) as s:
        documents = ["the cat sat on the mat", "a dog", "what is a mat", "the dog ran"]
        body = {"query": "what is a cat", "documents": documents}
        a = post(s, "/v1/rerank", body)
        results = a["results"]
        scores = [r["relevance_score"] for r in results]
        assert sorted(r["index"] for r in results) == [0, 1, 2, 3] and scores == sorted(scores, reverse=True)
        assert all(0 <= x <= 1 for x in scores) and a["usage"]["total_tokens"] > 0 and "document" not in results[0]
        cli = subprocess.run([sys.argv[1], "embed", path, "--query", "what is a cat", "--json", *documents],
                             capture_output=True, check=True).stdout
        alone = {r["index"]: r["relevance_score"] for r in json.loads(cli)["results"]}
        assert {r["index"]: r["relevance_score"] for r in results} == alone
        top = post(s, "/rerank", dict(body, top_n=2, return_documents=True, documents=[{"text": d} for d in documents]))
        assert [r["index"] for r in top["results"]] == [r["index"] for r in results[:2]]
        assert top["results"][0]["document"]["text"] == documents[results[0]["index"]]
        raw = post(s, "/rerank", dict(body, raw_scores=True))["results"]
        for r, one in zip(raw, results):
            assert abs(1 / (1 + math.exp(-r["relevance_score"])) - one["relevance_score"]) < 1e-6
        for bad, param in [({"query": "a"}, "documents"), ({"documents": ["a"]}, "query"), (dict(body, top_n=0), "top_n"),
                           ({"query": "a", "documents": [3]}, "documents[0]"), ({"query": 3, "documents": ["a"]}, "query"),
                           ({"query": "a", "documents": ["b", "the " * 90]}, "documents[1]"),
                           ({"query": "the " * 90, "documents": ["b"], "truncate_prompt_tokens": -1}, "query")]:
            assert error(bad, path="/v1/rerank", s=s)["param"] == param, bad
        long = post(s, "/rerank", {"query": "a", "documents": ["the " * 90, "the " * 60], "truncate_prompt_tokens": -1, "raw_scores": True})
        assert long["results"][0]["relevance_score"] == long["results"][1]["relevance_score"]
        assert "/v1/rerank" in error({"input": "a"}, s=s)["message"]


def test_decoder_with_pooling():
    with server.Server("--pooling", "last", "--ctx", "128") as s:
        both = vectors(["Once upon a time", "there was"], s)
        assert vectors("there was", s) == both[1:] and len(both[0]) > 3
    with server.Server("--ctx", "128") as s:
        assert "--pooling" in error({"input": "a"}, s=s)["message"]


def test_ollama_embeds():
    with server.Server("--pooling", "last", "--ctx", "128") as s:
        both = vectors(["Once upon a time", "there was"], s)
        a = post(s, "/api/embed", {"model": s.model + ":latest", "input": ["Once upon a time", "there was"]})
        assert a["embeddings"] == both and a["prompt_eval_count"] > 4 and a["total_duration"] > 0
        assert post(s, "/api/embeddings", {"prompt": "there was"})["embedding"] == both[1]
        long = "once upon a time " * 200
        assert len(post(s, "/api/embed", {"input": long})["embeddings"]) == 1  # cut
        status, refused = s.call("POST", "/api/embed", {"input": long, "truncate": False})
        assert status == 400 and "tokens" in refused["error"]


def test_minilm_knows_what_is_alike():
    path = minilm()
    if not path:
        return print("all-MiniLM-L6-v2 is not here (tools/get-model minilm)")
    with server.Server(path=path) as s:
        a, b, c = vectors(["How do I reset my password?", "I forgot my login and need a new one.", "The cat sat on the mat."], s)
        dot = lambda x, y: math.fsum(p * q for p, q in zip(x, y))
        assert dot(a, b) > 0.4 > 0.2 > dot(a, c)
        fox, = vectors("The quick brown fox jumps over the lazy dog.", s)
        for got, want in zip(fox, (0.043934, 0.058934, 0.048178, 0.077548, 0.026744, -0.037630)):
            assert abs(got - want) < 1e-5


with S:
    server.run(dict(globals()))
    assert S.blocks_return()
