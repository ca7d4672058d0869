"""What a site sets for the pods, in the words of the chart's ``serving`` values, and what it is where nobody sets it.

A layout says nothing of these. The chart's ``values.yaml`` has the same defaults, and emitted values leave them out, so
that those of a site stand. A controller reads them from a file (``read_site``), into which the chart writes its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from tuner.errors import BadInput

Entry = dict[str, Any]  # as Kubernetes has it, whose API server checks the rest
Strings = dict[str, str]
Quantity = Annotated[str, Field(pattern=r"^[1-9][0-9]*[MGT]i$")]
_SECRET = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|CREDENTIALS?)$")


def _named(entry: Entry) -> Entry:
    if not isinstance(entry.get("name"), str):
        raise ValueError("an entry needs a name")
    return entry


def _by_reference(entry: Entry) -> Entry:
    if _SECRET.search(entry["name"]) and "valueFrom" not in entry:
        raise ValueError("a secret comes by valueFrom, not in clear")
    return entry


Named = Annotated[Entry, AfterValidator(_named)]
Variable = Annotated[Named, AfterValidator(_by_reference)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Spread(_Part):
    """How worker pods are spread; without a key, no wish."""

    topology_key: str = ""
    max_skew: Annotated[int, Field(ge=1)] = 1
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = "ScheduleAnyway"


class Rdma(_Part):
    """Devices of networks that bypass the kernel, and the node's own network."""

    resource: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/[A-Za-z0-9._-]+)?$")] = ""
    count: Annotated[int, Field(ge=1)] = 1
    host_network: bool = False


class Gang(_Part):
    """Who starts all pods together, or none."""

    scheduler: Literal["", "kueue", "volcano"] = ""
    queue: str = ""

    @model_validator(mode="after")
    def _has_a_queue(self) -> Gang:
        if self.scheduler and not self.queue:
            raise ValueError(f"gang.queue: {self.scheduler} needs one")
        return self


class GpuType(_Part):
    """What differs by type of GPU."""

    node_selector: Strings = {}
    tolerations: list[Entry] = []
    runtime_class_name: str = ""


class SitePods(_Part):
    """What all pods of a site have in common."""

    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: list[Strings] = []
    priority_class_name: str = ""
    service_account_name: str = ""
    pod_labels: Strings = {}
    pod_annotations: Strings = {}
    extra_env: list[Variable] = []
    extra_volumes: list[Named] = []
    extra_volume_mounts: list[Named] = []
    tolerations: list[Entry] = []
    runtime_class_name: str = ""
    gpu_types: dict[str, GpuType] = {}
    affinity: Entry = {}
    topology_spread: Spread = Spread()
    rdma: Rdma = Rdma()
    gang: Gang = Gang()
    upgrade: Literal["", "NewCluster", "None"] = ""

    def values(self) -> dict[str, Any]:
        """As values of the chart."""
        found = self.model_dump(mode="json", by_alias=True, include=set(SitePods.model_fields))
        types = self.model_dump(mode="json", by_alias=True, include={"gpu_types"}, exclude_unset=True)
        return found | {"gpuTypes": {}} | types


class Head(_Part):
    """The size of the pod that steers."""

    cpu: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")] = "4"
    memory: Quantity = "16Gi"


class ModelVolume(_Part):
    """The volume claim with a model's files; where they are mounted says the layout."""

    claim: str = ""
    path: str = ""


class Site(SitePods):
    """The same, and what emitted values say too, which have no more than what a layout needs of it."""

    head: Head = Head()
    gpu_resource: Annotated[str, Field(min_length=1)] = "nvidia.com/gpu"
    shared_memory: Quantity = Field(default="20Gi", description="Of pods with GPUs.")
    cache_claim: str = ""
    model_volume: ModelVolume = ModelVolume()
    token_secret: Annotated[str, Field(min_length=1)] = "hf-token"
    node_selector: Strings = {}

    @property
    def said(self) -> dict[str, Any]:
        """What is not as it is by default."""
        return self.model_dump(mode="json", exclude_defaults=True)


SITE_DEFAULTS: dict[str, Any] = SitePods().values()
SITE_KEYS = tuple(field.alias or name for name, field in Site.model_fields.items())


def read_site(path: Path) -> Site:
    """A site's file. Raises BadInput where it cannot be read, or for a value that cannot work, which it names."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput("--site", str(path), f"a YAML file ({error})") from None
    if not isinstance(document, Mapping | None):
        raise BadInput("--site", str(path), "a mapping with the chart's `serving` values of a site")
    try:
        return Site.model_validate(dict(document or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "gang"
        raise BadInput(f"--site {path}: {where}", first.get("input"), str(first["msg"])) from None
