"""Write a known model's file from its published ``config.json``.

    python -m tests.fit.known_model CONFIG.json ORG/NAME SOURCE

Keeps what costs bytes or time, or may decide how: dimensions, kinds of layers, attention, experts, recurrent layers,
quantisation, image and sound towers, context length, code that it needs. Drops what is about training, generation and
tokens.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.ask.registry import SOURCE, file_of

_NOISE = re.compile(
    r".*_token_(id|index)|.*dropout.*|.*_pdrop|.*router_aux.*|.*_attn_implementation.*|.*jitter.*|.*_loss_(coef|weight)"
    r"|.*(layer_?norm|rms_?norm|norm|ln)_(eps|epsilon)|initializer_range|init_method|output_(attentions|hidden_states|scores)"
    r"|output_router_logits|id2label|label2id|label_names|.*_token_ids|suppress_tokens|begin_suppress_tokens|bad_words_ids"
    r"|_name_or_path|name|model_name|_from_model_config|_commit_hash|transformers_version|tokenizer_class|use_cache"
    r"|cache_implementation|torchscript|use_bfloat16|tf_legacy_loss|return_dict.*|task_specific_params|finetuning_task"
    r"|problem_type|prefix|pruned_heads|do_sample|temperature|top_p|top_k|typical_p|num_beams|num_beam_groups|min_length"
    r"|max_length|length_penalty|repetition_penalty|no_repeat_ngram_size|encoder_no_repeat_ngram_size|early_stopping"
    r"|diversity_penalty|remove_invalid_values|exponential_decay_length_penalty|forced_[be]os_token_id|default_output_length"
    r"|num_return_sequences|chunk_size_feed_forward|pretraining_tp|ep_size|aux_loss_alpha|seq_aux|time_step_(min|max|floor)"
    r"|time_step_limit|rescale_prenorm_residual|gradient_clipping|onnx_safe|tie_encoder_decoder|is_decoder|ignore_index"
    r"|decoder_start_token_id|long_factor|short_factor|.*_placeholder|.*_placeholder_token_id|max_tokenizer_truncation"
    r"|fp16|bf16|fp32|attn_implementation|video_attn_type|add_cross_attention|cross_attention_hidden_size"
    r"|activation_sparsity_pattern|model_args|is_encoder_decoder|bias_dropout_fusion"
)
_WHOLE = ("quantization_config", "compression_config")  # kept to the letter: readers check all that stands there
_WIDE = 110


def kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are kept, nested ones as well; null stays, as it may overrule a default of the class."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in _WHOLE and isinstance(value, Mapping):
            found[key] = dict(value)
        elif not _NOISE.fullmatch(key):
            found[key] = kept(value) if isinstance(value, Mapping) else value
    return found


def text_of(document: Mapping[str, Any], indent: int = 0) -> str:
    """As JSON: a line for each field, and one for each of an object's that is long."""
    pad, lines = " " * (indent + 2), []
    for key, value in document.items():
        shown = json.dumps(value, ensure_ascii=False)
        if isinstance(value, Mapping) and len(shown) + len(pad) > _WIDE:
            shown = text_of(value, indent + 2)
        lines.append(f"{pad}{json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"


def write(config: Mapping[str, Any], name: str, source: str) -> Path:
    """The file of the model ``name``, written anew."""
    path = file_of(name)
    path.write_text(text_of({SOURCE: source, **kept(config)}) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    given, model, origin = sys.argv[1:]
    print(write(json.loads(Path(given).read_text(encoding="utf-8")), model, origin))
