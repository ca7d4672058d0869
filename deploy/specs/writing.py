"""What leaves the tuner: one Ray Serve application, written down in the formats that people deploy.

Every format derives from the record of the launch, so that what is deployed is what was measured: ``ray-serve`` holds
the application unchanged but for its name and route, ``rayservice`` and ``helm-values`` hold that file verbatim in
``serveConfigV2``, ``kustomize`` makes ``rayservice`` the base of a site's overlays, and ``vllm`` spells out its engine
arguments and environment.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from deploy.specs.rayservice import Platform, Serving, plan_serving, rayservice
from deploy.specs.shipment import Shipment
from deploy.specs.vllm_command import vllm_command
from serve.launch.device import device_of
from serve.launch.ray_nodes import llm_config
from tuner.ask.engine_cautions import cautions
from tuner.errors import BadInput, ParlayError
from tuner.trial.launched import ENGINES, RayApplication, versions_shown

FILES = {
    "ray-serve": "ray-serve.yaml",
    "rayservice": "rayservice.yaml",
    "kustomize": "kustomization.yaml",
    "helm-values": "helm-values.yaml",
    "vllm": "vllm.sh",
}
_SECRET = re.compile(r"(?i)(^|_)(token|secret|password|passwd|api_key|access_key|credentials?)$")


def emit(spec_format: str, shipment: Shipment, platform: Platform | None = None) -> str:
    """The text of one spec. Where the ``platform`` names no nodes, pods go to those of the layout's node group.

    Raises BadInput for a format in which the shipment cannot be written, an application that does not describe its
    layout, or one whose environment holds a secret (it would be written in clear; a Secret must carry it).
    """
    shipment.require(spec_format)
    _check(shipment)
    platform = platform or Platform()
    if not platform.node_selector:
        groups = shipment.request.on(shipment.layout.gpu).groups
        selector = groups[0].node_selector if len(groups) == 1 else None
        platform = replace(platform, node_selector=selector or {})
    return _WRITERS[spec_format](shipment, platform)


def write_all(directory: Path, shipment: Shipment, platform: Platform | None = None) -> dict[str, Path]:
    """Write every format that the shipment has into ``directory`` (made if absent); the paths by format.

    All texts are made before the first file is touched, and each file is replaced as a whole.
    """
    texts = {spec_format: emit(spec_format, shipment, platform) for spec_format in shipment.formats}
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


def _ray_serve(shipment: Shipment, _: Platform) -> str:
    notes = [f"Needs: {word} in the environment of each `ray start`, and of `serve run`." for word in _set(shipment)]
    if device_of(shipment.layout, shipment.request).counts_as_gpus(shipment.layout):
        count = shipment.layout.devices
        notes += [
            f"Needs: Parlay beside vLLM, and a Ray that counts cores as devices: ray start --num-gpus {count} ..."
        ]
    document = {"applications": [shipment.application]}
    return _heading(shipment, "serve run FILE, or serve deploy FILE", *notes) + _yaml(document)


def _set(shipment: Shipment) -> list[str]:
    """Ray's variables as a shell has them, in one word; none where a front needs none."""
    words = " ".join(f"{name}={value}" for name, value in shipment.launched.ray_environment.items())
    return [words] if words else []


def _rayservice(shipment: Shipment, platform: Platform) -> str:
    serving = _serving(shipment, platform)
    return _heading(shipment, "kubectl apply -f FILE", *_needs(shipment, serving)) + _yaml(rayservice(serving))


def _kustomize(shipment: Shipment, platform: Platform) -> str:
    """A base of a site's overlays, beside the manifest; ``images`` is where one of them changes the image."""
    serving = _serving(shipment, platform)
    note = f"Needs: {FILES['rayservice']} beside it, as `parlay emit --format rayservice` writes it."
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [FILES["rayservice"]],
        "images": [_image(serving.image)],
        "labels": [{"pairs": {"app.kubernetes.io/managed-by": "parlay"}}],
    }
    return _heading(shipment, "kubectl apply -k FOLDER", note) + _yaml(document)


