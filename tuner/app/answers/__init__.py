"""The machine-readable answers (``--json``), a file per command: typed models whose keys are stable.

New keys may be added. What does not exist is null, never 0; a key that is left out where it does not apply says so.
"""
