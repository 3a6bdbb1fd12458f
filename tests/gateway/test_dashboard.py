"""The Grafana dashboard asks for what the server exports, and shows all of it; GATEWAY's list of vLLM's names is complete."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import server

NAME = r"\b((?:vllm|ingot):[a-z0-9_]+|http_requests_total)"
# What vLLM's dashboards and Kubernetes' endpoint pickers read.
VLLM = """num_requests_running num_requests_waiting kv_cache_usage_perc prefix_cache_queries_total prefix_cache_hits_total
prompt_tokens_total generation_tokens_total num_preemptions_total request_success_total time_to_first_token_seconds
inter_token_latency_seconds request_time_per_output_token_seconds e2e_request_latency_seconds request_queue_time_seconds
request_prefill_time_seconds request_decode_time_seconds request_inference_time_seconds iteration_tokens_total
cache_config_info lora_requests_info request_prompt_tokens request_generation_tokens request_params_n
request_params_max_tokens""".split()


def scrape(s):
    """(families by type, sample names, samples) of /metrics."""
    status, text = s.call("GET", "/metrics")
    assert status == 200
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    samples = re.findall(r"^([a-z_:0-9]+)(?:\{([^}]*)\})? (\S+)$", text, re.M)
    return families, {name for name, _, _ in samples}, samples


def family(name, families):
    return name if name in families else re.sub(r"_(bucket|sum|count)$", "", name)


def queries(dashboard):
    found = [dashboard["templating"]["list"][1]["query"]]
    for panel in dashboard["panels"]:
        found += [t["expr"] for t in panel.get("targets", [])]
    return found


def main():
    with open(os.path.join(server.ROOT, "deploy", "grafana", "ingot.json")) as f:
        dashboard = json.load(f)
    ids = [p["id"] for p in dashboard["panels"]]
    assert len(ids) == len(set(ids)) and dashboard["uid"]
    with server.Server("--legacy-metrics") as s:
        assert s.call("POST", "/v1/completions", {"prompt": "Once", "max_tokens": 12})[0] == 200
        assert s.call("GET", "/nothing")[0] == 404
        families, names, samples = scrape(s)
        assert {"vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds"} <= set(families)
    with server.Server() as s:
        assert s.call("POST", "/v1/completions", {"prompt": "Once upon a time", "max_tokens": 40})[0] == 200
        assert s.call("GET", "/nothing")[0] == 404
        families, names, samples = scrape(s)
    assert "vllm:gpu_cache_usage_perc" not in families
    asked = {name for q in queries(dashboard) for name in re.findall(NAME, q)}
    missing = sorted(asked - names)
    assert not missing, f"the dashboard asks for what is not exported: {missing}"
    seen = {family(name, families) for name in asked}
    assert any('__name__=~"ingot:.+_total"' in q for q in queries(dashboard))  # what is new is seen, too
    unseen = sorted(f for f in set(families) - seen if not re.fullmatch("ingot:.+_total", f))
    assert not unseen, f"exported, but on no panel: {unseen}"
    assert not [n for n in VLLM if "vllm:" + n not in families], families.keys()
    for q in queries(dashboard):
        assert q.count("(") == q.count(")") and q.count("{") == q.count("}"), q
    labels = {name: set(re.findall(r'(\w+)="', text)) for name, text, _ in samples}
    for name, kind in families.items():
        if name.startswith("vllm:") and name not in ("vllm:cache_config_info", "vllm:lora_requests_info"):
            got = labels[name + "_bucket" if kind == "histogram" else name]
            assert {"model_name", "engine"} <= got, (name, got)
    assert {"block_size", "num_gpu_blocks"} <= labels["vllm:cache_config_info"]
    assert {"max_lora", "running_lora_adapters", "waiting_lora_adapters"} <= labels["vllm:lora_requests_info"]
    by_name = {name: float(value) for name, _, value in samples}
    steps = by_name["ingot:engine_steps_total"]
    assert by_name["vllm:iteration_tokens_total_count"] == steps > 0
    assert by_name["vllm:iteration_tokens_total_sum"] >= by_name["vllm:generation_tokens_total"] - 1
    print(f"{len(families)} families, {len(asked)} names asked for by {len(queries(dashboard))} queries")


if __name__ == "__main__":
    main()
