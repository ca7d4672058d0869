"""On which measurements the prices of a model stand: the kernels that its layers need, beside those of all models."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.ask.measured import Kernels, Measured, measured_of
from tuner.ask.model import ModelShape
from tuner.ask.models.latent import LatentAttention
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.cost.mixers import sections_of
from tuner.errors import BadInput

_PRODUCTS = Kernels("products with latent vectors", ("latent_products",))
_STREAMS = Kernels("hyper-connections", ("hyper_connections",), "hyper-connections")


def measured_of_all(request: TuneRequest) -> Measured:
    """What was measured of a request's devices, and of its model's kernels on them."""
    try:
        return measured_of(request, kernels_of(requested_model(request)))
    except BadInput:  # of an old study, whose model is gone
        return measured_of(request)


def kernels_of(model: ModelShape) -> tuple[Kernels, ...]:
    """Kernels of what mixes tokens, and of other kinds of layers that few models have; each once."""
    return tuple(dict.fromkeys(_kernels(model)))


def _kernels(model: ModelShape) -> Iterator[Kernels]:
    for block in model.kinds:
        for mixer in block.mixer.parts if block.mixer is not None else ():
            yield Kernels(f"{mixer.kind} layers", sections_of(mixer), "attention")
            if isinstance(mixer, LatentAttention) and not mixer.expanded:
                yield _PRODUCTS
        if block.streams > 1:
            yield _STREAMS
