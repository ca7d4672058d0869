"""The custom resource: what its ``spec`` and its ``status`` may hold. Its CustomResourceDefinition is made of this."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from tuner.ask.sections import Count
from tuner.retune.policy import RetunePolicy

CONDITIONS = ("Accepted", "Studying", "Decided", "Infeasible", "RolledOut", "Failed", "Watching", "Held")
_LABEL = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
_OBJECT = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


class Part(BaseModel):
    """A part of the resource, its keys in Kubernetes' manner; absent is absent, never null."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Target(Part):
    """What becomes of the winner: the RayService, and what the cluster calls things."""

    name: Annotated[str, Field(pattern=_LABEL)] | None = Field(
        default=None,
        description="Name of the RayService; default: that of the LayoutRequest, made short where it must be.",
    )
    image: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Image of the pods; it must hold Ray and vLLM. Default: Ray's own of that version."
    )
    ray_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([.+a-z0-9]*)$")] | None = Field(
        default=None, description="Version of Ray; default: the one that the layout was measured with."
    )
    gpu_resource: str | None = Field(default=None, description="Resource name of a GPU; default: nvidia.com/gpu.")
    cache_claim: str | None = Field(default=None, description="Volume claim for downloaded weights.")
    model_claim: str | None = Field(default=None, description="Volume claim with the files of a model that is a path.")
    token_secret: str | None = Field(
        default=None, description="Secret whose key `token` is the Hugging Face token; default: hf-token."
    )
    node_selector: dict[str, str] | None = Field(default=None, description="Labels of the nodes for GPU pods.")


class RetuneGateway(Part):
    """A Gateway that is there: its HTTPRoute deals the traffic, so that a canary has a share of it."""

    name: Annotated[str, Field(pattern=_OBJECT)] = Field(description="The Gateway.")
    namespace: Annotated[str, Field(pattern=_OBJECT)] | None = Field(default=None, description="Default: the same.")
    listener: str | None = Field(default=None, description="Its listener; default: all.")
    host: str | None = Field(default=None, description="The name that clients ask; default: any.")
    url: Annotated[str, Field(pattern=r"^https?://[^/]+")] = Field(description="Where clients ask, without /v1.")


class RetuneUpgrades(Part):
    """KubeRay's incremental upgrades, where its operator has them: one RayService moves over, in steps."""

    gateway_class: Annotated[str, Field(pattern=_OBJECT)] = Field(description="The GatewayClass.")
    gateway_url: Annotated[str, Field(pattern=r"^https?://[^/]+")] = Field(description="Where that Gateway is asked.")
    surge_percent: Annotated[int, Field(ge=1, le=100)] = Field(default=100, description="Capacity moved at a time.")
    interval_s: Annotated[int, Field(ge=1)] = Field(default=10, description="Seconds between two steps of traffic.")


class Retune(Part):
    """Watch what serves, decide again where that is worth it, and roll out: with `deploy: auto`."""

    policy: RetunePolicy = Field(default=RetunePolicy(), description="What is allowed, as `parlay watch` reads it.")
    gateway: RetuneGateway | None = Field(
        default=None, description="What deals the traffic; without one a Service does, and no canary is possible."
    )
    upgrades: RetuneUpgrades | None = Field(
        default=None, description="Instead: KubeRay moves one RayService over; for where two have no room."
    )

    @model_validator(mode="after")
    def _has_one_way(self) -> Retune:
        if self.gateway is not None and self.upgrades is not None:
            raise ValueError("either gateway or upgrades")
        return self


class CreatedRayCluster(Part):
    """A RayCluster that is made for the study, with the nodes of the request's cluster, and removed after it."""

    max_gpus: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="A request whose cluster has more GPUs is refused. Default: the controller's limit."
    )


class TrialsRayCluster(Part):
    """One of the two."""

    name: Annotated[str, Field(pattern=_OBJECT)] | None = Field(
        default=None, description="One that runs: one of those whose workers this controller has."
    )
    create: CreatedRayCluster | None = Field(
        default=None, description="One that is made for the study, and removed after it."
    )

    @model_validator(mode="after")
    def _is_one(self) -> TrialsRayCluster:
        if (self.name is None) == (self.create is None):
            raise ValueError("either name or create")
        return self


class Trials(Part):
    """Where trials run."""

    ray_cluster: TrialsRayCluster | None = Field(
        default=None, description="The RayCluster of the trials; default: that of the controller's workers."
    )


class Spec(Part):
    """What is asked for. Another `request`, launcher or seed is another study; the rest changes what becomes of it."""

    request: dict[str, Any] = Field(description="The request, as `parlay tune` reads it.")
    deploy: Literal["auto", "manual"] = Field(
        default="manual",
        description="auto: the winner is applied as a RayService; manual: its manifest waits in a ConfigMap.",
    )
    target: Target = Field(default=Target(), description="What becomes of the winner.")
    trials: Trials = Field(default=Trials(), description="Where trials run.")
    retune: Retune | None = Field(default=None, description="Keep watching what serves; default: it is left as it is.")
    launcher: Literal["ray", "local", "simulated"] | None = Field(
        default=None, description="What trials run on; default: the controller's first."
    )
    simulated_seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        default=None, description="Seed of a simulated cluster."
    )
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(
        0, description="A higher one is run first; it counts when the study is queued."
    )


class Best(Part):
    """The best layout so far."""

    layout: str = Field(description="The layout.")


class SpentStatus(Part):
    """What the study has spent."""

    launches: int = Field(description="Trials begun.")
    minutes: float = Field(description="Minutes of the study's own time.")
    gpu_hours: float = Field(description="Hours of devices held.")
    usd: float | None = Field(default=None, description="US dollars, where every device has a price.")


class DecisionStatus(Part):
    """What the study concluded."""

    layout: str | None = Field(default=None, description="The winner; absent: none meets the SLO.")
    gpus: Count | None = Field(default=None, description="Its devices.")
    usd_per_hour: float | None = Field(default=None, description="Price of its devices, US dollars per hour.")
    why: str = Field(description="Why, in words.")
    remedy: str | None = Field(default=None, description="What would have to change where none meets the SLO.")


class Deployed(Part):
    """Where the winner's manifest is."""

    config_map: str | None = Field(default=None, description="ConfigMap with the manifest, under rayservice.yaml.")
    ray_service: str | None = Field(default=None, description="The RayService, where it was applied.")
    digest: str | None = Field(default=None, description="Stands for the manifest.")


class Condition(Part):
    """One condition, as Kubernetes' API conventions have them."""

    type: Literal["Accepted", "Studying", "Decided", "Infeasible", "RolledOut", "Failed", "Watching", "Held"]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""
    observed_generation: Annotated[int, Field(ge=0)]
    last_transition_time: str


class Status(Part):
    """Where it stands."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(description="The generation of which this tells.")
    phase: str = Field(description="In a word: Refused, Queued, Studying, Decided, RollingOut, RolledOut, and so on.")
    study: str | None = Field(default=None, description="The study, for `parlay show` and the service's page.")
    ray_cluster: str | None = Field(default=None, description="The RayCluster that was made for the study.")
    best: Best | None = None
    spent: SpentStatus | None = None
    decision: DecisionStatus | None = None
    deployed: Deployed | None = None
    conditions: list[Condition] = Field(default_factory=list)
