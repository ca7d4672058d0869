"""A service, as Python: one method for each route, typed answers, and the errors that the same would raise here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

from tuner.app.answers.audit import AccountAnswer, AuditAnswer
from tuner.app.answers.base import Answer
from tuner.app.answers.cluster import ClusterAnswer
from tuner.app.answers.decision import ShowAnswer
from tuner.app.answers.explain import ExplainAnswer
from tuner.app.answers.names import NamesAnswer
from tuner.app.answers.picture import PictureAnswer
from tuner.app.answers.plan import PlanAnswer
from tuner.app.answers.simulate import SimulateAnswer
from tuner.app.answers.study import StudyAnswer, StudyLineAnswer, StudyListAnswer
from tuner.app.answers.version import HealthAnswer, VersionAnswer
from tuner.app.answers.watch import WatchAnswer
from tuner.app.answers.written import WrittenAnswer
from tuner.app.client.event_stream import StudyEvent, follow
from tuner.app.client.transport import Transport
from tuner.retune.rollout import Wish
from tuner.study.lifecycle import StudyState

OVER = (StudyState.DECIDED, StudyState.FAILED, StudyState.CANCELLED)
Document = Mapping[str, Any]  # a request as it is written in YAML or JSON
_Answer = TypeVar("_Answer", bound=Answer)


class ServiceClient:
    """Asks the service at ``url`` with a bearer token; usable from several threads.

    Every method raises BadInput, with the place, what was given and what is allowed, for what is refused;
    NoFeasibleLayout where a study has no winner; StoreError while the service cannot reach its store; ServiceError
    where no answer comes in time. What can be asked twice without harm is tried again first.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._transport = Transport(url, token)

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._transport.close()

    def plan(self, request: Document, simulate: int = 0) -> PlanAnswer:
        """Rank layouts; where none meets the SLO, ``infeasible`` says why."""
        return self._posted(PlanAnswer, "/v1/plans", "a plan", {"request": request, "simulate": simulate})

    def simulate(
        self,
        request: Document,
        layout: str,
        requests: int | None = None,
        rate_req_per_s: float | None = None,
        seed: int = 0,
    ) -> SimulateAnswer:
        """One layout under load."""
        body: dict[str, object] = {"request": request, "layout": layout, "requests": requests, "seed": seed}
        return self._posted(
            SimulateAnswer, "/v1/simulations", layout, _given(body | {"rate_req_per_s": rate_req_per_s})
        )

    def written(self, text: str = "", document: Document | None = None) -> WrittenAnswer:
        """A request as YAML and as a document, and what is wrong in it first."""
        return self._posted(WrittenAnswer, "/v1/requests", "a request", _given({"text": text, "document": document}))

    def names(self) -> NamesAnswer:
        """Models, GPUs and search spaces that a request may name."""
        return self._got(NamesAnswer, "/v1/names", "names")

    def profile(self, name: str) -> dict[str, Any]:
        """A hardware profile."""
        found: dict[str, Any] = self._transport.ask("GET", f"/v1/profiles/{quote(name, safe='')}", name).json()
        return found

    def cluster(self) -> ClusterAnswer:
        """The clusters as the workers see them, and who holds what of them."""
        return self._got(ClusterAnswer, "/v1/cluster", "the cluster")

    def version(self) -> VersionAnswer:
        """What answers."""
        return self._got(VersionAnswer, "/v1/version", "its versions")

    def health(self) -> HealthAnswer:
        """That it lives."""
        return self._got(HealthAnswer, "/healthz", "its health")

    def ready(self) -> HealthAnswer:
        """That it can work; StoreError where it cannot."""
        return self._got(HealthAnswer, "/readyz", "whether it can work")

    def metrics(self) -> str:
        """For Prometheus."""
        return self._transport.ask("GET", "/metrics", "its metrics").text

    def queue(
        self,
        request: Document,
        *,
        name: str | None = None,
        launcher: str | None = None,
        simulated_seed: int | None = None,
        priority: int = 0,
        key: str | None = None,
    ) -> StudyAnswer:
        """Queue a study; the same once more with the same ``key`` is the same study."""
        body = _given({"name": name, "launcher": launcher, "simulated_seed": simulated_seed, "priority": priority})
        headers = {"Idempotency-Key": key} if key else None
        answer = self._transport.ask(
            "POST", "/v1/studies", name or "a study", body=body | {"request": request}, headers=headers
        )
        return StudyAnswer.model_validate_json(answer.content)

    def studies(self, states: Sequence[StudyState] = (), cursor: str | None = None, limit: int = 50) -> StudyListAnswer:
        """A page of studies, the newest first; ``next`` is the cursor of the one after it."""
        params = _given({"state": [state.value for state in states], "cursor": cursor, "limit": limit})
        answer = self._transport.ask("GET", "/v1/studies", "studies", params=params)
        return StudyListAnswer.model_validate_json(answer.content)

    def all_studies(self, states: Sequence[StudyState] = ()) -> Iterator[StudyLineAnswer]:
        """All studies, page after page."""
        page = self.studies(states)
        yield from page.studies
        while page.next is not None:
            page = self.studies(states, page.next)
            yield from page.studies

    def study(self, name: str) -> StudyAnswer:
        """What was asked, and where it stands."""
        return self._got(StudyAnswer, _path(name), name)

    def decision(self, name: str) -> ShowAnswer:
        """The decision, or how it stands."""
        return self._got(ShowAnswer, _path(name, "decision"), name)

    def explanation(self, name: str, layout: str | None = None) -> ExplainAnswer:
        """Why the winner won, or where the milliseconds of one layout go."""
        found = self._transport.ask("GET", _path(name, "explanation"), name, params=_given({"layout": layout}))
        return ExplainAnswer.model_validate_json(found.content)

    def picture(self, name: str) -> PictureAnswer:
        """The parts of the report, for a page that draws them."""
        return self._got(PictureAnswer, _path(name, "picture"), name)

    def report(self, name: str) -> str:
        """The report, an HTML page by itself."""
        return self._transport.ask("GET", _path(name, "report"), name).text

    def spec(self, name: str, spec_format: str, layout: str | None = None) -> str:
        """The deployment spec of the winner, or of another measured layout."""
        path = _path(name, "specs", spec_format)
        return self._transport.ask("GET", path, name, params=_given({"layout": layout})).text

    def log(self, name: str, trial: int, tail: int = 200) -> str:
        """The last lines of a trial's logs."""
        return self._transport.ask("GET", _path(name, "trials", str(trial), "log"), name, params={"tail": tail}).text

    def pause(self, name: str) -> StudyAnswer:
        """Stop it, to go on later."""
        return self._posted(StudyAnswer, _path(name, "pause"), name)

    def cancel(self, name: str) -> StudyAnswer:
        """End it."""
        return self._posted(StudyAnswer, _path(name, "cancel"), name)

    def resume(self, name: str) -> StudyAnswer:
        """Queue one again that was paused or has ended."""
        return self._posted(StudyAnswer, _path(name, "resume"), name)

    def pin(self, name: str) -> StudyAnswer:
        """Keep it, whatever the rule for old studies."""
        return self._posted(StudyAnswer, _path(name, "pin"), name)

    def unpin(self, name: str) -> StudyAnswer:
        """Let the rule have it again."""
        return StudyAnswer.model_validate_json(self._transport.ask("DELETE", _path(name, "pin"), name).content)

    def delete(self, name: str) -> None:
        """Forget one that has ended."""
        self._transport.ask("DELETE", _path(name), name)

    def watch(self, name: str) -> WatchAnswer:
        """What serves of a watched study, how it stands, and what is done about that."""
        return self._got(WatchAnswer, _path(name, "watch"), name)

    def watch_picture(self, name: str) -> PictureAnswer:
        """The same over time, as a chart."""
        return self._got(PictureAnswer, _path(name, "watch", "picture"), name)

    def watch_with(self, name: str, policy: Document, site: Document | None = None) -> WatchAnswer:
        """Have a study watched where it serves, or change what is allowed."""
        body = _given({"policy": dict(policy), "site": site})
        answer = self._transport.ask("PUT", _path(name, "watch"), name, body=body)
        return WatchAnswer.model_validate_json(answer.content)

    def unwatch(self, name: str) -> WatchAnswer:
        """Watch it no more; what serves goes on serving."""
        return WatchAnswer.model_validate_json(self._transport.ask("DELETE", _path(name, "watch"), name).content)

    def say(self, name: str, wish: Wish) -> WatchAnswer:
        """What a human asks of its watcher: approve, pause, resume, veto or force."""
        return self._posted(WatchAnswer, _path(name, "watch", wish.value), name)

    def account(self) -> AccountAnswer:
        """Who asks, and what that account may still take."""
        return self._got(AccountAnswer, "/v1/account", "its account")

    def audit(self, since: float | None = None, cursor: str | None = None, limit: int = 100) -> AuditAnswer:
        """A page of the audit, the newest first; ``next`` is the cursor of the one after it."""
        params = _given({"since": since, "cursor": cursor, "limit": limit})
        return AuditAnswer.model_validate_json(
            self._transport.ask("GET", "/v1/audit", "the audit", params=params).content
        )

    def events(self, name: str, after: int = 0) -> Iterator[StudyEvent]:
        """What happens in a study, each event once, until it has ended or was paused; a stream that breaks is taken up
        again. Of one that is paused, ``after`` its last event: what happens once it goes on."""

        def over() -> bool:
            return self.study(name).state in (*OVER, StudyState.PAUSED)

        return follow(
            lambda last: self._transport.lines(_path(name, "events"), name, {"Last-Event-ID": str(last)}), over, after
        )

    def _got(self, kind: type[_Answer], path: str, asked: str) -> _Answer:
        return kind.model_validate_json(self._transport.ask("GET", path, asked).content)

    def _posted(self, kind: type[_Answer], path: str, asked: str, body: Mapping[str, object] | None = None) -> _Answer:
        return kind.model_validate_json(self._transport.ask("POST", path, asked, body=body).content)


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _path(study: str, *more: str) -> str:
    return "/".join(("/v1/studies", *(quote(word, safe="") for word in (study, *more))))
