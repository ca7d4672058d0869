"""Sizes of a described model on one of so many ranks, as the engine counts them: for tests of readers."""

from tuner.ask.models.config import Config
from tuner.ask.models.families.index import reader_of
from tuner.ask.models.matrices import stored_elements
from tuner.ask.models.vocabulary import padded

CACHE_BYTES = 2  # of an element


def described(config, name="model"):
    """What the reader of a configuration's architecture makes of it."""
    whole = Config(config, name)
    return reader_of(config["architectures"][0])(whole, whole)


def parameters(model, ranks=1):
    embedding = padded(model.vocab) * (model.embedding_width or model.hidden) / ranks
    total = embedding * (1 if model.tied else 2) + (padded(model.vocab) / ranks if model.head_bias else 0)
    total += model.vectors.on_rank(ranks) + stored_elements(model.outside, ranks)
    return total + sum(block.elements(model.hidden, ranks) for block in model.layers)


def caches(model):
    return [cache for block in model.layers if block.mixer for cache in block.mixer.caches]


def cache_bytes(model, ranks=1):
    """Of one token."""
    return sum(cache.token_bytes(CACHE_BYTES, ranks) for cache in caches(model))


def bounded_bytes(model):
    """Of one sequence, where windows bound it."""
    return sum(one.token_bytes(CACHE_BYTES) * one.window for one in caches(model) if one.window is not None)


def refused(model, ranks):
    """Why so many ranks are refused; None where they are not."""
    found = (block.mixer.refuses(ranks) for block in model.layers if block.mixer)
    return next((why for why in found if why), None)
