"""The walls of the house: which folder may import which, where the heavy libraries may be named, and whether the map of
CONTRIBUTING.md is true."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("tuner", "serve", "deploy")
SOURCES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

MIGRATIONS = {"tuner/study/migrations/__init__.py", *(name for name in NAMES if "/versions/schema_" in name)}

# library → the modules that may import it, at their top or in a function
ONE_ROOM = {
    "optuna": {"tuner/study/optuna_record.py"},
    "sqlalchemy": {
        "tuner/study/accounts.py",
        "tuner/study/archive.py",
        "tuner/study/archived.py",
        "tuner/study/audit.py",
        "tuner/study/database.py",
        "tuner/study/device_leases.py",
        "tuner/study/events.py",
        "tuner/study/forgetting.py",
        "tuner/study/kinship.py",
        "tuner/study/listing.py",
        "tuner/study/live.py",
        "tuner/study/logs.py",
        "tuner/study/looks.py",
        "tuner/study/orders.py",
        "tuner/study/quotas.py",
        "tuner/study/rollouts.py",
        "tuner/study/rounds.py",
        "tuner/study/same_engine.py",
        "tuner/study/schema.py",
        "tuner/study/spending.py",
        "tuner/study/statements.py",
        "tuner/study/store.py",
        "tuner/study/watched.py",
        "tuner/study/workers.py",
        *MIGRATIONS,
    },
    "alembic": {"tuner/study/migrations/env.py", *MIGRATIONS},
    "ray": {"serve/launch/ray_api.py"},
    "plotly": {"deploy/report/page.py", "tuner/app/service/page_routes.py"},
    "jwt": {"tuner/app/service/issuer.py", "tuner/app/service/provider_keys.py"},
    "httpx": {"tuner/app/client/transport.py"},
    "kubernetes": {"tuner/app/controller/client.py"},
    "urllib3": {"tuner/app/controller/client.py"},
    "scipy": set(),  # for fitting alone, which is not part of what is installed
}
HEAVY = {
    "ray", "vllm", "torch", "optuna", "sqlalchemy", "alembic", "plotly", "scipy", "transformers", "aiohttp",
    "fastapi", "uvicorn", "httpx", "jwt", "kubernetes",
}  # fmt: skip


def imports(path, top_only=False):
    """(module, names, line) of each import of a file; only those that run when the module is loaded if ``top_only``."""
    return [one for *one, later in every_import(path) if not (top_only and later)]


@cache
def every_import(path):
    """(module, names, line, does it run later, or for types alone) of each import of a file."""
    found, waiting = [], [(ast.parse(path.read_text(encoding="utf-8")), False)]
    while waiting:
        node, later = waiting.pop()
        if isinstance(node, ast.Import):
            found += [(alias.name, (), node.lineno, later) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module, named = "." * node.level + (node.module or ""), tuple((a.name, a.asname) for a in node.names)
            found.append((module, named, node.lineno, later))
        if isinstance(node, ast.expr):
            continue  # no statement is inside one
        later = later or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        later = later or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        waiting += [(child, later) for child in ast.iter_child_nodes(node)]
    return found


# The rooms, from the ground up. A room may import itself and the rooms before it, at the top of a file and inside its
# functions alike; ``tuner`` is what lies in that folder itself.
ROOMS = (
    "tuner",
    "tuner/ask/models",
    "tuner/ask",
    "tuner/stats",
    "tuner/trial",
    "tuner/cost",
    "tuner/simulate",
    "tuner/validate",
    "tuner/plan",
    "tuner/rehearse",
    "tuner/decide",
    "tuner/explain",
    "tuner/search",
    "tuner/retune",
    "tuner/study",
    "serve",
    "serve/launch",
    "serve/load",
    "serve/measure",
    "deploy",
    "deploy/specs",
    "deploy/report",
    "deploy/controller",
    "deploy/rollout",
    "tuner/app",
)
READERS = "tuner/ask/models/families/"  # a file for each family of models: its index names them, not the map
MODULES = [name for name in NAMES if not name.endswith("__init__.py") and not name.startswith(READERS)]
MAP = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@cache
def room_of(name):
    """The innermost room of a file or a dotted module."""
    path = name.replace(".", "/").removesuffix("/py")
    return max((room for room in ROOMS if f"{path}/".startswith(f"{room}/")), key=len)


def test_imports_go_down():
    """Of all files in one test, as of the others here: thousands of tests take longer to collect than to run."""
    up = [
        f"{name}:{line} imports {target}, which is further up"
        for name in NAMES
        for module, names, line in imports(ROOT / name)
        if module.partition(".")[0] in OURS
        for target in [f"{module}.{one}" for one, _ in names] or [module]
        if ROOMS.index(room_of(target)) > ROOMS.index(room_of(name))
    ]
    assert not up


def test_every_folder_is_a_room():
    assert {room_of(name) for name in NAMES} == set(ROOMS)


def row_of(room):
    """Its line in the map of CONTRIBUTING.md; the lowest room, which has none, is told in the text before the map."""
    return next((line for line in MAP.splitlines() if line.startswith(f"| `{room}/` |")), None)


def inside(name):
    """A module's name in the row of its room: the folders inside the room, and the file without its ending."""
    return name.removeprefix(f"{room_of(name)}/").removesuffix(".py")


