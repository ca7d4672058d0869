"""Each front as it is launched: what Ray's environment, its release and the application have to be."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from serve.launch import fronts
from serve.launch.engine import check_served, refused, serve_app, vllm_args
from serve.launch.fronts import BODY, DIRECT, GRPC, HAPROXY, THROUGHPUT, missing, too_old, variables, without_haproxy
from serve.launch.local_launcher import LocalProcessLauncher
from serve.launch.vllm_server import MODULE, SERVE, python_words
from tests.unit.test_engine import config_of, request
from tuner.ask.layout import AXES, FRONT_AXES, ParallelLayout
from tuner.errors import BadInput

parse = ParallelLayout.parse


def launched(text: str, gpu: str = "h100_sxm") -> str:
    """All that decides what is started: by Ray Serve, or by vLLM's own server."""
    layout = parse(text)
    if layout.front == "vllm":
        return json.dumps(vllm_args(layout, request(gpu), model_source="m", host="h", port=1))
    app = serve_app("app", layout, request(gpu), model_source="m")
    return json.dumps([app, variables(layout)], sort_keys=True)


@pytest.mark.parametrize("name", FRONT_AXES)
def test_no_axis_of_a_front_is_lost_on_its_way(name: str) -> None:
    axis = AXES[name]
    base = parse("tp=2,dp=2,front=vllm" if name == "api_servers" else "tp=2,dp=2")
    others = [value for value in axis.words if value != "auto"] or [axis.least, axis.least + 1, axis.least + 5]
    assert len({launched(str(replace(base, **{name: value}))) for value in others}) == len(others)


def test_auto_is_what_ray_serve_has() -> None:
    assert launched("tp=2") == launched("tp=2,front=ray_serve")


@pytest.mark.parametrize(
    ("gpu", "text", "replicas"),
    [
        ("h100_sxm", "dp=3", 6),
        ("h100_sxm", "dp=3,ingress_replicas=4", 12),
        ("cpu", "dp=2", 1),
        ("cpu", "dp=2,ingress_replicas=1", 2),
    ],
)
def test_ingress_replicas_are_counted_by_engine(gpu: str, text: str, replicas: int) -> None:
    app = serve_app("app", parse(text), request(gpu), model_source="m")
    assert app["args"]["ingress_deployment_config"]["num_replicas"] == replicas


@pytest.mark.parametrize("text", ["tp=2", "tp=2,dp=4", "tp=2,dp=4,ep=true,executor=ray"])
def test_engines_that_are_asked_directly_have_no_ingress(text: str) -> None:
    app = serve_app("app", parse(f"{text},front=ray_direct,stream_interval_ms=20"), request(), model_source="m")
    assert app["args"].keys() == {"llm_config" if "ep" in text else "llm_configs"}
    assert "experimental_configs" not in config_of(app)


@pytest.mark.parametrize(
    ("text", "names", "router"),
    [
        ("dp=2", [], None),
        ("dp=2,request_router=prefix_aware", [], "PrefixCacheAffinityRouter"),
        ("dp=2,request_router=round_robin,front=ray_haproxy", [HAPROXY], "RoundRobinRouter"),
        ("dp=1,front=ray_direct", [HAPROXY, DIRECT], None),
        ("dp=2,front=ray_direct", [HAPROXY, DIRECT], "PowerOfTwoChoicesRequestRouter"),
        ("dp=2,front=ray_direct,request_router=prefix_aware", [HAPROXY, DIRECT, BODY], "PrefixCacheAffinityRouter"),
        ("dp=2,ep=true,executor=ray,front=ray_direct,request_router=prefix_aware", [HAPROXY, DIRECT], None),
        ("serve_mode=grpc", [GRPC], None),
        ("front=ray_haproxy,serve_mode=throughput", [HAPROXY, THROUGHPUT], None),
        ("front=ray_direct,serve_mode=grpc", [HAPROXY, DIRECT], None),  # no ingress calls an engine
        ("front=ray_serve,serve_mode=default", [], None),
    ],
)
def test_a_router_is_the_engines_own_option(text: str, names: list[str], router: str | None) -> None:
    layout = parse(text)
    assert variables(layout) == dict.fromkeys(names, "1")
    options = config_of(serve_app("app", layout, request(), model_source="m"))["deployment_config"]
    said = options.get("request_router_config", {}).get("request_router_class", "").replace(":", ".")
    assert said.rpartition(".")[2] == (router or "")


