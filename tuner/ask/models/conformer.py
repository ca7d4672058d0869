"""The audio encoder of Gemma 3n and Gemma 4: Conformer blocks behind two convolutions, whole on every rank (classes of
Transformers, ``Gemma3nAudioEncoder`` and ``Gemma4AudioModel``)."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Tower
from tuner.ask.models.matrices import Matrix, Vectors
from tuner.ask.models.towers import TowerNames, block, linear

NORMS = 9  # vectors of a block: two of each MLP, the attention and the convolution, one at the end
WIDER = 4  # an MLP than its input
KERNEL = 9  # pixels of a convolution before the blocks, which halves what it reads
MELS = 128  # of the spectrum
_NAMES = TowerNames(
    "self_attn", "feed_forward1", ProjectionNames(output="post"), MlpNames(up="ffw_layer_1", down="ffw_layer_2")
)


def conformer(
    audio: Config,
    *,
    layers: int,
    heads: int,
    kernel: int,
    channels: tuple[int, int],
    around: tuple[Matrix, ...],
    vectors: int = 0,
    prefix: str = "audio_tower.layers",
) -> Tower:
    """So many blocks; ``around`` and ``vectors``: what projects to the language model."""
    hidden = audio.need("hidden_size")

    def plain(name: str, outputs: int, inputs: int) -> Matrix:
        return linear(name, outputs, inputs, bias=False)

    extra = (
        plain("feed_forward2.ffw_layer_1", WIDER * hidden, hidden),
        plain("feed_forward2.ffw_layer_2", hidden, WIDER * hidden),
        plain("self_attn.relative_k_proj", hidden, hidden),
        plain("lconv1d.linear_start", 2 * hidden, hidden),
        plain("lconv1d.linear_end", hidden, hidden),
    )
    one = block(
        hidden,
        heads,
        WIDER * hidden,
        prefix=prefix,
        names=_NAMES,
        bias=False,
        norms=NORMS,
        more=kernel * hidden + hidden // heads,
        extra=extra,
    )
    first, second = channels
    convolutions = KERNEL * first + first + KERNEL * first * second + second
    start = linear("audio_tower.input_proj_linear", hidden, MELS // 4 * second, bias=False, plain=True)
    return Tower(
        kind="audio",
        hidden=hidden,
        layers=(one,) * layers,
        around=(start, *around),
        vectors=Vectors(whole=convolutions + vectors),
        whole=True,
    )
