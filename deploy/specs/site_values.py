"""What a site sets for the pods in the chart's values, and what it is where nobody sets it.

A layout says nothing of these. An emitted manifest has the defaults; the chart's ``values.yaml`` has the same ones, and
emitted values leave them out, so that those of a site stand.
"""

from __future__ import annotations

from typing import Any

SITE_DEFAULTS: dict[str, Any] = {
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [],
    "priorityClassName": "",
    "serviceAccountName": "",
    "podLabels": {},
    "podAnnotations": {},
    "extraEnv": [],
    "extraVolumes": [],
    "extraVolumeMounts": [],
    "tolerations": [],
    "runtimeClassName": "",
    "gpuTypes": {},
    "affinity": {},
    "topologySpread": {"topologyKey": "", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"},
    "rdma": {"resource": "", "count": 1, "hostNetwork": False},
}
