"""What tests of readers ask of a description: its parameters, caches and states beside those of vLLM's classes."""

from collections import Counter
from pathlib import Path

import pytest

from tuner.ask.models.config import Config
from tuner.ask.models.families.index import reader_of
from tuner.ask.models.matrices import stored_elements
from tuner.ask.models.vocabulary import padded

ROOT = Path(__file__).parents[1] / "data" / "models"
HALF = 2  # bytes of an element in 16 bits


def read(config, name="a model"):
    whole = Config(config, name)
    text = whole.part("text_config") if config.get("text_config") else whole
    return reader_of(config["architectures"][0])(whole, text)


def parameters(model, ranks=1):
    """Of one rank, without towers."""
    rows = padded(model.vocab) / ranks
    found = rows * model.hidden * (1 if model.tied else 2) + (rows if model.head_bias else 0)
    found += model.vectors.on_rank(ranks) + stored_elements(model.outside, ranks)
    return found + sum(layer.elements(model.hidden, ranks) for layer in model.layers)


def caches(model):
    return [cache for layer in model.layers if layer.mixer is not None for cache in layer.mixer.caches]


def token_bytes(model, ranks=1):
    return sum(cache.token_bytes(HALF, ranks) for cache in caches(model))


def state_bytes(model, ranks=1):
    states = [layer.mixer.state for layer in model.layers if layer.mixer is not None]
    return sum(state.sequence_bytes(HALF, ranks) for state in states if state is not None)


def refusal(model, ranks):
    mixers = dict.fromkeys(layer.mixer for layer in model.layers if layer.mixer is not None)
    return next((said for mixer in mixers if (said := mixer.refuses(ranks))), None)


def layers(model):
    return Counter(layer.mixer.kind for layer in model.layers if layer.mixer is not None)


def of_kind(model, kind):
    return layers(model)[kind]


def agrees(case):
    """All that the engine's own class says of it."""
    model, theirs = read(case["config"], case["name"]), case["oracle"]
    assert parameters(model) == pytest.approx(theirs["parameters"], rel=2e-5)
    assert model.max_position == theirs["max_position"]
    assert token_bytes(model) == pytest.approx(theirs["kv_bytes"])
    assert sum(one.token_bytes(HALF) for one in caches(model) if one.window is None) == pytest.approx(
        theirs["kv_unbounded"]
    )
    assert sum(one.token_bytes(HALF) * one.window for one in caches(model) if one.window) == pytest.approx(
        theirs["bounded"]
    )
    assert state_bytes(model) == theirs["state"]
    mixtures = [layer.experts for layer in model.layers if layer.experts is not None]
    assert {one.count for one in mixtures} == ({theirs["experts"]} if mixtures else set())
    assert len(mixtures) == theirs["moe_layers"]
    for ranks in (2, 8):
        rank = theirs.get(f"tp{ranks}", {})
        if rank is None:
            assert refusal(model, ranks)
        elif rank:
            assert refusal(model, ranks) is None
            assert token_bytes(model, ranks) == pytest.approx(rank["kv_bytes"])
            assert state_bytes(model, ranks) == pytest.approx(rank["state"], rel=1e-4)
            if rank["parameters"] is not None:
                assert parameters(model, ranks) == pytest.approx(rank["parameters"], rel=1e-3)
