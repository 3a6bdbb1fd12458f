#!/usr/bin/env python3
# Golden kept sets of the sampler: what transformers' logits processors leave, with probabilities.
#   tools/golden/sampling.py > tests/golden/engine/sampling.json        (transformers 5.23, torch 2.x, CPU)
# Presence and frequency penalties are OpenAI's formula, written out here: transformers has none.
import json, random, sys
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
    TypicalLogitsWarper)

random.seed(1)
torch.manual_seed(1)
cases = []
for n in range(100):  # the last 40 with typical-p
    vocab = 40
    logits = [round(x, 3) for x in (torch.randn(vocab) * random.choice([1, 3])).tolist()]
    prompt = [random.randrange(vocab) for _ in range(random.randrange(1, 8))]
    output = [random.randrange(vocab) for _ in range(random.randrange(0, 8))]
    case = dict(logits=logits, prompt=prompt, output=output, temperature=random.choice([0.3, 0.7, 1.0, 1.5]),
                top_k=random.choice([0, 0, 1, 5, 20]), top_p=random.choice([1.0, 1.0, 0.9, 0.5, 0.1]),
                min_p=random.choice([0.0, 0.0, 0.05, 0.3]), repetition_penalty=random.choice([1.0, 1.0, 1.3, 0.8]),
                presence_penalty=random.choice([0.0, 0.0, 1.5]), frequency_penalty=random.choice([0.0, 0.0, 0.5, -1.0]))
    if n >= 60:
        case["typical_p"] = random.choice([0.2, 0.5, 0.9])
    scores = torch.tensor([logits], dtype=torch.float32)
    ids = torch.tensor([prompt + output])
    if case["repetition_penalty"] != 1:
        scores = RepetitionPenaltyLogitsProcessor(case["repetition_penalty"])(ids, scores)
    for t in set(output):
        scores[0, t] -= output.count(t) * case["frequency_penalty"] + case["presence_penalty"]
    scores = TemperatureLogitsWarper(case["temperature"])(ids, scores)
    if case["top_k"]:
        scores = TopKLogitsWarper(case["top_k"])(ids, scores)
    if case["top_p"] < 1:
        scores = TopPLogitsWarper(case["top_p"])(ids, scores)
    if case["min_p"]:
        scores = MinPLogitsWarper(case["min_p"])(ids, scores)
    if n >= 60:
        scores = TypicalLogitsWarper(case["typical_p"])(ids, scores)
    p = torch.softmax(scores.double(), -1)[0]
    case["kept"] = {str(i): round(float(p[i]), 6) for i in range(vocab) if scores[0, i] > -float("inf")}
    cases.append(case)
json.dump(cases, sys.stdout, separators=(",", ":"))
