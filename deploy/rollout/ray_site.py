"""Plain Ray Serve as a place that serves: deployments are applications of one Ray cluster, before them a front.

An application is given to Ray Serve as its record has it, byte for byte, and nothing here waits for its engines. What
Serve says of it is believed, not what was ordered: so it does not matter who asked, or when that was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.rollout.application import config_of
from deploy.rollout.front import Front
from deploy.rollout.kept_files import kept_object, put
from deploy.rollout.leaders import Leaders
from serve.launch.device import cluster_of
from serve.launch.health import served_models, warm_up
from serve.launch.processes import LauncherRecord, end, group_of
from serve.launch.ray_api import delete_application, deploy_application, free_nodes, own_ip, serve_details, serve_runs
from serve.launch.ray_nodes import demand, fits
from serve.launch.ray_session import RaySession, proxy_of
from serve.launch.replicas import ReplicaHistory, last_message, status_of
from serve.measure.live_ingress import Answered
from tuner.ask.deployment import one_group
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput
from tuner.retune.live import LiveDeployment
from tuner.retune.policy import HoldPolicy
from tuner.retune.site import DeploymentSeen, Readiness, SiteSeen
from tuner.trial.seams import Watch

_WARM_S = 60.0  # for all first answers of one try
_STOP_PATIENCE_S = 5.0
_SEEN = "applications.json"


def named_after(watched_name: str) -> Callable[[str], bool]:
    """Which applications are a study's, by the name that its deployments begin with: ``chat-d`` and a number."""
    shape = re.compile(re.escape(watched_name.rstrip("0123456789")) + r"\d+")
    return lambda name: shape.fullmatch(name) is not None


