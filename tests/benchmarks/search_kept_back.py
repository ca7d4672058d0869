"""Tuning problems in the form of ``tests.benchmarks.search_problems`` on which nothing of the search was chosen: other
models, GPUs, clusters, lengths and targets. Numbered from ``FIRST``."""

from __future__ import annotations

from typing import Any

FIRST = 100

_DENSE = {"tp": [1, 2, 4, 8], "pp": [1, 2, 4], "dp": [1, 2, 4, 8]}
_WIDE = {"tp": [2, 4, 8], "pp": [1, 2, 4], "dp": [1, 2, 4, 8, 16]}
_EXPERTS = {"tp": [1, 2, 4, 8], "pp": [1, 2], "dp": [1, 2, 4, 8, 16], "ep": [False, True]}
_SLOW, _FAST = 12.5, None

# As in ``search_problems``, but for the targets, which are between its tight and its loose ones or beyond them.
KEPT_BACK: tuple[tuple[Any, ...], ...] = (
    ("Qwen/Qwen2.5-7B", "a100_sxm", 1, 8, _FAST, 800, 200, 2.0, "min_gpus", _DENSE),
    ("mistralai/Mistral-Nemo-Instruct-2407", "h100_sxm", 1, 8, _FAST, 3000, 150, 1.6, "max_goodput", _DENSE),
    ("microsoft/phi-4", "h200_sxm", 1, 8, _FAST, 600, 300, 3.0, "min_cost", _DENSE),
    ("01-ai/Yi-34B", "a100_sxm", 2, 8, _SLOW, 1500, 150, 1.8, "min_latency", _DENSE),
    ("Qwen/Qwen2.5-32B-Instruct", "l40s", 2, 8, _SLOW, 700, 100, 2.5, "min_gpus", _DENSE),
    ("meta-llama/Llama-2-13b-hf", "l40s", 1, 8, _FAST, 900, 120, 2.0, "min_cost", _DENSE),
    ("meta-llama/Llama-3.3-70B-Instruct", "h200_sxm", 2, 8, _FAST, 3000, 200, 2.2, "min_cost", _DENSE),
    ("meta-llama/Llama-2-70b-hf", "h100_sxm", 2, 8, _SLOW, 1200, 100, 3.0, "max_goodput", _DENSE),
    ("mistralai/Mistral-Large-Instruct-2407", "h100_sxm", 4, 8, _FAST, 1000, 150, 2.5, "min_gpus", _WIDE),
    ("meta-llama/Llama-3.1-405B-Instruct-FP8", "h200_sxm", 4, 8, _FAST, 1500, 100, 2.0, "min_latency", _WIDE),
    ("mistralai/Mixtral-8x22B-v0.1", "h100_sxm", 2, 8, _FAST, 1000, 150, 2.0, "min_cost", _EXPERTS),
    ("openai/gpt-oss-20b", "l40s", 1, 8, _FAST, 1000, 200, 2.0, "max_goodput", _EXPERTS),
    ("zai-org/GLM-4.5-Air", "h200_sxm", 2, 8, _FAST, 1500, 150, 3.0, "min_gpus", _EXPERTS),
    ("deepseek-ai/DeepSeek-V2", "h100_sxm", 4, 8, _FAST, 1000, 100, 3.0, "min_cost", _EXPERTS),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", "a100_sxm", 2, 8, _SLOW, 2000, 100, 1.5, "min_latency", _EXPERTS),
    ("Qwen/Qwen3-235B-A22B", "b200_sxm", 2, 8, _FAST, 1200, 100, 2.5, "max_goodput", _EXPERTS),
)
