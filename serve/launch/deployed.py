"""What every deployment of ours knows of itself."""

from __future__ import annotations


class Deployed:
    """The figures of ``tuner.trial.trial.Deployment`` that do not depend on how the layout was brought up."""

    def __init__(self, url: str, model_id: str) -> None:
        self._url, self._model_id = url, model_id
        self._ready_after_s = 0.0
        self._down = False

    @property
    def url(self) -> str:
        """Base URL, without ``/v1``."""
        return self._url

    @property
    def model_id(self) -> str:
        """The model name that requests must carry."""
        return self._model_id

    @property
    def ready_after_s(self) -> float:
        """Seconds from the order to the first healthy answers."""
        return self._ready_after_s
