"""Does a model need its repository's own code to run (``trust_remote_code``)?

Read in vLLM (``transformers_utils/config.py``) and Transformers (``AutoConfig``, ``AutoTokenizer``,
``resolve_trust_remote_code``): a checkpoint names code in ``auto_map``, and needs it only where neither has a class of
its own: for the configuration by ``model_type``, for the tokenizer by its class or the model type. Image processors of
multimodal models that are code are always loaded as such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tuner.ask.engine_arguments import release
from tuner.ask.engine_version import NEWEST, EngineVersion
from tuner.ask.registry import known_config
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.errors import BadInput

_NAMES = Path(__file__).with_name("engine_args") / "transformers.yaml"
# Published with a tokenizer that is code (tiktoken), where the model's files do not say it.
_CODED = {"KimiK25ForConditionalGeneration": "moonshotai/Kimi-K2.5", "kimi_k2": "moonshotai/Kimi-K2"}
_CODED |= {"kimi_k25": "moonshotai/Kimi-K2.5", "KimiLinearForCausalLM": "moonshotai/Kimi-Linear-48B-A3B-Instruct"}
_CODED |= {"KimiK3ForConditionalGeneration": "moonshotai/Kimi-K3"}


@dataclass(frozen=True, slots=True)
class _Known:
    """Names that Transformers has."""

    model_types: frozenset[str]
    tokenizers: frozenset[str]
    with_tokenizer: frozenset[str]
    with_tokenizer_file: frozenset[str]


@lru_cache(maxsize=1)
def _transformers() -> _Known:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load(_NAMES.read_text(encoding="utf-8"), Loader=loader)
    kinds = ("model_types_with_a_tokenizer", "model_types_with_a_tokenizer_file")
    keys = ("model_types", "tokenizers", *kinds)
    return _Known(*(frozenset(document[key]) for key in keys))


def remote_code(model: str, architecture: str, version: EngineVersion = NEWEST) -> str | None:
    """What of a model is code in its repository that vLLM must run, in words; None where nothing is.

    ``model`` is a directory or a known name, of whose tokenizer only its model type and ``architecture`` say something.
    """
    directory = Path(model)
    config = _read(directory / "config.json") if directory.is_dir() else known_config(model) or {}
    model_type = str(config.get("model_type"))
    named = _auto_map(config).get("AutoConfig")
    if named and model_type not in release(version).model_types | _transformers().model_types:
        return f"its configuration is code, {named}: neither vLLM {version} nor Transformers knows {model_type}"
    tokenizer = _read(directory / "tokenizer_config.json") if directory.is_dir() else {}
    if not tokenizer:
        return _published(model_type) or _published(architecture)
    named = _auto_map(tokenizer).get("AutoTokenizer")
    if named and not _has_tokenizer(directory, tokenizer, model_type):
        return f"its tokenizer is code, {_first(named)}"
    processor = _auto_map(_read(directory / "preprocessor_config.json"))
    named = processor.get("AutoImageProcessor") or processor.get("AutoProcessor")
    if named and "text_config" in config:
        return f"its image processor is code, {_first(named)}"
    return None


def missing_trust(request: TuneRequest) -> str | None:
    """Why the model of a request needs ``engine.trust_remote_code``, in words; None where it does not, or has it."""
    if request.engine.trust_remote_code:
        return None
    return remote_code(request.model, requested_model(request).architecture, request.engine.release or NEWEST)


def require_trust(request: TuneRequest) -> None:
    """Raise BadInput where an engine could not start for want of ``engine.trust_remote_code``."""
    if (why := missing_trust(request)) is not None:
        raise BadInput("engine.trust_remote_code", False, f"true for {request.model}: {why}")


def _published(name: str) -> str | None:
    return f"its tokenizer is code in its repository, as {_CODED[name]} publishes it" if name in _CODED else None


def _has_tokenizer(directory: Path, tokenizer: Mapping[str, Any], model_type: str) -> bool:
    known = _transformers()
    if str(tokenizer.get("tokenizer_class")).removesuffix("Fast") in known.tokenizers:
        return True
    has_file = (directory / "tokenizer.json").is_file()  # from which Transformers' general class reads any tokenizer
    return model_type in known.with_tokenizer or (has_file and model_type in known.with_tokenizer_file)


def _first(named: object) -> str:
    """A tokenizer's entry is a pair, slow and fast, of which one may be null."""
    parts = named if isinstance(named, list) else [named]
    return str(next((part for part in parts if part), None))


def _auto_map(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found = document.get("auto_map")
    if isinstance(found, list):  # as tokenizers wrote it of old
        return {"AutoTokenizer": found}
    return found if isinstance(found, Mapping) else {}


def _read(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty where there is none, or none that can be read: then nothing is known of it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
