"""Sections of a device's profile: which tables of measured kernels can give, and which a relative lends."""

from __future__ import annotations

from tuner.ask.compressed_fits import OPTIONAL_SECTIONS
from tuner.ask.latent_fits import LATENT_SECTIONS
from tuner.ask.linear_fits import LINEAR

MEASURABLE = ("gemm", "attention_prefill", "attention_decode", "moe", "collectives")  # of all devices, for all models
TABLED = (*MEASURABLE, *OPTIONAL_SECTIONS, *LATENT_SECTIONS, LINEAR)
FITTED = (*TABLED, "elementwise", "engine")
