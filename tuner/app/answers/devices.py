"""What answers say of devices, and of kernels on them, that were never measured."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.ask.request import TuneRequest
from tuner.cost.stands_on import measured_of_all


class OnDevices(Answer):
    """Whether the devices of a request were measured."""

    device_measured: bool | None = Field(
        description="Whether all prices of the devices stand on measurements of them; null: that is not known."
    )
    device_notes: list[str] = Field(description="What was not measured of them, and what else to know, in sentences.")


def on_devices(request: TuneRequest) -> OnDevices:
    """Of the devices that a request names."""
    found = measured_of_all(request)
    return OnDevices(device_measured=found.all, device_notes=list(found.notes))
