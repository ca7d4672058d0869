"""Which file of this folder reads which architecture: a reader is ``read`` of the file, which is loaded when needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from tuner.ask.models.described import Reader

READERS: Mapping[str, str] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "MixtralForCausalLM": "mixtral",
    "Qwen2MoeForCausalLM": "qwen_moe",
    "Qwen3MoeForCausalLM": "qwen_moe",
    "DeepseekForCausalLM": "deepseek",
    "DeepseekV2ForCausalLM": "deepseek",
    "DeepseekV3ForCausalLM": "deepseek",
    "DeepseekV32ForCausalLM": "deepseek",
    "Glm4MoeLiteForCausalLM": "deepseek",
    "GlmMoeDsaForCausalLM": "deepseek",
    "KimiK25ForConditionalGeneration": "deepseek",
    "MiniMaxM2ForCausalLM": "minimax_m2",
    "GptOssForCausalLM": "gpt_oss",
    "Glm4MoeForCausalLM": "glm_moe",
    "Llama4ForCausalLM": "llama4",
    "Llama4ForConditionalGeneration": "llama4",
    "Qwen3NextForCausalLM": "qwen_next",
    "Qwen3_5ForCausalLM": "qwen_next",
    "Qwen3_5ForConditionalGeneration": "qwen_next",
    "Qwen3_5MoeForCausalLM": "qwen_next",
    "Qwen3_5MoeForConditionalGeneration": "qwen_next",
    "DeepseekV4ForCausalLM": "deepseek_v4",
    "NemotronHForCausalLM": "nemotron_h",
    "KimiLinearForCausalLM": "kimi_linear",
    "KimiK3ForConditionalGeneration": "kimi_linear",
    "MiMoV2FlashForCausalLM": "mimo_v2",
    "MiniMaxM3ForCausalLM": "minimax_m3",
    "MiniMaxM3SparseForCausalLM": "minimax_m3",
    "MiniMaxM3SparseForConditionalGeneration": "minimax_m3",
    "Step3p5ForCausalLM": "step3p5",
    "Step3p7ForConditionalGeneration": "step3p5",
    "Ernie4_5_MoeForCausalLM": "ernie_moe",
    "BailingMoeForCausalLM": "bailing",
    "BailingMoeV2ForCausalLM": "bailing",
    "DbrxForCausalLM": "dbrx",
    "PhiMoEForCausalLM": "phimoe",
    "GraniteMoeForCausalLM": "granite_moe",
    "GraniteMoeSharedForCausalLM": "granite_moe",
    "GraniteMoeSWAForCausalLM": "granite_moe",
    "GraniteMoeHybridForCausalLM": "granite_moe",
    "OlmoeForCausalLM": "olmoe",
    "FlexOlmoForCausalLM": "olmoe",
    "JambaForCausalLM": "jamba",
    "MambaForCausalLM": "mamba",
    "FalconMambaForCausalLM": "mamba",
    "Mamba2ForCausalLM": "mamba",
    "FalconH1ForCausalLM": "falcon_h1",
    "Lfm2ForCausalLM": "lfm2",
    "Lfm2MoeForCausalLM": "lfm2",
    "OlmoHybridForCausalLM": "olmo_hybrid",
    "LongcatFlashForCausalLM": "longcat",
    "AfmoeForCausalLM": "afmoe",
    "Cohere2MoeForCausalLM": "cohere2_moe",
    "ExaoneMoeForCausalLM": "exaone_moe",
    "HunYuanMoEV1ForCausalLM": "hunyuan_moe",
    "HYV3ForCausalLM": "hunyuan_moe",
    "LagunaForCausalLM": "laguna",
    "Dots1ForCausalLM": "glm_moe",
    "AXK1ForCausalLM": "deepseek",
    "MellumForCausalLM": "qwen_moe",
}


def reader_of(architecture: str) -> Reader | None:
    """The reader of an architecture as ``config.json`` names it; None where there is none."""
    file = READERS.get(architecture)
    if file is None:
        return None
    found: Reader = import_module(f"tuner.ask.models.families.{file}").read
    return found
