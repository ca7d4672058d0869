"""What a request may say; and for what it may not, one error with the place, what was given and what is allowed."""

import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fakes import document, make_request
from tuner.ask.request import ClusterSpec, Metric, Objective, SloTarget, TuneRequest
from tuner.ask.request_document import load_request, parse_request
from tuner.errors import BadInput

EXAMPLE = """
model: meta-llama/Llama-3.1-70B        # a name we know, a directory with config.json, or a Hugging Face id
cluster:                                # or `cluster: ray` to discover it from the running Ray cluster
  gpu: h100_sxm
  nodes: 2
  gpus_per_node: 8
  inter_node_gb_per_s: 50               # per GPU and direction; the profile's default when left out
workload:
  prompt_tokens: {mean: 1024}
  output_tokens: {mean: 128}
  arrival: {process: poisson, requests_per_s: 8}
  shared_prefix_tokens: 0
slo:
  - {metric: ttft, percentile: 99, ms: 500}
  - {metric: tpot, percentile: 99, ms: 30}
objective: min_gpus
space: dense
budget: {launches: 6, minutes: 60}
"""


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_the_documented_request_loads(tmp_path, suffix):
    path = tmp_path / f"request{suffix}"
    path.write_text(json.dumps(yaml.safe_load(EXAMPLE)) if suffix == ".json" else EXAMPLE)
    request = load_request(path)
    assert request.model == "meta-llama/Llama-3.1-70B"
    assert request.cluster == ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8, inter_node_gb_per_s=50)
    assert request.workload.prompt_tokens.bounds == (1024, 1024)
    assert [str(target) for target in request.slo] == ["ttft p99 ≤ 500 ms", "tpot p99 ≤ 30 ms"]
    assert request.objective is Objective.MIN_GPUS
    assert request.max_model_len == 1024 + 128


@pytest.mark.parametrize(
    ("changes", "read", "expected"),
    [
        ({"cluster": "ray"}, lambda r: r.cluster, "ray"),
        ({"workload.prompt_tokens": 64}, lambda r: r.workload.prompt_tokens.bounds, (64, 64)),
        ({"workload.prompt_tokens": {"mean": 100, "min": 50, "max": 150}}, lambda r: r.max_model_len, 150 + 16),
        ({"engine.max_model_len": 4096}, lambda r: r.max_model_len, 4096),
        ({}, lambda r: r.rates_req_per_s, (4.0, 8.0)),
        ({"objective": "max_goodput"}, lambda r: r.rates_req_per_s, (4.0, 8.0, 12.0, 16.0)),
        ({"load.rates_req_per_s": [1, 2.5]}, lambda r: r.rates_req_per_s, (1.0, 2.5)),
        ({"space": {"tp": [1, 2]}}, lambda r: r.space, {"tp": [1, 2]}),
        ({"slo.0.metric": "e2e"}, lambda r: r.slo[0].metric, Metric.E2E),
    ],
)
def test_what_a_request_may_say(changes, read, expected):
    assert read(make_request(changes)) == expected


