"""Time of a collective: textbook algorithms, NCCL's tuning model, vLLM's dispatch, and fits of what was measured."""

from tuner.cost.collectives.choices import CollectiveReport, collective_report, predict_collective_rows
from tuner.cost.collectives.cost import OPERATIONS, Cost
from tuner.cost.collectives.pricing import CollectiveModel, Estimate
from tuner.cost.collectives.topology import CommGroup, Fabric, known_fabrics, load_fabric

__all__ = [
    "OPERATIONS",
    "CollectiveModel",
    "CollectiveReport",
    "CommGroup",
    "Cost",
    "Estimate",
    "Fabric",
    "collective_report",
    "known_fabrics",
    "load_fabric",
    "predict_collective_rows",
]
