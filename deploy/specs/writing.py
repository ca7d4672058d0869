"""What leaves the tuner: one Ray Serve application, written down in the formats that people deploy.

Every format derives from the same application dictionary that the launcher runs, so that what is deployed is what was
measured: ``ray-serve`` holds it unchanged, ``rayservice`` and ``helm-values`` hold that file verbatim in
``serveConfigV2``, and ``vllm`` spells out its engine arguments and environment.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.specs.rayservice import Platform, Serving, llm_config, plan_serving, rayservice
from deploy.specs.vllm_command import vllm_command
from serve.launch.engine import on_logical_gpus
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput, ParlayError

Application = Mapping[str, Any]

FILES = {
    "ray-serve": "ray-serve.yaml",
    "rayservice": "rayservice.yaml",
    "helm-values": "helm-values.yaml",
    "vllm": "vllm.sh",
}
FORMATS = tuple(FILES)
_SECRET = re.compile(r"(?i)(^|_)(token|secret|password|passwd|api_key|access_key|credentials?)$")


def emit(
    spec_format: str, layout: ParallelLayout, request: TuneRequest, app: Application, platform: Platform | None = None
) -> str:
    """The text of one spec. ``spec_format`` is one of FORMATS; ``app`` is the application that was launched. Without a
    ``platform``, the plain one with the node selector of the layout's node group.

    Raises BadInput for an unknown format, an application that does not describe ``layout``, or one whose environment
    holds a secret (it would be written in clear; a Secret must carry it).
    """
    if spec_format not in FORMATS:
        raise BadInput("format", spec_format, ", ".join(FORMATS))
    _check(layout, app)
    groups = request.on(layout.gpu).groups
    selector = groups[0].node_selector if len(groups) == 1 else None
    return _WRITERS[spec_format](layout, request, app, platform or Platform(node_selector=selector or {}))


def write_all(
    directory: Path, layout: ParallelLayout, request: TuneRequest, app: Application, platform: Platform | None = None
) -> dict[str, Path]:
    """Write every format into ``directory`` (made if absent); the paths by format.

    All texts are made before the first file is touched, and each file is replaced as a whole.
    """
    texts = {spec_format: emit(spec_format, layout, request, app, platform) for spec_format in FORMATS}
    return {spec_format: write_whole(directory / FILES[spec_format], text) for spec_format, text in texts.items()}


def write_whole(path: Path, text: str) -> Path:
    """Write a file so that a reader sees the old text or the new one, never a part; returns ``path``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ParlayError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def _ray_serve(layout: ParallelLayout, request: TuneRequest, app: Application, _: Platform) -> str:
    notes = []
    if on_logical_gpus(layout, request):
        count = layout.devices
        notes = [f"Needs: Parlay beside vLLM, and a Ray that counts cores as devices: ray start --num-gpus {count} ..."]
    return _heading(layout, request, "serve run FILE, or serve deploy FILE", *notes) + _yaml({"applications": [app]})


def _rayservice(layout: ParallelLayout, request: TuneRequest, app: Application, platform: Platform) -> str:
    serving = _serving(layout, request, app, platform)
    return _heading(layout, request, "kubectl apply -f FILE", *_needs(serving)) + _yaml(rayservice(serving))


def _helm_values(layout: ParallelLayout, request: TuneRequest, app: Application, platform: Platform) -> str:
    serving = _serving(layout, request, app, platform)
    use = f"helm upgrade --install {serving.name} helm/parlay --values FILE"
    return _heading(layout, request, use, *_needs(serving)) + _yaml({"serving": serving.values()})


def _vllm(layout: ParallelLayout, request: TuneRequest, app: Application, _: Platform) -> str:
    return "#!/bin/sh\n" + _heading(layout, request, "sh FILE") + vllm_command(layout, request, llm_config(app))


_WRITERS: dict[str, Callable[[ParallelLayout, TuneRequest, Application, Platform], str]] = {
    "ray-serve": _ray_serve,
    "rayservice": _rayservice,
    "helm-values": _helm_values,
    "vllm": _vllm,
}


def _serving(layout: ParallelLayout, request: TuneRequest, app: Application, platform: Platform) -> Serving:
    return plan_serving(layout, request, app, platform, _ray_serve(layout, request, app, platform))


def _needs(serving: Serving) -> list[str]:
    """What the cluster must have before the manifest can work."""
    needs = []
    if not serving.gpu and serving.platform.image is None:
        also = " and Parlay (its plugin lets Ray's executor use cores)" if serving.workers[0].logical_gpus else ""
        needs.append(f"Needs: vLLM for CPU{also} in the image; build one on top of the Ray image and set its name.")
    if serving.model_path:
        needs.append(f"Needs: the volume claim {serving.platform.model_claim} with the model's files at its root.")
    return needs


def _heading(layout: ParallelLayout, request: TuneRequest, use: str, *notes: str) -> str:
    slo = "; ".join(map(str, request.slo))
    lines = [f"Written by Parlay for {request.model}: {layout}", f"SLO: {slo}", f"Use: {use}", *notes]
    return "".join(f"# {_one_line(line)}\n" for line in lines)


def _one_line(text: str) -> str:
    """A comment must end where its line ends, whatever the operator named things."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def _check(layout: ParallelLayout, app: Application) -> None:
    config = llm_config(app)
    engine = config["engine_kwargs"]
    replicas = engine.get("data_parallel_size") or config["deployment_config"].get("num_replicas")
    degrees = (engine["tensor_parallel_size"], engine["pipeline_parallel_size"], replicas)
    if degrees != (layout.tp, layout.pp, layout.dp):
        given = "tp={},pp={},dp={}".format(*degrees)
        raise BadInput("application", given, f"the degrees of {layout}")
    for name in config["runtime_env"]["env_vars"]:
        if _SECRET.search(name):
            raise BadInput(
                "runtime_env.env_vars", name, "no secrets: a Kubernetes Secret or the environment holds them"
            )


class _Dumper(yaml.SafeDumper):
    """Block style, no anchors, and quotes wherever some YAML reader could take a string for another type."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text and text.replace("\n", "").isprintable():
        style = "|"
    # What is not printable may be a line break to YAML alone; double quotes escape it.
    elif not text.isprintable() or len(text) < 2 or not (text[0].isalpha() or text[0] in "/_"):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def _yaml(document: object) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
