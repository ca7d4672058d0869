"""Write down which model types and tokenizer classes the installed Transformers has itself.

    python -m tests.fit.transformers_names

Out comes ``tuner/ask/engine_args/transformers.yaml``: a checkpoint that names code of its own needs none of it where
Transformers has a class (``resolve_trust_remote_code``).
"""

from __future__ import annotations

from pathlib import Path

import yaml

OUT = Path(__file__).parents[2] / "tuner" / "ask" / "engine_args" / "transformers.yaml"


def main() -> None:
    """Write the file; imports Transformers, which takes seconds."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    classes = {name for name in TOKENIZER_MAPPING_NAMES.values() if isinstance(name, str)}
    found = {
        "release": transformers.__version__,
        "model_types": sorted(CONFIG_MAPPING_NAMES),
        "tokenizers": sorted({name.removesuffix("Fast") for name in classes} | {"PreTrainedTokenizer"}),
        "model_types_with_a_tokenizer": sorted(
            kind for kind, name in TOKENIZER_MAPPING_NAMES.items() if name and name != "TokenizersBackend"
        ),
        "model_types_with_a_tokenizer_file": sorted(
            kind for kind, name in TOKENIZER_MAPPING_NAMES.items() if name == "TokenizersBackend"
        ),
    }
    head = "# Names that Transformers has, written by tests/fit/transformers_names.py.\n"
    OUT.write_text(head + yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=120))


if __name__ == "__main__":
    main()