NOTHING = "nothing"
REFUSED = [
    # path of the change, value, place named, given shown (None: the value), part of what is allowed
    ("bugdet", {"launches": 3}, "bugdet", None, "one of the known keys: model, cluster, workload, slo"),
    ("cluster.gpus", 8, "cluster.gpus", None, "gpu, nodes, gpus_per_node, inter_node_gb_per_s"),
    ("workload.rate", 8, "workload.rate", None, "prompt_tokens, output_tokens, arrival, shared_prefix_tokens"),
    ("workload.arrival.rps", 8, "workload.arrival.rps", None, "process, requests_per_s"),
    ("workload.prompt_tokens.median", 8, "workload.prompt_tokens.median", None, "mean, min, max"),
    ("slo.0.unit", "s", "slo.0.unit", None, "metric, percentile, ms"),
    ("engine.flags", "--x", "engine.flags", None, "dtype, max_model_len"),
    ("load.rate", 3, "load.rate", None, "rates_req_per_s, seconds"),
    ("budget.hours", 3, "budget.hours", None, "launches, minutes"),
    ("slo.0.ms", 0, "slo.0.ms", None, "greater than 0"),
    ("slo.0.ms", -5, "slo.0.ms", None, "greater than 0"),
    ("slo.0.ms", "500ms", "slo.0.ms", None, "a valid number"),
    ("slo.0.ms", "500", "slo.0.ms", None, "a valid number"),
    ("slo.0.ms", float("inf"), "slo.0.ms", None, "a finite number"),
    ("slo.1.percentile", 101, "slo.1.percentile", None, "less than or equal to 100"),
    ("slo.1.percentile", 0, "slo.1.percentile", None, "greater than 0"),
    ("slo.0.metric", "latency", "slo.0.metric", None, "'ttft', 'tpot', 'itl' or 'e2e'"),
    ("slo", [], "slo", None, "at least one entry"),
    ("slo", {"ttft": 500}, "slo", None, "a list"),
    ("slo", [500], "slo.0", 500, "a mapping with the keys metric, percentile, ms"),
    ("slo", [{"metric": "ttft", "ms": 5}], "slo.0.percentile", NOTHING, "required"),
    ("model", 70, "model", None, "a valid string"),
    ("model", "", "model", None, "not empty"),
    ("cluster", "slurm", "cluster", None, "ray, a mapping with the keys gpu, nodes, gpus_per_node"),
    ("cluster", 16, "cluster", None, "ray, a mapping with the keys gpu, nodes, gpus_per_node"),
    ("cluster", {"gpu": "h100_sxm"}, "cluster.gpus_per_node", NOTHING, "required"),
    ("cluster.nodes", 0, "cluster.nodes", None, "greater than or equal to 1"),
    ("cluster.nodes", True, "cluster.nodes", None, "a valid integer"),
    ("cluster.nodes", "2", "cluster.nodes", None, "a valid integer"),
    ("cluster.nodes", 1.5, "cluster.nodes", None, "a valid integer"),
    ("workload", None, "workload", None, "a mapping with the keys prompt_tokens"),
    ("workload.prompt_tokens", "long", "workload.prompt_tokens", None, "a mapping with the keys mean, min, max"),
    ("workload.prompt_tokens", 0, "workload.prompt_tokens.mean", None, "greater than or equal to 1"),
    ("workload.prompt_tokens", {"mean": 9, "min": 2}, "workload.prompt_tokens", None, "min and max together"),
    ("workload.prompt_tokens", {"mean": 9, "min": 10, "max": 20}, "workload.prompt_tokens", None, "min ≤ mean ≤ max"),
    ("workload.prompt_tokens", {"mean": 9, "min": 2, "max": 20}, "workload.prompt_tokens", None, "midway"),
    ("workload.arrival.process", "bursty", "workload.arrival.process", None, "'poisson'"),
    ("workload.arrival.requests_per_s", 0, "workload.arrival.requests_per_s", None, "greater than 0"),
    ("objective", "cheap", "objective", None, "min_gpus, max_goodput, min_latency, min_cost, or a list"),
    ("space", 3, "space", None, "the name of a search space, or a mapping of axes"),
    ("space", ["dense"], "space", None, "the name of a search space, or a mapping of axes"),
    ("engine.dtype", "int3", "engine.dtype", None, "'bfloat16'"),
    ("engine.gpu_memory_utilization", 1.1, "engine.gpu_memory_utilization", None, "less than or equal to 1"),
    ("load.rates_req_per_s", [2, 1], "load.rates_req_per_s", None, "rising"),
    ("load.rates_req_per_s", [1, 1], "load.rates_req_per_s", None, "rising"),
    ("load.rates_req_per_s", [], "load.rates_req_per_s", None, "rising"),
    ("load.warmup_seconds", -1, "load.warmup_seconds", None, "greater than or equal to 0"),
    ("budget.launches", 0, "budget.launches", None, "greater than or equal to 1"),
    ("budget.minutes", 0, "budget.minutes", None, "greater than 0"),
]


@pytest.mark.parametrize(("path", "value", "place", "given", "allowed"), REFUSED)
def test_one_error_names_place_given_and_allowed(path, value, place, given, allowed):
    with pytest.raises(BadInput) as caught:
        parse_request(document({path: value}), "request.yaml")
    assert caught.value.where == f"request.yaml: {place}"
    assert caught.value.given == (value if given is None else given)
    assert allowed in caught.value.allowed
    assert "more)" not in caught.value.allowed
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_prefix_is_shorter_than_every_prompt():
    with pytest.raises(BadInput, match="shared_prefix_tokens shorter than the shortest prompt"):
        make_request({"workload.shared_prefix_tokens": 128})
    assert make_request({"workload.shared_prefix_tokens": 127}).workload.shared_prefix_tokens == 127


