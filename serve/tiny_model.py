"""A tiny real model: a Llama with random weights and a byte-level BPE tokenizer, made on the spot.

No weights need to be downloaded, and vLLM serves it like any other model. ``python -m serve.tiny_model DIR``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import BadInput

END_OF_TEXT = "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SENTENCES = (
    "The quick brown fox jumps over the lazy dog while the five boxing wizards watch.",
    "Tensor parallelism splits every matrix; pipeline parallelism splits the layers.",
    "A request waits in the queue, is prefilled in one step, and then decodes token by token.",
    "How many accelerators does this service need to answer within half a second?",
)


@dataclass(frozen=True, slots=True)
class TinySize:
    """Dimensions of a model; ``vocab`` is the number of rows of the embedding."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int = 2048
    max_positions: int = 4096


SIZES = {
    "test": TinySize(hidden=256, layers=8, heads=8, kv_heads=4, intermediate=512),  # about 14 MB
    "demo": TinySize(hidden=768, layers=16, heads=12, kv_heads=4, intermediate=2048),  # about 200 MB
}


def build_tiny_model(directory: Path | str, size: str = "demo", seed: int = 0) -> Path:
    """Write config, random bfloat16 weights and tokenizer into ``directory``; leave it alone if a model is there.

    The directory appears whole or not at all. Raises BadInput for an unknown size, or a directory that holds
    something else.
    """
    if size not in SIZES:
        raise BadInput("--size", size, ", ".join(SIZES))
    target = Path(directory)
    if (target / "config.json").is_file():
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput("DIR", str(target), "a new or empty directory, or one that holds a model")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write_tokenizer(scratch)
        _write_weights(scratch, SIZES[size], seed)
        scratch.chmod(0o755)
        os.replace(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["test"].vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT, pad_token=END_OF_TEXT
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)


def _write_weights(directory: Path, size: TinySize, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config: Any = LlamaConfig(
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        intermediate_size=size.intermediate,
        vocab_size=size.vocab,
        max_position_embeddings=size.max_positions,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)


def main() -> None:
    """Command line: ``python -m serve.tiny_model DIR [--size test|demo] [--seed N]``."""
    parser = argparse.ArgumentParser(description="Write a tiny Llama with random weights that vLLM can serve.")
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--size", choices=sorted(SIZES), default="demo")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        print(build_tiny_model(options.directory, options.size, options.seed))
    except BadInput as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
