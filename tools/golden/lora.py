"""Golden adapters: small random models with PEFT adapters, and the logits they give.

    python3 tools/golden/lora.py            # torch 2.x, transformers 5.23, peft 0.21.2; writes tests/golden/lora

Weights are bf16 in the files and f32 in the computation. Every adapter's B is random, not zero as PEFT starts it.
"""
import json
import os
import shutil

import peft
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "tests", "golden", "lora")
IDS = [3, 17, 60, 1, 33, 42, 8, 25, 50, 11, 2]


def models():
    torch.manual_seed(1)
    qwen = Qwen2ForCausalLM(Qwen2Config(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                        tie_word_embeddings=False, initializer_range=0.15))
    tied = Qwen2ForCausalLM(Qwen2Config(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                                        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                        tie_word_embeddings=True, initializer_range=0.15))
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.15))
    return {"qwen2": qwen, "tied": tied, "gpt2": gpt2}


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {  # name: (model, LoraConfig's arguments, type of the saved tensors)
    "all": ("qwen2", dict(r=4, lora_alpha=12, target_modules=ALL + ["lm_head"]), torch.float32),
    "some": ("qwen2", dict(r=3, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True,
                           rank_pattern={"layers.1.self_attn.q_proj": 5, "down_proj": 2},
                           alpha_pattern={"^model.layers.0.self_attn.v_proj": 9, "down_proj": 1}), torch.bfloat16),
    "first": ("qwen2", dict(r=2, lora_alpha=2, target_modules=["gate_proj"], layers_to_transform=[0]), torch.float16),
    "head": ("tied", dict(r=4, lora_alpha=4, target_modules=["lm_head", "k_proj"]), torch.float32),
    "conv": ("gpt2", dict(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True), torch.float32),
}


def logits(model):
    with torch.no_grad():
        return [[float(x) for x in row] for row in model(torch.tensor([IDS])).logits[0]]


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    result = {"ids": IDS, "cases": []}
    for name, model in models().items():
        model = model.to(torch.bfloat16)
        model.save_pretrained(os.path.join(OUT, name))
        for extra in "generation_config.json",:
            path = os.path.join(OUT, name, extra)
            if os.path.exists(path):
                os.remove(path)
        # read back: casting a model to bf16 rounds its rotary frequencies too
        model = type(model).from_pretrained(os.path.join(OUT, name), dtype=torch.float32).eval()
        result["cases"].append({"model": name, "adapter": None, "logits": logits(model)})
        for adapter, (base, how, kind) in ADAPTERS.items():
            if base != name:
                continue
            torch.manual_seed(len(adapter))
            import copy
            tuned = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(task_type="CAUSAL_LM", **how))
            with torch.no_grad():
                for key, p in tuned.named_parameters():
                    if "lora_" in key:
                        p.copy_((torch.randn_like(p) * 0.2).to(kind).float())
            result["cases"].append({"model": name, "adapter": adapter, "logits": logits(tuned.eval())})
            for key, p in tuned.named_parameters():
                if "lora_" in key:
                    p.data = p.data.to(kind)
            tuned.peft_config["default"].base_model_name_or_path = os.path.basename(tuned.peft_config["default"].base_model_name_or_path or "")  # no paths
            tuned.save_pretrained(os.path.join(OUT, adapter), save_embedding_layers=adapter == "head")
            os.remove(os.path.join(OUT, adapter, "README.md"))
    with open(os.path.join(OUT, "logits.json"), "w") as f:
        json.dump({k: v if k == "ids" else [{**c, "logits": [[round(x, 6) for x in r] for r in c["logits"]]} for c in v]
                   for k, v in result.items()}, f)


if __name__ == "__main__":
    main()
