"""Hypothesis draws the same examples in every CI run, so that a run judges its own change; elsewhere it searches on."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
