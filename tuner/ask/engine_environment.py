"""Which environment variables a request may give to an engine's processes: vLLM's own, NCCL's and a few more; none that
loads code, opens files or ports, places ranks or holds a secret."""

from __future__ import annotations

import re

from tuner.ask.engine_arguments import Release, near, plain_name
from tuner.errors import BadInput

CODE = "nothing that loads code: what is measured must be vLLM's own"
FILES = "nothing that opens files of the machine"
PORTS = "nothing that opens ports or connections: the launcher says where an engine listens"
SECRETS = "no secrets: a Kubernetes Secret or the environment of the launcher holds them"
PLACES = "nothing that places ranks: layout and launcher do"
LONGEST_VALUE = 4096  # characters
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_OWN_VARIABLES = ("VLLM_PLUGINS", "VLLM_NO_USAGE_STATS", "VLLM_USE_V1")
_PLACE_VARIABLES = re.compile(
    r"(CUDA|NVIDIA|HIP|ROCR)_VISIBLE_DEVICES|LOCAL_RANK|RANK|WORLD_SIZE|VLLM_(.*_)?(HOST|PORT|IP|IPS)"
)
_SECRET_VARIABLES = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|KEY|KEY_ID|CREDENTIALS?)$")
_CODE_VARIABLES = re.compile(
    r"LD_.*|PYTHON.*|PATH|BASH_ENV|ENV|.*_PLUGINS?|.*_SO_PATH|.*INSECURE.*|VLLM_SERVER_DEV_MODE|VLLM_ALLOW_RUNTIME_.*"
    r"|VLLM_MEDIA_CONNECTOR|VLLM_RUST_FRONTEND_PATH"
)
_FILE_VARIABLES = re.compile(r".*_(PATH|DIR|ROOT|FILE|URL|CACHE)|NCCL_CONF_FILE|HOME|CUDA_HOME|TMPDIR")
_OTHERS = (
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "CUDA_DEVICE_MAX_CONNECTIONS", "OMP_NUM_THREADS",
    "HF_HUB_ENABLE_HF_TRANSFER", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_XET_HIGH_PERFORMANCE", "GLOO_SOCKET_IFNAME",
)  # fmt: skip
_REFUSED = (
    (_CODE_VARIABLES, CODE),
    (_PLACE_VARIABLES, PLACES),
    (_FILE_VARIABLES, FILES),
)


def holds_secret(name: str) -> bool:
    """Whether a name, of a variable or an argument, stands for a secret."""
    return _SECRET_VARIABLES.search(plain_name(name).upper()) is not None


def require_variable(known: Release, name: str, text: str, where: str, version: str) -> None:
    """Raise BadInput for a variable that a request may not set; a secret is not shown."""
    if holds_secret(name):
        raise BadInput(where, "…", SECRETS)
    if not _VARIABLE.fullmatch(name):
        raise BadInput(where, text, "names of capital letters, digits and underscores")
    for names, why in _REFUSED:
        if names.fullmatch(name):
            raise BadInput(where, text, why)
    if name in _OWN_VARIABLES:
        raise BadInput(where, text, "a variable that Parlay does not set itself")
    vllms = {one for one in known.environment if one.startswith("VLLM_")}
    if not (name in vllms or name.startswith("NCCL_") or name in _OTHERS):
        allowed = near(name, [*vllms, *_OTHERS], "variable", version)
        raise BadInput(where, text, f"{allowed}; beside them NCCL_…, {', '.join(_OTHERS)}")
    if not text.isprintable() or len(text) > LONGEST_VALUE:
        raise BadInput(where, text, f"a printable text of at most {LONGEST_VALUE} characters")
