"""Every kind of mixer has a price on every device, which grows with what it has to do and with nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from tuner.ask import models
from tuner.ask.layout import ParallelLayout
from tuner.ask.models.attention import Attention, BlockIndex
from tuner.ask.models.beside import Beside
from tuner.ask.models.blocks import Mixer
from tuner.ask.models.compressed import CHOSEN, WHOLE, CompressedAttention, CompressedIndexer
from tuner.ask.models.factorized import FactorizedAttention
from tuner.ask.models.latent import Indexer, LatentAttention
from tuner.ask.models.lightning import Lightning
from tuner.ask.models.recurrent import GatedDelta, KimiDelta, Mamba1, Mamba2, ShortConvolution
from tuner.ask.profile import known_profiles, load_profile
from tuner.cost.mixers import Where, core_ms
from tuner.cost.step_batch import Floats, StepShape
from tuner.cost.volume import Phase

FULL = Attention(heads=32, kv_heads=8, head_dim=128)
LATENT = LatentAttention(heads=128, kv_rank=512, q_rank=1536, qk_nope=128, qk_rope=64, v_head=128)
COMPRESSED = CompressedAttention(
    heads=64, head_dim=512, rope=64, q_rank=1024, groups=8, out_rank=1024, window=128, ratio=WHOLE
)
MAMBA2 = Mamba2(heads=128, head_dim=64, groups=8, state_size=128, conv=4)
RECURRENT = {
    "gated delta": GatedDelta(key_heads=16, value_heads=32, key_dim=128, value_dim=128, conv=4),
    "kimi delta": KimiDelta(heads=32, head_dim=128, conv=4),
    "mamba-2": MAMBA2,
    "mamba": Mamba1(inner=8192, state_size=16, conv=4, time_rank=256),
    "short convolution": ShortConvolution(width=2048, conv=3),
    "lightning": Lightning(heads=32, head_dim=128),
}
MIXERS: dict[str, Mixer] = RECURRENT | {
    "full": FULL,
    "window": replace(FULL, window=1024),
    "chunk": replace(FULL, chunk=8192),
    "blocks": replace(FULL, index=BlockIndex(heads=4, width=128, block=128, topk=16)),
    "latent": LATENT,
    "expanded": replace(LATENT, expanded=True),
    "sparse": replace(LATENT, indexer=Indexer(64, 128, 2048)),
    "factorized": FactorizedAttention(heads=64, head_dim=256, rank=2048),
    "compressed": COMPRESSED,
    "compressed, chosen": replace(COMPRESSED, ratio=CHOSEN, indexer=CompressedIndexer(64, 128, 512)),
    "window of one vector": replace(COMPRESSED, ratio=1),
    "beside": Beside(mixers=(FULL, MAMBA2)),
}
CONTEXTS = np.array([256.0, 1024.0, 4096.0, 16384.0, 65536.0])
TOKENS = np.array([16.0, 64.0, 512.0, 2048.0, 8192.0])


def ms(
    mixer: Mixer,
    phase: Phase,
    new: ArrayLike = 1.0,
    context: ArrayLike = 0.0,
    sequences: ArrayLike = 1.0,
    gpu: str = "h100_sxm",
    layout: str = "tp=1,pp=1,dp=1",
) -> Floats:
    step = StepShape(phase, *(np.asarray(one, dtype=float) for one in (new, context, sequences)))
    return core_ms(mixer, Where(load_profile(gpu), ParallelLayout.parse(layout), step, "auto"))


def test_all_kinds_are_here() -> None:
    for module in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"{models.__name__}.{module.name}")
    kinds = {kind.__name__ for kind in Mixer.__subclasses__()}
    assert {type(one).__name__ for one in MIXERS.values()} == kinds


@pytest.mark.parametrize("gpu", known_profiles())
def test_every_kind_has_a_price_on_every_device(gpu: str) -> None:
    for name, mixer in MIXERS.items():
        decode = ms(mixer, "decode", context=CONTEXTS, sequences=8.0, gpu=gpu)
        prefill = ms(mixer, "prefill", new=TOKENS, gpu=gpu)
        assert (np.isfinite(decode) & (decode > 0)).all(), name
        assert (np.isfinite(prefill) & (prefill > 0)).all(), name


@pytest.mark.parametrize("name", MIXERS)
def test_longer_prompts_more_sequences_and_longer_contexts_never_cost_less(name: str) -> None:
    mixer = MIXERS[name]
    prefill = ms(mixer, "prefill", new=TOKENS)
    assert (np.diff(prefill) > -0.02 * prefill[:-1]).all()
    assert prefill[-1] > 1.5 * prefill[0]
    batches = ms(mixer, "decode", context=4096.0, sequences=np.array([1.0, 8.0, 64.0, 512.0]))
    assert (np.diff(batches) >= 0).all()
    decode = ms(mixer, "decode", context=CONTEXTS, sequences=8.0)
    assert (np.diff(np.broadcast_to(decode, CONTEXTS.shape)) >= -1e-12).all()


@pytest.mark.parametrize("name", RECURRENT)
def test_a_state_knows_no_context(name: str) -> None:
    steps: tuple[tuple[Phase, float], ...] = (("decode", 1.0), ("prefill", 512.0))
    for phase, new in steps:
        found = np.broadcast_to(ms(RECURRENT[name], phase, new=new, context=CONTEXTS, sequences=4.0), CONTEXTS.shape)
        assert (found == found[0]).all()


@pytest.mark.parametrize("name", ["window", "chunk", "window of one vector"])
def test_a_window_bounds_what_a_token_costs(name: str) -> None:
    near, far = ms(MIXERS[name], "decode", context=np.array([16384.0, 1e6]), sequences=8.0)
    assert far == pytest.approx(near, rel=1e-6)
    if name != "window of one vector":
        assert near < ms(FULL, "decode", context=16384.0, sequences=8.0)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_layer_that_takes_anothers_choice_costs_less_than_one_that_chooses(phase: Phase) -> None:
    own = ms(MIXERS["sparse"], phase, new=1.0 if phase == "decode" else 4096.0, context=CONTEXTS, sequences=4.0)
    taken = ms(
        replace(LATENT, indexer=Indexer(64, 128, 2048, own=False)), phase,
        new=1.0 if phase == "decode" else 4096.0, context=CONTEXTS, sequences=4.0,
    )  # fmt: skip
    assert (taken < own).all()


def test_layers_side_by_side_cost_the_sum_of_theirs() -> None:
    steps: tuple[tuple[Phase, ArrayLike], ...] = (("decode", 1.0), ("prefill", TOKENS))
    for phase, new in steps:
        parts = ms(FULL, phase, new, 2048.0) + ms(MAMBA2, phase, new, 2048.0)
        assert ms(MIXERS["beside"], phase, new, 2048.0) == pytest.approx(parts)


@pytest.mark.parametrize("name", MIXERS)
def test_a_rank_of_several_has_less_to_do(name: str) -> None:
    found = [ms(MIXERS[name], "prefill", new=8192.0, layout=f"tp={tp},pp=1,dp=1") for tp in (1, 2, 4, 8)]
    assert (np.diff(found) < 0).all()
