"""The page: static files, the style of the report, and the plotly.js of plotly's wheel; nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib import resources

from fastapi import APIRouter, Response

from tuner.app.service.problems import Refused

routes = APIRouter(include_in_schema=False)

# The browser runs our scripts alone and talks to us alone. Plotly sets styles on what it draws.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOLDER = resources.files("tuner.app.service") / "page"
_FILES = frozenset(file.name for file in _FOLDER.iterdir() if file.name != "index.html")


@routes.get("/")
def index() -> Response:
    """The page; what it shows is behind the ``#``."""
    return _file("index.html", {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"})


@routes.get("/assets/{name}")
def asset(name: str) -> Response:
    """One of its files."""
    if name == "plotly.js":
        return Response(_plotly(), media_type=_TYPES["js"], headers={"Cache-Control": "public, max-age=86400"})
    if name == "report.css":
        text = resources.files("deploy.report").joinpath(name).read_bytes()
        return Response(text, media_type=_TYPES["css"], headers={"Cache-Control": "no-cache"})
    if name not in _FILES:
        raise Refused(HTTPStatus.NOT_FOUND, "there is no such file")
    return _file(name, {"Cache-Control": "no-cache"})


def _file(name: str, headers: dict[str, str]) -> Response:
    text = _FOLDER.joinpath(name).read_bytes()
    return Response(text, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


@cache
def _plotly() -> bytes:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()
