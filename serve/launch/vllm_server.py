"""How vLLM's own server is started in this Python: by one process that answers, or as many as are asked for."""

from __future__ import annotations

from collections.abc import Sequence

MODULE = "vllm.entrypoints.openai.api_server"  # one process, whatever ``--api-server-count`` says
COUNT = "--api-server-count"

# What ``vllm serve`` runs. Its script asks for the version of a distribution called vllm, which builds for other
# devices are not; and ``-m`` has no module of it.
SERVE = (
    "from vllm.entrypoints.cli.serve import ServeSubcommand as Serve; "
    "from vllm.utils.argparse_utils import FlexibleArgumentParser as Parser; "
    "serve = Serve(); "
    "args = serve.subparser_init(Parser().add_subparsers()).parse_args(); "
    "serve.validate(args); "
    "serve.cmd(args)"
)
SPAWN = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}  # as vLLM's script sets it


def several(arguments: Sequence[str]) -> bool:
    """True where more than one process is to speak HTTP."""
    return COUNT in arguments and int(arguments[arguments.index(COUNT) + 1]) > 1


def python_words(arguments: Sequence[str]) -> list[str]:
    """What follows a Python's name to start the server with ``arguments``."""
    return ["-c", SERVE, *arguments] if several(arguments) else ["-m", MODULE, *arguments]
