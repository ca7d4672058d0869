"""What every deployment of ours knows of itself."""

from __future__ import annotations

from tuner.trial.launched import Launched


class Deployed:
    """The figures of ``tuner.trial.seams.Deployment`` that do not depend on how the layout was brought up."""

    def __init__(self, url: str, model_id: str, launched: Launched) -> None:
        self._url, self._model_id, self._launched = url, model_id, launched
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
    def launched(self) -> Launched:
        """What was launched, and on what."""
        return self._launched

    @property
    def ready_after_s(self) -> float:
        """Seconds from the order to the first healthy answers."""
        return self._ready_after_s