def _image(image: str) -> dict[str, str]:
    """An image as Kustomize names it: by its repository, with a tag or a digest."""
    if "@" in image:
        name, _, digest = image.partition("@")
        return {"name": _without_tag(name)[0], "digest": digest}
    name, tag = _without_tag(image)
    return {"name": name, "newTag": tag or "latest"}


def _without_tag(image: str) -> tuple[str, str]:
    """Repository and tag; the colon of a registry's port is none of a tag."""
    folder, slash, name = image.rpartition("/")
    name, _, tag = name.partition(":")
    return f"{folder}{slash}{name}", tag


def _helm_values(shipment: Shipment, platform: Platform) -> str:
    serving = _serving(shipment, platform)
    use = f"helm upgrade --install {serving.name} helm/parlay --values FILE"
    return _heading(shipment, use, *_needs(shipment, serving)) + _yaml({"serving": serving.values()})


def _vllm(shipment: Shipment, _: Platform) -> str:
    return "#!/bin/sh\n" + _heading(shipment, "sh FILE") + vllm_command(shipment)


_WRITERS: dict[str, Callable[[Shipment, Platform], str]] = {
    "ray-serve": _ray_serve,
    "rayservice": _rayservice,
    "kustomize": _kustomize,
    "helm-values": _helm_values,
    "vllm": _vllm,
}


def _serving(shipment: Shipment, platform: Platform) -> Serving:
    return plan_serving(shipment, platform, _ray_serve(shipment, platform))


def _needs(shipment: Shipment, serving: Serving) -> list[str]:
    """Where Ray and image come from, and what the cluster must have before the manifest can work."""
    origins = serving.annotations
    needs = [f"Ray {serving.ray_version}: {origins['parlay/ray-version']}"]
    needs.append(f"Image {serving.image}: {origins['parlay/image']}")
    engine = {name: shipment.launched.versions[name] for name in ENGINES[1:] if name in shipment.launched.versions}
    if engine and serving.needs.image_has_engine:
        known = "from the study" if shipment.recomputed else "measured"
        another = "; Ray's own may hold another" if serving.platform.image is None else ""
        needs.append(f"Needs: {versions_shown(engine)} in the image ({known}){another}.")
    if not serving.needs.image_has_engine and serving.platform.image is None:
        also = " and Parlay (its plugin lets Ray's executor use cores)" if serving.workers[0].logical_gpus else ""
        needs.append(
            f"Needs: {serving.needs.engine}{also} in the image; build one on top of the Ray image and set its name."
        )
    if serving.model_path:
        needs.append(f"Needs: the volume claim {serving.platform.model_claim} with the model's files at its root.")
    return needs


def _heading(shipment: Shipment, use: str, *notes: str) -> str:
    request = shipment.request
    slo = "; ".join(map(str, request.slo))
    lines = [f"Written by Parlay for {request.model}: {shipment.layout}", f"SLO: {slo}", shipment.origin, f"Use: {use}"]
    lines += [f"Note: it {caution}." for caution in shipment.deployment.cautions]
    lines += [f"Note: {caution}" for caution in cautions(request.engine)]
    return "".join(f"# {_one_line(line)}\n" for line in [*lines, *notes])


def _one_line(text: str) -> str:
    """A comment must end where its line ends, whatever the operator named things."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def _check(shipment: Shipment) -> None:
    layout = shipment.layout
    if isinstance(shipment.launched.payload, RayApplication):
        config = llm_config(shipment.application)
        engine = config["engine_kwargs"]
        replicas = engine.get("data_parallel_size") or config["deployment_config"].get("num_replicas")
        degrees = (engine["tensor_parallel_size"], engine["pipeline_parallel_size"], replicas)
        if degrees != (layout.tp, layout.pp, layout.dp):
            given = "tp={},pp={},dp={}".format(*degrees)
            raise BadInput("application", given, f"the degrees of {layout}")
    for name in shipment.server.environment:
        if _SECRET.search(name):
            raise BadInput("environment", name, "no secrets: a Kubernetes Secret or the environment holds them")


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