@pytest.mark.parametrize(
    ("changes", "suffix"),
    [
        ({"slo.0.ms": 0, "slo.1.ms": 0}, "(and 1 more)"),
        ({"slo.0.ms": 0, "cluster.nodes": 0, "bad": 1}, "(and 2 more)"),
        ({"cluster.nodes": 0, "cluster.gpus": 1}, "(and 1 more)"),
    ],
)
def test_further_mistakes_are_counted(changes, suffix):
    with pytest.raises(BadInput) as caught:
        parse_request(document(changes))
    assert caught.value.allowed.endswith(suffix)


@pytest.mark.parametrize("given", [None, [], "request", 3, ["model"]])
def test_a_document_that_is_no_mapping_is_refused(given):
    with pytest.raises(BadInput, match="a mapping with the keys model, cluster"):
        parse_request(given)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.yaml", b"- model\n- slo\n", "a mapping with the keys"),
        ("empty.yaml", b"", "a mapping with the keys"),
        ("broken.yaml", b"model: [", "well-formed YAML or JSON"),
        ("broken.json", b"{", "well-formed YAML or JSON"),
        ("binary.yaml", b"\xff\xfe\x00", "a readable YAML or JSON file"),
        ("tagged.yaml", b"model: !!python/object/apply:os.system ['true']", "well-formed YAML or JSON"),
    ],
)
def test_a_file_that_is_no_request_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        load_request(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(BadInput, match="a readable YAML or JSON file"):
            load_request(path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = ["model", "cluster", "cluster.gpu", "workload", "workload.prompt_tokens", "slo", "slo.0", "slo.0.ms", "space"]
PATHS += ["objective", "engine", "engine.dtype", "load", "load.rates_req_per_s", "budget", "anything"]


@pytest.mark.slow
@given(path=st.sampled_from(PATHS), value=JSON_VALUES)
@example(path="objective", value=[])
@example(path="objective", value=["min_gpus", []])
@example(path="objective", value=["min_gpus", "min_gpus"])
@example(path="second_objective", value="min_gpus")
def test_any_value_anywhere_is_taken_or_refused_in_one_line(path, value):
    try:
        request = parse_request(document({path: value}))
    except BadInput as error:
        refused_at = error.where
    else:
        refused_at = None
        assert request == type(request).model_validate_json(request.model_dump_json())
    assert refused_at is None or refused_at.startswith(f"request: {path}")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("ttft:p99:500", (Metric.TTFT, 99, 500)),
        ("tpot:p99.9:30.5", (Metric.TPOT, 99.9, 30.5)),
        (" E2E:P50:2000ms ", (Metric.E2E, 50, 2000)),
    ],
)
def test_a_target_can_be_written_in_one_word(text, target):
    found = SloTarget.parse(text)
    assert (found.metric, found.percentile, found.ms) == target


@pytest.mark.parametrize(
    "text",
    ["", "ttft", "ttft:99:500", "ttft:p0:5", "ttft:p101:5", "ttft:p99:0", "ttft:p99:-1", "x:p99:1", "itl:p9.9.9:1"],
)
def test_another_word_is_no_target(text):
    with pytest.raises(BadInput, match="ttft:p99:500"):
        SloTarget.parse(text)


@pytest.mark.parametrize(
    ("given", "first", "second"),
    [
        ("min_cost", "min_cost", None),
        (["min_cost"], "min_cost", None),
        (["min_cost", "max_goodput"], "min_cost", "max_goodput"),
    ],
)
def test_an_objective_or_two(given, first, second):
    request = make_request({"objective": given})
    assert (request.objective, request.second_objective) == (first, second)
    assert request.objectives == ((first, second) if second else (first,))
    assert TuneRequest.model_validate_json(request.model_dump_json()) == request
    beyond = max(request.rates_req_per_s) > request.workload.arrival.requests_per_s
    assert beyond is (second == "max_goodput")  # goodput is only seen at rates beyond the asked one


@pytest.mark.parametrize("given", [[], ["min_cost", "min_cost"], ["min_cost", "min_gpus", "max_goodput"], ["fastest"]])
def test_objectives_that_are_refused(given):
    with pytest.raises(BadInput):
        make_request({"objective": given})


@pytest.mark.parametrize("share", [0, 1, 1.5, "0.99", True])
def test_an_attainment_is_a_share(share):
    with pytest.raises(BadInput, match="attainment"):
        make_request({"attainment": share})
