"""The API server by the official client: the only import of ``kubernetes``.

The client brings what is easily got wrong: kubeconfig files with all their ways to log in, a pod's token that is
renewed while it runs, certificates. Paths, bodies and watches are plain: objects stay the documents that they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tuner.app.controller.kube import Change, Kind, KubeError, Object
from tuner.errors import BadInput, ParlayError

ANSWER_S = 30.0
_WATCH_MARGIN_S = 30.0
Noted = Callable[[str, str, int], None]  # verb, kind, status of the answer (0: none)


class KubeClient:
    """Implements ``Kube``. ``noted`` is told of every call. Raises BadInput where nothing says which cluster it is."""

    def __init__(self, kubeconfig: str | None = None, noted: Noted = lambda *_: None, threads: int = 16) -> None:
        try:
            from kubernetes.client import Configuration
            from kubernetes.client.rest import RESTClientObject
            from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
        except ImportError:
            raise ParlayError("the package kubernetes is not installed; parlay[kubernetes] brings it") from None
        found = Configuration()
        found.connection_pool_maxsize = threads
        try:
            if kubeconfig is None:
                load_incluster_config(client_configuration=found)
            else:
                load_kube_config(kubeconfig, client_configuration=found)
        except (ConfigException, OSError) as error:
            allowed = "a kubeconfig file, or a pod with a ServiceAccount"
            raise BadInput("--kubeconfig", kubeconfig, f"{allowed} ({error})") from None
        self._configuration, self._noted = found, noted
        self._pool: Any = RESTClientObject(found).pool_manager

    def list(self, kind: Kind, namespace: str) -> tuple[list[Object], str]:
        """As ``Kube.list``."""
        found = self._ask("list", "GET", kind, kind.path(namespace))
        return list(found.get("items") or ()), str(found["metadata"]["resourceVersion"])

    def watch(self, kind: Kind, namespace: str, version: str, seconds: float) -> Iterator[Change]:
        """As ``Kube.watch``."""
        asked = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        fields = asked | {"timeoutSeconds": str(int(seconds))}
        answer = self._send("watch", "GET", kind, kind.path(namespace), fields=fields, read_s=seconds + _WATCH_MARGIN_S)
        try:
            for line in _lines(answer):
                change = json.loads(line)
                if change["type"] == "ERROR":
                    raise _refusal(int(change["object"].get("code", 0)), change["object"])
                yield Change(change["type"], change["object"])
        except _http_errors() as error:
            raise KubeError(0, "Broken", f"the watch broke off ({type(error).__name__})") from None
        finally:
            answer.close()

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """As ``Kube.get``."""
        try:
            return self._ask("get", "GET", kind, kind.path(namespace, name))
        except KubeError as error:
            if error.code == 404:
                return None
            raise

    def create(self, kind: Kind, namespace: str, document: Object) -> Object:
        """As ``Kube.create``."""
        return self._ask("create", "POST", kind, kind.path(namespace), document)

    def replace(self, kind: Kind, namespace: str, name: str, document: Object, part: str = "") -> Object:
        """As ``Kube.replace``."""
        return self._ask("update", "PUT", kind, kind.path(namespace, name, part), document)

    def merge(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        """As ``Kube.merge``."""
        return self._ask("patch", "PATCH", kind, kind.path(namespace, name), patch, "application/merge-patch+json")

    def apply(self, kind: Kind, namespace: str, name: str, document: Object) -> Object:
        """As ``Kube.apply``."""
        from deploy.controller.names import MANAGER

        fields = {"fieldManager": MANAGER}
        path = kind.path(namespace, name)
        return self._ask("apply", "PATCH", kind, path, document, "application/apply-patch+yaml", fields)

    def remove(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """As ``Kube.remove``."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        body: Object = {**options, "preconditions": {"uid": uid}}
        self._ask("delete", "DELETE", kind, kind.path(namespace, name), body)

    def _ask(
        self,
        verb: str,
        method: str,
        kind: Kind,
        path: str,
        body: Object | None = None,
        content: str = "application/json",
        fields: dict[str, str] | None = None,
    ) -> Object:
        answer = self._send(verb, method, kind, path, body, content, fields)
        try:
            found: Object = json.loads(answer.data)
        except _http_errors() as error:
            raise KubeError(0, "Broken", f"the answer broke off ({type(error).__name__})") from None
        return found

    def _send(
        self,
        verb: str,
        method: str,
        kind: Kind,
        path: str,
        body: Object | None = None,
        content: str = "application/json",
        fields: dict[str, str] | None = None,
        read_s: float = ANSWER_S,
    ) -> Any:
        """The answer, its body unread; raises KubeError where it is a refusal."""
        from urllib.parse import urlencode

        from urllib3 import Timeout

        url = self._configuration.host + path + (f"?{urlencode(fields)}" if fields else "")
        headers = {"Accept": "application/json", "User-Agent": "parlay-controller"}
        if body is not None:
            headers["Content-Type"] = content
        token = self._configuration.get_api_key_with_prefix("authorization") or self._bearer()
        if token:
            headers["Authorization"] = token
        sent = None if body is None else json.dumps(body).encode()
        wait = Timeout(connect=ANSWER_S, read=read_s)
        try:
            answer = self._pool.request(
                method, url, body=sent, headers=headers, timeout=wait, retries=False, preload_content=False
            )
            refused = answer.data if answer.status >= 300 else None
        except _http_errors() as error:
            self._noted(verb, kind.plural, 0)
            raise KubeError(0, "Unreachable", f"{self._configuration.host}: {type(error).__name__}") from None
        self._noted(verb, kind.plural, answer.status)
        if refused is not None:
            raise _refusal(answer.status, _document(refused))
        return answer

    def _bearer(self) -> str | None:
        """Newer clients name the token of a kubeconfig so."""
        found: str | None = self._configuration.get_api_key_with_prefix("BearerToken")
        return found


def _http_errors() -> tuple[type[BaseException], ...]:
    from urllib3.exceptions import HTTPError

    return (HTTPError, OSError, json.JSONDecodeError)


def _lines(answer: Any) -> Iterator[bytes]:
    left = b""
    for part in answer.stream(2**16, decode_content=True):
        *whole, left = (left + part).split(b"\n")
        yield from (line for line in whole if line)


def _document(body: bytes) -> Object:
    try:
        found = json.loads(body)
    except ValueError:
        return {"message": body[:200].decode(errors="replace")}
    return found if isinstance(found, dict) else {}


def _refusal(code: int, said: Object) -> KubeError:
    causes = (said.get("details") or {}).get("causes") or ()
    words = [" ".join(filter(None, (cause.get("field"), cause.get("message")))) for cause in causes]
    return KubeError(code, str(said.get("reason", "")), str(said.get("message", "")), words)
