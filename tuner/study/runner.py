"""Runs a study for whoever asks: a command, a service, a test. Any thread or process will do, several at once in one.

It knows no terminal, no signals and no files but the trials' logs; what it needs of the world it is given. An end is
asked for by the handle, from anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuner.ask.arrivals import offered
from tuner.ask.cluster import requested_cluster
from tuner.ask.remote_code import require_trust
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.ask.space import load_space
from tuner.decide.decision import Decision
from tuner.study.observer import Fanout, Observer
from tuner.study.resuming import launch_facts
from tuner.study.store import Store
from tuner.study.study import Setting, Study
from tuner.trial.cancel import CancelHandle
from tuner.trial.seams import Launcher, Meter


@dataclass(frozen=True, slots=True)
class StudyOrder:
    """What is to be run, as plain data.

    ``request`` names its cluster (one of ``cluster: ray`` is discovered before). ``log_root`` is the folder of the
    trials' logs. With ``resume`` it goes on with the study of that name, or joins it. ``facts``: the machine and
    our versions, for the reader of the result; the launcher adds its own.
    """

    name: str
    request: TuneRequest
    log_root: Path
    resume: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)

    def setting(self) -> Setting:
        """The order with all that it names looked up. Raises BadInput for what is not there, cannot be offered, or is
        not trusted to run."""
        request = self.request
        offered(request.workload, request.rates_req_per_s[0], request.load.seconds, seed=0)  # no loop, nor a lost trace
        require_trust(request)
        model, cluster = requested_model(request), requested_cluster(request)
        return Setting(self.name, request, model, cluster, load_space(request.space), self.log_root)


def run_study(
    order: StudyOrder,
    store: Store,
    launcher: Launcher,
    meter: Meter,
    observers: Sequence[Observer] = (),
    cancel: CancelHandle | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
    driver: str | None = None,
    held: Callable[[], str | None] = lambda: None,
) -> Decision:
    """Run the study to its decision, in the calling thread and, where the launcher keeps up several, others.

    The store may be other studies' too, the launcher and the meter as well where their devices are; each study has
    observers and a handle of its own. ``clock`` is that of the cluster, in s; ``driver`` the name under which the
    caller has claimed the study, if it has; ``held`` says before each launch why there may be none for now, or None.
    Whoever calls closes what it gave.

    Raises BadInput before anything starts for what cannot be run, and Cancelled where that was asked: then nothing of
    it runs any more, and the same order with ``resume`` ends in the decision that it would have had. So too where it is
    held: what runs has ended by then.
    """
    setting = order.setting()
    study = Study(
        setting, store, launcher, meter, Fanout(observers), clock=clock, driver=driver, cancel=cancel, held=held
    )
    return study.run(order.resume, dict(order.facts) | launch_facts(order.request.model, launcher))
