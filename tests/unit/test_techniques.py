"""What an operator writes of techniques, and that a neutral one changes nothing."""

import ast
from pathlib import Path

import numpy as np
import pytest

from tests.techniques import EXPERTS_32, MODELS, REQUEST, cluster, costs, idle, parsed
from tuner.ask.request import Engine
from tuner.ask.rules import illegal
from tuner.cost.breakdown import breakdown
from tuner.cost.memory import estimate_memory
from tuner.cost.step_batch import StepShape
from tuner.cost.techniques import TECHNIQUES, parse_techniques
from tuner.errors import BadInput

ROOT = Path(__file__).parents[2]

# -- what an operator writes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([], ()),
        (["nvrar"], ("nvrar",)),
        (["nvrar", "spd=0.25", "tp2d=2x8"], ("tp2d=2x8", "spd=0.25", "nvrar")),
        (["spd", "hpipe", "s-moe", "expert-buffering"], ("spd=0.5", "hpipe=8", "s-moe=0.5", "expert-buffering=0.5")),
        ([" s-moe = 1 ", "dda", "dynamic-gating", "ring-attention"], None),
        (["spd=0", "s-moe=0", "expert-buffering=1", "hpipe=1024"], None),
    ],
)
def test_techniques_are_read_and_printed(given, names):
    found = parse_techniques(given)
    assert len(found.items) == len(given)
    assert names is None or found.names == names
    assert parse_techniques(found.names) == found
    assert bool(found) == bool(given)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ("warp", "spd=S"),
        ("", "nvrar"),
        ("nvrar=1", "nvrar without a value"),
        ("dda=", "dda without a value"),
        ("spd=1.1", "from 0 to 1"),
        ("spd=-0.1", "from 0 to 1"),
        ("spd=nan", "from 0 to 1"),
        ("spd=half", "from 0 to 1"),
        ("tp2d", "RxC"),
        ("tp2d=0x8", "from 1"),
        ("tp2d=8", "RxC"),
        ("tp2d=2x-4", "RxC"),
        ("hpipe=0", "1 to 1024"),
        ("hpipe=1025", "1 to 1024"),
        ("hpipe=2.5", "1 to 1024"),
        ("s-moe=1.01", "from 0 to 1"),
        ("expert-buffering=0", "above 0"),
        ("expert-buffering=inf", "up to 1"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_what_is_allowed(given, allowed):
    with pytest.raises(BadInput) as caught:
        parse_techniques([given])
    assert caught.value.where == "--what-if"
    assert allowed in caught.value.allowed


def test_a_technique_stands_once():
    with pytest.raises(BadInput, match="spd once"):
        parse_techniques(["spd=0.5", "spd=0.6"])


@pytest.mark.parametrize(
    ("short", "given", "gpu", "allowed"),
    [
        ("8B", "s-moe=0.5", "h100_sxm", "mixture-of-experts"),
        ("8B", "dynamic-gating", "h100_sxm", "mixture-of-experts"),
        ("8B", "expert-buffering", "h100_sxm", "mixture-of-experts"),
        ("qwen-moe", "expert-buffering", "cpu", "a cluster of GPUs"),
        ("deepseek", "tp2d=2x8", "h100_sxm", "a dense model"),
        ("8B", "tp2d=3x2", "h100_sxm", "divides the hidden size of 4096"),
        ("deepseek", "ring-attention", "h100_sxm", "KV heads"),
        ("gpt-oss", "ring-attention", "h100_sxm", "full attention in every layer"),
    ],
)
def test_a_technique_that_means_nothing_for_the_model_is_refused(short, given, gpu, allowed):
    with pytest.raises(BadInput) as caught:
        parse_techniques([given]).check(MODELS[short], cluster(gpu=gpu))
    assert allowed in caught.value.allowed


def test_every_technique_says_what_it_is():
    assert len({kind.name for kind in TECHNIQUES}) == len(TECHNIQUES) == 9
    for kind in TECHNIQUES:
        for word in (kind.source, kind.acts_on, kind.priced, kind.outputs, kind.missing):
            assert word
        assert kind.exact == kind.outputs.startswith("outputs stay the same")
    assert {kind.name for kind in TECHNIQUES if not kind.exact} == {"spd", "dynamic-gating"}


@pytest.mark.slow
def test_what_launches_and_emits_cannot_reach_a_technique():
    sources = [*(ROOT / "serve").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")]
    sources += [path for room in ("study", "search", "decide") for path in (ROOT / "tuner" / room).rglob("*.py")]
    sources += [ROOT / "tuner/app/tune" / name for name in ("run.py", "bench.py")]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        imported = {node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in imported if "what_if" in name or "techniques" in name}, path
        assert "techniques=" not in text, path


# -- nothing changes where nothing should ------------------------------------------------------------------------------

NEUTRAL = [
    ("8B", "tp=8,pp=1,dp=1", "spd=0"),
    ("8B", "tp=1,pp=4,dp=1", "spd=1"),
    ("70B", "tp=8,pp=2,dp=1,executor=ray", "spd=0"),
    ("70B", "tp=8,pp=1,dp=1", "nvrar"),
    ("70B", "tp=16,pp=1,dp=1,executor=ray", "dda"),
    ("70B", "tp=16,pp=1,dp=1,executor=ray", "tp2d=1x16"),
    ("70B", "tp=8,pp=2,dp=1,executor=ray", "tp2d=2x8"),
    ("70B", "tp=2,pp=8,dp=1,executor=ray", "hpipe=1"),
    ("70B", "tp=8,pp=1,dp=1", "hpipe=64"),
    ("405B", "tp=16,pp=1,dp=2,executor=ray", "ring-attention"),
    ("405B", "tp=16,pp=1,dp=1,dcp=2,executor=ray", "ring-attention"),
    ("deepseek", EXPERTS_32, "s-moe=0.03125"),
    ("deepseek", EXPERTS_32, "s-moe=0"),
    ("deepseek", EXPERTS_32, "dynamic-gating"),
    ("deepseek", "tp=8,pp=2,dp=1,executor=ray", "dynamic-gating"),
    ("deepseek", "tp=1,pp=1,dp=32,ep=true,executor=ray", "s-moe=1"),
    ("deepseek", EXPERTS_32, "expert-buffering=1"),
]


@pytest.mark.parametrize(("short", "layout", "given"), NEUTRAL)
def test_a_neutral_setting_changes_nothing(short, layout, given):
    layout, techniques = parsed(layout), parse_techniques([given])
    one = np.ones(1)
    for phase, new in (("prefill", 2048 * one), ("decode", one)):
        step = StepShape(phase, new, 1024 * one, np.array([8.0]))
        assert costs(short, given).stages(layout, step) == costs(short).stages(layout, step)
    assert idle(short, layout, given) == idle(short, layout)
    memory = estimate_memory(MODELS[short], layout, cluster(), Engine(), np.array([8192.0]), np.array([256.0]))
    assert techniques.memory(MODELS[short], layout, Engine(), memory) == memory
    drop = illegal(MODELS[short], layout, cluster())
    assert techniques.verdict(MODELS[short], layout, drop) == drop


@pytest.mark.parametrize(
    ("short", "layout", "given"),
    [
        ("70B", "tp=8,pp=2,dp=1,executor=ray", ("spd=0.5", "dda", "hpipe=8")),
        ("70B", "tp=16,pp=2,dp=1,executor=ray", ("tp2d=2x8", "spd=0.3", "nvrar", "dda")),
        ("405B", "tp=8,pp=2,dp=1,pcp=2,executor=ray", ("ring-attention", "hpipe=4", "nvrar")),
        ("405B", "tp=8,pp=1,dp=1,pcp=4,executor=ray,max_num_batched_tokens=2048", ("ring-attention",)),
        ("deepseek", EXPERTS_32, ("s-moe=0.6", "expert-buffering=0.7", "spd=1")),
        ("deepseek", "tp=4,pp=2,dp=4,ep=true,executor=ray", ("dynamic-gating", "s-moe=0.6", "nvrar", "hpipe=3")),
    ],
)
def test_a_breakdown_still_sums_to_its_figure(short, layout, given):
    split = breakdown(costs(short, *given), parsed(layout), REQUEST)
    ttft_ms, tpot_ms = idle(short, layout, *given)
    engine_ms = sum(ms for name, ms in split.ttft_ms.items() if not name.startswith("path: "))
    assert engine_ms == pytest.approx(ttft_ms, rel=1e-9)
    assert sum(split.tpot_ms.values()) == pytest.approx(tpot_ms, rel=1e-9)
    assert (ttft_ms, tpot_ms) != idle(short, layout)