class RaySite:
    """Implements ``tuner.retune.site.Site`` on the Ray cluster at ``address`` (``HOST:PORT``, or ``auto``).

    ``mine`` tells its applications from those of others; ``folder`` keeps what a kill must not lose, and belongs to one
    watched study. Raises BadInput for an address that does not answer.
    """

    def __init__(
        self,
        address: str,
        folder: Path,
        mine: Callable[[str], bool],
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        self._folder, self._mine = folder, mine
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._session = RaySession(address, None, LauncherRecord(folder, "rollout"))
        self._front = Front(folder / "front", host, port)
        self._histories: dict[str, ReplicaHistory] = {}
        self._leaders = Leaders(folder)
        self._stopped: set[str] = set()  # whose deletion Serve may not have begun yet
        self._was_up = set(self._known())

    @property
    def name(self) -> str:
        """``ray-serve``."""
        return "ray-serve"

    @property
    def url(self) -> str | None:
        """The front's."""
        return self._front.url

    def see(self) -> SiteSeen:
        """What Ray Serve says of the study's applications, and what the front does."""
        applications = self._applications()
        self._end_left(applications)
        own = own_ip() if applications else ""
        for name, one in applications.items():
            self._histories[name].look(one, own)
        self._leaders.keep({name: self._histories[name].leaders for name in applications})
        front = self._front.see(self._proxy() if applications else None)
        seen = {name: self._one(name, one, front.under_way) for name, one in applications.items()}
        foreign = front.foreign or self._changed(applications)
        return SiteSeen(seen, front.shares, foreign)

    def answered(self) -> dict[str, Answered]:
        """What the front has counted of each application's requests."""
        return self._front.answered()

    def no_room_for(self, live: LiveDeployment, request: TuneRequest) -> str | None:
        """Whether the bundles of its replicas fit what nobody holds on each node now."""
        layout = one_group(live.deployment)
        self._session.connect()
        bundles, together = demand(config_of(live.launched, live.name), layout.dp)
        if fits(free_nodes(), bundles):
            return None
        where = "each on one node" if together else "over the nodes"
        return f"{live.name} needs {layout.dp} × {layout.devices_per_replica} devices, {where}: so many are not free"

    def other_front(self, layout: ParallelLayout) -> str | None:
        """Why the cluster has another path from client to engine than a layout's; None where it has that."""
        return self._session.other_front(layout)

    def start(self, live: LiveDeployment, request: TuneRequest) -> None:
        """Hand its application to Ray Serve, where it is not there. Raises LaunchFailed for one that Serve refuses, and
        BadInput for one with another front than the cluster's."""
        config, layout = config_of(live.launched, live.name), one_group(live.deployment)
        if (why := self._session.other_front(layout)) is not None:
            raise BadInput("layout.front", layout.front, why)
        self._session.start(cluster_of(layout, request), Watch())
        if live.name not in self._applications():
            deploy_application(config, live.launched.ray_environment)

    def warm(self, name: str) -> bool:
        """Ask each of its replicas twice, past the front."""
        application = self._applications().get(name)
        if application is None or self._one(name, application, {}).readiness is not Readiness.READY:
            return False
        url = f"http://{self._proxy()}/{name}"
        models = served_models(url, timeout_s=_WARM_S)
        replicas = sum(one.holds_engine for one in self._histories[name].look(application, own_ip()))
        return bool(models) and warm_up(url, models[0], max(1, replicas), timeout_s=_WARM_S)

    def route(self, shares: Mapping[str, float]) -> None:
        """Have the front deal new requests by these shares."""
        self._front.route(shares, self._proxy())

    def hold(self, bounds: HoldPolicy | None) -> None:
        """Have the front hold requests while nothing serves."""
        self._front.hold(*(0.0, 0) if bounds is None else (bounds.seconds, bounds.requests))

    def stop(self, name: str) -> None:
        """Have Ray Serve delete its application."""
        application = self._applications().get(name)
        if application is not None and status_of(application) != "DELETING":
            self._histories[name].look(application, own_ip())
            delete_application(name, wait=False)
            self._stopped.add(name)

    def close(self) -> None:
        """Leave Ray; what serves goes on, the front too."""
        self._session.close()

    def _applications(self) -> dict[str, dict[str, Any]]:
        """Those of the study that Ray Serve knows; none where no Serve runs."""
        self._session.connect()
        if not serve_runs():
            return {}
        found = {name: one for name, one in serve_details()["applications"].items() if self._mine(name)}
        for name in found:
            self._histories.setdefault(name, ReplicaHistory())
        return found

    def _one(self, name: str, application: dict[str, Any], under_way: Mapping[str, int]) -> DeploymentSeen:
        history, status = self._histories[name], status_of(application)
        replicas = history.look(application, own_ip())
        engines = [replica for replica in replicas if replica.holds_engine]
        up = sum(replica.state == "RUNNING" for replica in engines)
        said, requests = last_message(application), under_way.get(name, 0)
        if status == "DELETING" or name in self._stopped:
            return DeploymentSeen(Readiness.LEAVING, said, requests)
        if status == "RUNNING":
            self._was_up.add(name)
            return DeploymentSeen(Readiness.READY, "", requests)
        if name in self._was_up and up:
            return DeploymentSeen(Readiness.READY, f"{up} of {len(engines)} replicas run: {said}", requests)
        lost = name not in self._was_up and history.died(replicas)
        if status in ("DEPLOY_FAILED", "UNHEALTHY") or lost:
            return DeploymentSeen(Readiness.FAILED, said or "a replica died", requests)
        return DeploymentSeen(Readiness.STARTING, said, requests)

    def _changed(self, applications: Mapping[str, dict[str, Any]]) -> str | None:
        """What is configured otherwise than when it was first seen to run, in words; that is kept for those who
        come after."""
        known = self._known()
        now = {name: _digest(one) for name, one in applications.items() if status_of(one) == "RUNNING"}
        added = {name: digest for name, digest in now.items() if name not in known}
        kept = {name: digest for name, digest in known.items() if name in applications}
        if (all_known := kept | added) != known:
            put(self._folder / _SEEN, json.dumps(all_known))
        changed = [name for name, digest in now.items() if all_known[name] != digest]
        taken = [name for name, one in applications.items() if one["route_prefix"] not in (f"/{name}", None)]
        if named := sorted({*changed, *taken}):
            return f"somebody configured {', '.join(named)} otherwise on Ray Serve"
        return None

    def _known(self) -> dict[str, str]:
        return kept_object(self._folder / _SEEN)

    def _end_left(self, applications: Mapping[str, Any]) -> None:
        """Processes of engines that outlive an application that is gone would hold its devices."""
        for name in sorted({*self._histories, *self._leaders.known} - set(applications)):
            history, kept = self._histories.pop(name, None), self._leaders.known.get(name, ())
            leaders = {*kept, *(history.leaders if history is not None else ())}
            end((process for leader in leaders for process in group_of(leader)), patience_s=_STOP_PATIENCE_S)
            self._leaders.forget(name)
            self._stopped.discard(name)
            self._was_up.discard(name)
            self._front.forget(name)

    def _proxy(self) -> str:
        self._session.connect()
        return "{}:{}".format(*proxy_of(serve_details()))


def _digest(application: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits for what somebody else would change: who deployed it, and how its parts are set."""
    parts = {name: one["deployment_config"] for name, one in application["deployments"].items()}
    known = [str(application.get("source")), parts]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]