def test_the_map_shows_the_rooms_in_their_order():
    listed = [line.split("|")[1].strip().strip("`").rstrip("/") for line in MAP.splitlines() if line.startswith("| `")]
    assert [room for room in listed if room in ROOMS] == [room for room in ROOMS if room != "tuner"]


def test_the_map_names_every_module():
    rows = {room: row_of(room) or MAP for room in ROOMS}
    missing = [name for name in MODULES if f"`{inside(name)}`" not in rows[room_of(name)]]
    assert not missing, "missing from the map of CONTRIBUTING.md"


@pytest.mark.parametrize("room", ROOMS[1:])
def test_the_map_names_no_module_that_is_gone_and_none_twice(room):
    named = re.findall(r"`([^`]+)`", row_of(room).split("|")[3])
    assert sorted(named) == sorted(inside(name) for name in MODULES if room_of(name) == room)


MOST_LINES, MEDIAN_LINES = 400, 150
LINES = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in MODULES}


def test_a_file_is_one_idea():
    long = {name: LINES[name] for name in MODULES if LINES[name] > MOST_LINES}
    assert not long, "look for the second idea in it"


def test_most_files_are_read_at_one_sitting():
    assert median(LINES.values()) <= MEDIAN_LINES


@pytest.mark.slow
def test_no_relative_imports():
    each = ((name, line, module) for name in NAMES for module, _, line in imports(ROOT / name))
    assert [f"{name}:{line}" for name, line, module in each if module.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.parametrize(("library", "rooms"), ONE_ROOM.items())
def test_a_library_stays_in_its_room(library, rooms):
    users = {name for name in NAMES for module, _, _ in imports(ROOT / name) if module.partition(".")[0] == library}
    assert users <= rooms
    assert users == {room for room in rooms if (ROOT / room).exists()}


def test_ray_is_named_inside_functions_and_its_serve_by_another_name():
    """Our own folder is called ``serve``."""
    for name in NAMES:
        above = imports(ROOT / name, top_only=True)
        assert not [line for module, _, line in above if module.partition(".")[0] == "ray"], name
        for module, names, line in imports(ROOT / name):
            if module == "ray":
                assert ("serve", None) not in names, f"{name}:{line}: from ray import serve as ray_serve"


def test_modules_form_floors():
    """No circle of imports: every module stands on others that do not stand on it."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
    }
    graph = {}
    for name, path in modules.items():
        targets = set()
        for module, names, _ in imports(path, top_only=True):
            targets |= {f"{module}.{one}" for one, _ in names if f"{module}.{one}" in modules} or {module}
        graph[name] = (targets & set(modules)) - {name}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


REQUEST = {
    "model": "meta-llama/Llama-3.1-8B",
    "cluster": {"gpu": "h100_sxm", "gpus_per_node": 2},
    "workload": {"prompt_tokens": 64, "output_tokens": 8, "arrival": {"requests_per_s": 1}},
    "slo": [{"metric": "ttft", "percentile": 99, "ms": 1000}],
}
LOADED = "import json, sys; sys.stderr.write(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "request.json", "--json"],
        ["plan", "request.json"],
        ["volume", "--model", "meta-llama/Llama-3.1-8B", "--tp", "2", "--pp", "2", "--json"],
    ],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(tmp_path, arguments):
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    code = f"""
import sys
from tuner.app.cli.commands import main
sys.argv = ["parlay", *{arguments!r}]
try:
    main()
finally:
    {LOADED}
"""
    environment = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "tuner" in loaded
    assert not HEAVY & loaded
