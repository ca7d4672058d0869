"""Read the arguments, environment variables and model types that a release of vLLM knows from its sources.

    python -m tests.fit.vllm_arguments --sources DIR --release 0.29 [--out FILE]

DIR holds the package ``vllm`` of one release (of its source archive). Nothing of it is imported or run: its files are
parsed. What comes out, ``tuner/ask/engine_args/vllm_RELEASE.yaml``, has every argument of ``EngineArgs`` and
``AsyncEngineArgs`` that the server's parser takes, those of the server itself apart (``server``: the HTTP server, which
Ray Serve replaces; ``front``: what answers requests), each with its type as ``tuner.ask.engine_arguments`` reads it:

    bool, int, float, str            one of these; "|" joins several
    choice a b c                     one of these words
    list X                           a list of X
    map, or map a b c                a mapping, or one with these keys
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

ENGINE = ("EngineArgs", "AsyncEngineArgs")
PLAIN = {"bool": "bool", "int": "int", "float": "float", "str": "str", "dict": "map", "Any": "map"}
# Plain mappings and texts to EngineArgs, which become a configuration, or a field of one, afterwards.
BECOMES = {"speculative_config": ("SpeculativeConfig", None), "spec_method": ("SpeculativeConfig", "method")}
LISTS = ("list", "set", "List", "Sequence")


class Sources:
    """All modules of a release, parsed, with the classes and aliases that they define."""

    def __init__(self, package: Path) -> None:
        wanted = ("config", "engine", "entrypoints", "v1/attention/backends", "model_executor/layers/quantization")
        paths = [path for folder in wanted for path in (package / folder).rglob("*.py")]
        self.classes: dict[str, ast.ClassDef] = {}
        self.aliases: dict[str, ast.expr] = {}
        for path in sorted(paths):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    self.classes.setdefault(node.name, node)
                elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self.aliases.setdefault(node.targets[0].id, node.value)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                    self.aliases.setdefault(node.target.id, node.value)

    def fields(self, name: str) -> Iterator[tuple[str, ast.AnnAssign]]:
        """Names and declarations of a class's public fields."""
        for node in self.classes[name].body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            made = node.value is not None and "init=False" in ast.unparse(node.value)  # by the class itself
            inner = any(word in ast.unparse(node.annotation) for word in ("ClassVar", "SkipValidation"))
            if not (node.target.id.startswith("_") or made or inner):
                yield node.target.id, node

    def types(self, name: str, field: ast.AnnAssign) -> list[str]:
        """Types of an argument: its own, or those of the configuration's field from which it has its default and which
        lists words where the argument takes any text."""
        own = self.kinds(field.annotation)
        owner, key = BECOMES.get(name) or _default_of(field.value)
        if owner not in self.classes or (name not in BECOMES and "str" not in own):
            return own
        if key is None:
            return self.kinds(ast.Name(owner))
        declared = dict(self.fields(owner)).get(key)
        kinds = [] if declared is None else self.kinds(declared.annotation)
        return kinds if any(kind.startswith("choice ") for kind in kinds) else own

    def flags(self) -> set[str]:
        """Engine arguments that the parser takes."""
        words = (node for name in ENGINE for node in ast.walk(self.classes[name]))
        return {
            node.value[2:].replace("-", "_")
            for node in words
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--")
        }

    def kinds(self, node: ast.expr) -> list[str]:
        """The types that an annotation allows, in our words; none for what no document can say (code, tensors)."""
        if isinstance(node, ast.Constant):
            return [] if node.value is None else self.kinds(ast.parse(str(node.value), mode="eval").body)
        if isinstance(node, ast.BinOp):
            return _joined([*self.kinds(node.left), *self.kinds(node.right)])
        if isinstance(node, ast.Subscript):
            return self._generic(node)
        if isinstance(node, ast.Attribute):
            return []
        assert isinstance(node, ast.Name), ast.dump(node)
        if node.id in PLAIN:
            return [PLAIN[node.id]]
        if node.id in self.classes:
            return self._class(node.id)
        return self.kinds(self.aliases[node.id]) if node.id in self.aliases else []

    def _generic(self, node: ast.Subscript) -> list[str]:
        outer = ast.unparse(node.value)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            return _joined(_choice(part, self) for part in parts)
        if outer in ("Union", "Optional"):
            return _joined(kind for part in parts for kind in self.kinds(part))
        if outer in LISTS:
            inner = self.kinds(parts[0])
            return [f"list {inner[0]}"] if inner else []
        return ["map"] if outer in ("dict", "Dict", "Mapping") else []

    def _class(self, name: str) -> list[str]:
        bases = {ast.unparse(base) for base in self.classes[name].bases}
        if any("Enum" in base for base in bases):
            members = (node for node in self.classes[name].body if isinstance(node, ast.Assign))
            names = [node.targets[0].id for node in members if isinstance(node.targets[0], ast.Name)]
            return ["int"] if "IntEnum" in bases else ["choice " + " ".join(names)]
        keys = [key for key, _ in self.fields(name)]
        return ["map " + " ".join(keys) if keys else "map"]


