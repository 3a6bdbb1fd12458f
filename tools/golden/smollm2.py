"""Golden answers of SmolLM2-135M-Instruct (the first-run model) by transformers, from the GGUF's dequantized weights.

usage: python tools/golden/smollm2.py MODEL.gguf > tests/golden/model/smollm2.json
Versions used: torch 2.15.0, transformers 5.23.0, gguf 0.19.0; f32 on a CPU, eager attention.

Twenty prompts through the model's own chat template: prompt ids, 32 greedy ids each; for the first four prompts the
logits of every prompt position at 64 fixed vocabulary ids, with the standard deviation of the whole row.
"""
import json, sys
import gguf, numpy as np, torch
from transformers import LlamaConfig, LlamaForCausalLM

PROMPTS = [
    "What is the capital of France?", "Name three primary colors.", "What is 2 + 2?", "Who wrote Romeo and Juliet?",
    "Write a haiku about the sea.", "Explain gravity to a child in one sentence.", "What do bees make?",
    "Translate 'good morning' into Spanish.", "List the days of the week.", "What is the largest planet?",
    "Give me a synonym for happy.", "How many legs does a spider have?", "What is water made of?",
    "Write the first line of a story about a dragon.", "What is the opposite of cold?", "Why is the sky blue?",
    "Name a famous scientist.", "What is a noun?", "Suggest a name for a cat.", "How do you make tea?",
]

def tensors(reader, c):
    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    for t in reader.tensors:
        a = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        if t.name == "token_embd.weight": n = "model.embed_tokens.weight"
        elif t.name == "output_norm.weight": n = "model.norm.weight"
        else:
            _, i, part, _ = t.name.split(".")
            n = f"model.layers.{i}.{names[part]}.weight"
            if part in ("attn_q", "attn_k"):  # GGUF keeps llama's rows for adjacent-pair rotation
                h = c.num_attention_heads if part == "attn_q" else c.num_key_value_heads
                a = a.reshape(h, a.shape[0] // h // 2, 2, -1).swapaxes(1, 2).reshape(a.shape)
        yield n, torch.from_numpy(np.ascontiguousarray(a))

def main():
    r = gguf.GGUFReader(sys.argv[1])
    f = lambda k: r.fields["llama." + k].contents()
    c = LlamaConfig(hidden_size=f("embedding_length"), intermediate_size=f("feed_forward_length"), num_hidden_layers=f("block_count"),
                    num_attention_heads=f("attention.head_count"), num_key_value_heads=f("attention.head_count_kv"), vocab_size=len(r.fields["tokenizer.ggml.tokens"].data),
                    rms_norm_eps=f("attention.layer_norm_rms_epsilon"), max_position_embeddings=f("context_length"),
                    rope_parameters={"rope_type": "default", "rope_theta": f("rope.freq_base")}, tie_word_embeddings=True, attn_implementation="eager")
    m = LlamaForCausalLM(c).eval()
    missing, unexpected = m.load_state_dict(dict(tensors(r, c)), strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected, (missing, unexpected)
    m.tie_weights()
    template = r.fields["tokenizer.chat_template"].contents()
    import jinja2
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    render = lambda p: env.from_string(template).render(messages=[{"role": "user", "content": p}], add_generation_prompt=True, bos_token="<|im_start|>", eos_token="<|im_end|>")
    from tokenizers import Tokenizer, models, pre_tokenizers, decoders, AddedToken
    toks, types = r.fields["tokenizer.ggml.tokens"].contents(), r.fields["tokenizer.ggml.token_type"].contents()
    t = Tokenizer(models.BPE({x: i for i, x in enumerate(toks)}, [tuple(x.split(" ", 1)) for x in r.fields["tokenizer.ggml.merges"].contents()]))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x, k in zip(toks, types) if k == 3])
    eos = r.fields["tokenizer.ggml.eos_token_id"].contents()
    probe = sorted(int(x) for x in np.random.RandomState(5).choice(c.vocab_size, 64, replace=False))
    cases = []
    with torch.no_grad():
        for i, p in enumerate(PROMPTS):
            text = render(p)
            ids = t.encode(text, add_special_tokens=False).ids
            out, past, x = [], None, torch.tensor([ids])
            case = {"prompt": p, "rendered": text, "ids": ids}
            for step in range(32):
                o = m(x, past_key_values=past, use_cache=True)
                past = o.past_key_values
                if step == 0 and i < 4:
                    l = o.logits[0]
                    case["logits"] = [[round(float(v), 6) for v in row[probe]] for row in l]
                    case["deviation"] = [round(float(row.std()), 6) for row in l]
                top = torch.topk(o.logits[0, -1], 2)
                if step == 0: case["margin"] = []
                case["margin"].append(round(float(top.values[0] - top.values[1]), 5))
                n = int(top.indices[0]); out.append(n)
                if n == eos: break
                x = torch.tensor([[n]])
            case["greedy"] = out; case["text"] = t.decode(out, skip_special_tokens=True)
            cases.append(case)
            print(p, "->", case["text"][:80].replace("\n", " "), min(case["margin"]), file=sys.stderr)
    json.dump({"model": "SmolLM2-135M-Instruct.Q4_1.gguf", "probe": probe, "eos": eos, "cases": cases}, sys.stdout, separators=(",", ":"))

main()