def test_routers_are_those_of_ray() -> None:
    ray = find_spec("ray")  # its files are read: to import it takes a second
    if ray is None or ray.submodule_search_locations is None:
        pytest.skip("Ray is not installed")
    for name in AXES["request_router"].words:
        found: Any = config_of(
            serve_app("a", parse(f"dp=2,front=ray_direct,request_router={name}"), request(), model_source="m")
        )
        path = found["deployment_config"]["request_router_config"]["request_router_class"].replace(":", ".")
        package, _, kind = path.rpartition(".")
        root = Path(ray.submodule_search_locations[0]).parent.joinpath(*package.split("."))
        file = root / "__init__.py" if root.is_dir() else root.with_suffix(".py")
        assert kind in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "ray", "said"),
    [
        ("front=ray_haproxy", "2.54.1", "front=ray_haproxy needs Ray 2.55, this is 2.54.1"),
        ("front=ray_haproxy", "2.55.0", None),
        ("front=ray_direct", "2.55.1", "front=ray_direct needs Ray 2.56"),
        ("front=ray_direct", "2.58.1", None),
        ("dp=2,request_router=round_robin", "2.55.0", "request_router=round_robin needs Ray 2.56"),
        ("dp=1,request_router=round_robin", "2.55.0", None),
        ("serve_mode=grpc", "2.53.0", "serve_mode=grpc needs Ray 2.54, this is 2.53.0"),
        ("serve_mode=grpc", "2.54.1", None),
        ("serve_mode=throughput", "2.54.1", "serve_mode=throughput needs Ray 2.55"),  # it meant less before
        ("front=ray_haproxy,serve_mode=throughput", "2.55.0", None),
        ("front=ray_direct,serve_mode=throughput", "2.56.0", None),
        ("front=ray_direct", None, None),  # nobody knows, so nothing is refused
        ("front=ray_direct", "3.0.0.dev0", None),
    ],
)
def test_a_release_of_ray_has_its_fronts(text: str, ray: str | None, said: str | None) -> None:
    found = too_old(parse(text), ray)
    assert (found is None) if said is None else said in (found or "")


@pytest.mark.parametrize(
    ("text", "found", "said"),
    [
        ("front=ray_haproxy", {}, f"needs {HAPROXY}=1 in the environment of all of the cluster's nodes"),
        ("front=ray_direct", {HAPROXY: "1"}, None),  # decided where the application is built
        ("dp=2,front=ray_direct,request_router=prefix_aware", {HAPROXY: "1"}, f"needs {BODY}=1"),
        ("front=ray_serve", {HAPROXY: "1"}, "which is front=ray_haproxy"),
        ("front=ray_serve", {HAPROXY: "0"}, None),
        ("serve_mode=grpc", {}, f"front=auto,serve_mode=grpc needs {GRPC}=1 in the environment"),
        ("serve_mode=grpc", {GRPC: "1"}, None),
        ("front=ray_haproxy,serve_mode=throughput", {HAPROXY: "1"}, f"serve_mode=throughput needs {THROUGHPUT}=1"),
        ("front=ray_serve", {GRPC: "1"}, f"the cluster has {GRPC}=1, which is serve_mode=grpc"),
        ("serve_mode=grpc", {GRPC: "1", THROUGHPUT: "1"}, "which is serve_mode=throughput"),
        ("tp=1", {GRPC: "1"}, None),  # auto is what the cluster has
        ("front=ray_direct", {HAPROXY: "1", GRPC: "1"}, None),  # looked at by no part of its path
    ],
)
def test_a_running_cluster_has_the_front_of_its_environment(text: str, found: dict[str, str], said: str | None) -> None:
    told = missing(parse(text), found)
    assert (told is None) if said is None else said in (told or "")


def test_a_machine_without_haproxy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv(fronts.BINARY, raising=False)
    assert "front=ray_direct needs HAProxy on this machine" in (without_haproxy(parse("front=ray_direct")) or "")
    assert without_haproxy(parse("front=ray_serve")) is None
    monkeypatch.setenv(fronts.BINARY, "/opt/haproxy")
    assert without_haproxy(parse("front=ray_direct")) is None


def test_ray_serve_does_not_run_vllms_own_server() -> None:
    assert "front=vllm does not run under Ray Serve" in (refused(parse("front=vllm"), request()) or "")
    with pytest.raises(BadInput, match=r"layout\.front"):
        check_served(parse("front=vllm"), request())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("front=ray_serve", "front=ray_serve"),
        ("stream_interval_ms=20", "stream_interval_ms=20"),
        ("front=vllm,stream_interval_ms=20", None),  # not looked at
        ("dp=2,request_router=prefix_aware", "request_router=prefix_aware"),
        ("serve_mode=grpc", "serve_mode=grpc"),
        ("front=vllm,api_servers=2", None),
        ("tp=1", None),
    ],
)
def test_a_local_process_has_no_ray(text: str, said: str | None, tmp_path: Path) -> None:
    launcher = LocalProcessLauncher(None, state_dir=tmp_path)
    found = launcher.refuses(parse(text), request("cpu"))
    assert (found is None) if said is None else (found or "").startswith(said)


@pytest.mark.parametrize(
    ("text", "count"),
    [("tp=1", None), ("dp=2", "1"), ("front=vllm,api_servers=3", "3"), ("dp=2,front=vllm,api_servers=2", "2")],
)
def test_the_server_is_told_how_many_processes_answer(text: str, count: str | None) -> None:
    words = vllm_args(parse(text), request(), model_source="m", host="h", port=1)
    assert (words[words.index("--api-server-count") + 1] if "--api-server-count" in words else None) == count
    several = count not in (None, "1")
    assert python_words(words) == (["-c", SERVE, *words] if several else ["-m", MODULE, *words])
