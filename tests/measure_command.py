"""``parlay measure`` in this process."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from tuner.app.cli.commands import app

SHORT = ("--seconds", "0.4", "--warmup-seconds", "0", "--prompt-tokens", "16", "--output-tokens", "4")


def measure(*words):
    """Exit code, answer and error of the command."""
    done = CliRunner().invoke(app, ["measure", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def answer(*words):
    code, out, _ = measure(*words, *SHORT, "--json")
    return code, json.loads(out)
