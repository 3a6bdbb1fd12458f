#!/usr/bin/env python3
"""Golden vectors of encoders, embedding models and classifiers: small models whose weights a formula gives (that of
model_families.py), run by transformers on the CPU in f32.

Made with torch 2.15 (CPU), transformers 5.23, sentence-transformers 6.2, safetensors, gguf, numpy. Run: python tools/golden/encoders.py
Writes tests/golden/model/encoders.json. Per model: config.json, its tensors, and for sequences of several lengths
(300: two segments of attention) what each kind of pooling makes of the last hidden states, or the labels' logits.
Tokens from `first` on have type 1 where the model has types. Cases with "modules" have the vectors of
sentence-transformers' Pooling and Dense behind the model, or its LogitScore. Nomic's configuration is written with the keys of its own code.
"""
import json, os, tempfile
import torch, transformers
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Dense
from sentence_transformers.cross_encoder.modules.logit_score import LogitScore
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from model_families import b64, gguf, ids_of, is_matrix, weight

torch.manual_seed(0)
torch.set_num_threads(1)
LENGTHS = [1, 7, 40, 300]
S = dict(vocab_size=257, num_hidden_layers=2, hidden_size=60, num_attention_heads=3, intermediate_size=43,
         max_position_embeddings=320, layer_norm_eps=1e-12, hidden_act="gelu")
Q = dict(vocab_size=257, num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
         head_dim=20, intermediate_size=96, max_position_embeddings=320, model_type="qwen3", use_sliding_window=False)
CASES = [
    ("bert", dict(S, model_type="bert", architectures=["BertModel"], type_vocab_size=2)),
    ("bert-wide", dict(S, model_type="bert", architectures=["BertForMaskedLM"], type_vocab_size=2, hidden_size=96,
                       num_attention_heads=2, intermediate_size=172, hidden_act="relu")),
    ("bert-score", dict(S, model_type="bert", architectures=["BertForSequenceClassification"], type_vocab_size=2,
                        id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})),
    ("roberta", dict(S, model_type="roberta", architectures=["RobertaModel"], type_vocab_size=1, pad_token_id=1)),
    ("xlm-roberta-score", dict(S, model_type="xlm-roberta", architectures=["XLMRobertaForSequenceClassification"],
                               type_vocab_size=1, pad_token_id=1, id2label={"0": "a", "1": "b", "2": "c"},
                               label2id={"a": 0, "b": 1, "c": 2})),
    ("camembert", dict(S, model_type="camembert", architectures=["CamembertModel"], type_vocab_size=1, pad_token_id=1)),
    ("distilbert", dict(model_type="distilbert", architectures=["DistilBertModel"], vocab_size=257, n_layers=2, dim=60,
                        n_heads=3, hidden_dim=43, max_position_embeddings=320, activation="gelu")),
    ("qwen3-embed", dict(Q, architectures=["Qwen3ForCausalLM"], tie_word_embeddings=True)),
    ("qwen3-score", dict(Q, architectures=["Qwen3ForSequenceClassification"], id2label={"0": "LABEL_0"},
                         label2id={"LABEL_0": 0}, pad_token_id=0)),
    ("qwen3-words", dict(Q, architectures=["Qwen3ForCausalLM"], tie_word_embeddings=True)),
    ("nomic", dict(S, model_type="nomic_bert", architectures=["NomicBertModel"], type_vocab_size=2, hidden_act="silu",
                   intermediate_size=48)),
    ("bert-dense", dict(S, model_type="bert", architectures=["BertModel"], type_vocab_size=2)),
]
NOMIC_OWN = dict(model_type="nomic_bert", architectures=["NomicBertModel"], vocab_size=257, n_layer=2, n_embd=60, n_head=3,
                 n_inner=48, n_positions=320, type_vocab_size=2, activation_function="swiglu", layer_norm_epsilon=1e-12,
                 rotary_emb_base=1000, rotary_emb_fraction=1.0, rotary_emb_interleaved=False, prenorm=False,
                 max_trained_positions=320)
WORDS = [77, 200]
WAYS = {"max": "max", "sqrt": "mean_sqrt_len_tokens", "weighted": "weightedmean"}
MODULES = [("1_Pooling", dict(word_embedding_dimension=60, pooling_mode_cls_token=True, pooling_mode_max_tokens=True,
                              pooling_mode_mean_tokens=True)),
           ("2_Dense", dict(in_features=180, out_features=43, bias=True,
                            activation_function="torch.nn.modules.activation.Tanh")),
           ("3_Dense", dict(in_features=43, out_features=51, bias=False,
                            activation_function="torch.nn.modules.linear.Identity"))]


def pooled(h, modes):
    return Pooling(h.shape[-1], modes)({"token_embeddings": h[None], "attention_mask": torch.ones(1, len(h)).long()})