def _default_of(value: ast.expr | None) -> tuple[str, str | None]:
    """The configuration and field that a default is taken from: ``Config.field`` or ``get_field(Config, "field")``."""
    if isinstance(value, ast.Attribute):
        return ast.unparse(value.value), value.attr
    if (
        isinstance(value, ast.Call)
        and ast.unparse(value.func) == "get_field"
        and isinstance(value.args[1], ast.Constant)
    ):
        return ast.unparse(value.args[0]), str(value.args[1].value)
    return "", None


def _choice(node: ast.expr, sources: Sources) -> str:
    if isinstance(node, ast.Constant):
        return f"choice {node.value}" if isinstance(node.value, str) else type(node.value).__name__
    found = sources.kinds(node)
    return found[0] if found else "str"


def _joined(kinds: Iterable[str]) -> list[str]:
    """Each kind once, choices together."""
    found = list(dict.fromkeys(kinds))
    words = [word for kind in found if kind.startswith("choice ") for word in kind.split()[1:]]
    rest = [kind for kind in found if not kind.startswith("choice ") and kind != "NoneType"]
    if any(kind.startswith("map ") for kind in rest):
        rest = [kind for kind in rest if kind != "map"]
    return ([f"choice {' '.join(dict.fromkeys(words))}"] if words else []) + rest


def arguments(sources: Sources, names: Iterable[str], taken: set[str] | None = None) -> dict[str, str]:
    """Arguments of some classes by name, with their types."""
    found = {}
    for name in names:
        for key, field in sources.fields(name):
            if taken is None or key in taken:
                found[key] = " | ".join(sources.types(key, field)) or "str"
    return dict(sorted(found.items()))


def environment(package: Path) -> list[str]:
    """Variables of ``vllm/envs.py``."""
    tree = ast.parse((package / "envs.py").read_text(encoding="utf-8"))
    dicts = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    largest = max(dicts, key=lambda node: len(node.keys))
    return sorted(key.value for key in largest.keys if isinstance(key, ast.Constant))


def model_types(package: Path) -> list[str]:
    """Types of models whose config class vLLM brings itself."""
    tree = ast.parse((package / "transformers_utils" / "config.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_CONFIG_REGISTRY":
            assert isinstance(node.value, ast.Call)
            named = [word.arg for word in node.value.keywords if word.arg]
            rest = [word.value for word in node.value.keywords if not word.arg]
            quoted = [key.value for part in rest if isinstance(part, ast.Dict) for key in part.keys if key]
            return sorted([*named, *quoted])
    raise SystemExit("no registry of config classes found")


def read_release(package: Path) -> dict[str, object]:
    """All that the data file says."""
    sources = Sources(package)
    return {
        "engine": arguments(sources, ENGINE, sources.flags()),
        "front": arguments(sources, ["BaseFrontendArgs"]),
        "server": arguments(sources, ["FrontendArgs"]),
        "environment": environment(package),
        "model_types": model_types(package),
    }


def main() -> None:
    """Write the data file of one release."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, help="the folder that holds the package vllm")
    parser.add_argument("--release", required=True, help="such as 0.29")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = Path(__file__).parents[2] / "tuner" / "ask" / "engine_args"
    out = options.out or data / f"vllm_{options.release}.yaml"
    head = f"# Arguments of vLLM {options.release}, read from its sources by tests/fit/vllm_arguments.py.\n"
    out.write_text(head + yaml.safe_dump(read_release(options.sources / "vllm"), sort_keys=False, width=10_000))


if __name__ == "__main__":
    main()