def dense_modules():
    """The Dense modules with weights of the formula, and their tensors' names and shapes as the reader names them."""
    modules, listing = [], []
    for path, config in MODULES[1:]:
        fn = getattr(torch.nn, config["activation_function"].split(".")[-1])()
        m = Dense(config["in_features"], config["out_features"], config["bias"], fn)
        entries = []
        for n, p in m.named_parameters():
            full, shape = f"dense_{path[0]}.{n}", list(p.shape)
            entry = [full, shape, None]
            if is_matrix(full, shape):
                p.data, k = weight(full, shape, "q8", shape[-1])
                entry.append(k)
            else:
                p.data = weight(full, shape, "q8", 0)
            entries.append(entry)
        modules.append(m)
        listing.append(dict(path=path, config=config, tensors=entries))
    return modules, listing


def gguf_name(name, config):
    """As llama.cpp's converter names it; None where GGUF has no word for it."""
    kind = config["model_type"]
    arch = {"qwen3": gguf.MODEL_ARCH.QWEN3, "nomic_bert": gguf.MODEL_ARCH.NOMIC_BERT, "distilbert": None}.get(
        kind, gguf.MODEL_ARCH.BERT)
    if not arch:
        return None
    if name == "score.weight":
        return "cls.output.weight"
    for prefix in ("bert.", "roberta."):
        name = name.removeprefix(prefix)
    table = gguf.get_tensor_name_map(arch, 2)
    return table.get_name(name, try_suffixes=(".weight", ".bias"))


def make(name, config):
    score, words = "score" in name, "words" in name
    with tempfile.TemporaryDirectory() as folder:
        cfg = AutoConfig.for_model(**json.loads(json.dumps(config)))
        cfg._attn_implementation = "eager"
        auto = AutoModelForSequenceClassification if score else AutoModelForCausalLM if words else AutoModel
        extra = {} if score or config["model_type"].startswith("qwen") or config["model_type"] == "distilbert" \
            else dict(add_pooling_layer=False)
        auto.from_config(cfg, dtype=torch.float32, **extra).save_pretrained(folder)
        saved = load_file(os.path.join(folder, "model.safetensors"))
        tensors, listing = {}, []
        for n, t in saved.items():
            shape = list(t.shape)
            entry = [n, shape, gguf_name(n, config)]
            if is_matrix(n, shape):
                tensors[n], k = weight(n, shape, "q8", shape[-1])
                entry.append(k)
            else:
                tensors[n] = weight(n, shape, "q8", 0)
            listing.append(entry)
        save_file({n: t.contiguous() for n, t in tensors.items()}, os.path.join(folder, "model.safetensors"),
                  {"format": "pt"})
        model, info = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                           output_loading_info=True, **extra)
        if info["missing_keys"] or info["unexpected_keys"]:
            raise SystemExit(f"{name}: {info}")
    model.eval()
    modules, module_list = dense_modules() if name == "bert-dense" else ([], None)
    sequences = []
    for i, n in enumerate(LENGTHS):
        ids = torch.from_numpy(ids_of(20 + i, n, 257))[None]
        first = n // 3 if config.get("type_vocab_size") == 2 else 0
        more = {}
        if config.get("type_vocab_size") == 2:
            more["token_type_ids"] = (torch.arange(n)[None] >= first).long() if first else torch.zeros_like(ids)
        if config["model_type"] in ("roberta", "xlm-roberta", "camembert"):
            more["position_ids"] = torch.arange(2, n + 2)[None]
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids), **more)
        entry = dict(seed=20 + i, n=n, first=first)
        if score:
            entry["score"] = b64(out.logits[0])
        elif words:
            entry["words"] = b64(LogitScore(*WORDS)({"causal_logits": out.logits})["scores"][0])
        else:
            h = out.last_hidden_state[0]
            entry.update(mean=b64(h.mean(0)), cls=b64(h[0]), last=b64(h[-1]))
            if name in ("bert", "qwen3-embed"):
                entry.update({w: b64(pooled(h, m)["sentence_embedding"][0]) for w, m in WAYS.items()})
            if modules:
                features = pooled(h, ["cls", "max", "mean"])
                with torch.no_grad():
                    for m in modules:
                        features = m(features)
                entry = dict(seed=20 + i, n=n, first=first, dense=b64(features["sentence_embedding"][0]))
        sequences.append(entry)
    print(f"{name}: {len(listing)} tensors", flush=True)
    case = dict(name=name, config=NOMIC_OWN if name == "nomic" else config, grid="q8", tensors=listing,
                sequences=sequences)
    if words:
        case["modules"] = [dict(path="1_LogitScore", tensors=[],
                                config=dict(true_token_id=WORDS[0], false_token_id=WORDS[1]))]
    if module_list:
        case["modules"] = [dict(path=MODULES[0][0], config=MODULES[0][1], tensors=[])] + module_list
    return case


def main():
    cases = [make(n, c) for n, c in CASES]
    path = os.path.join(os.path.dirname(__file__), "../../tests/golden/model/encoders.json")
    with open(path, "w") as f:
        f.write('{"transformers": "%s", "cases": [\n' % transformers.__version__)
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        f.write("\n]}\n")
    print(os.path.getsize(path), "bytes")


main()
