"""What an OpenAI-compatible server refuses is left out and said; what it does not refuse is sent.

Servers that are not vLLM refuse ``ignore_eos`` (OpenAI: "Unrecognized request argument supplied"), or fail with it
(Harmony models: guidellm 979 and 982).
"""

from dataclasses import replace

import pytest

from serve.load.endpoint import Endpoint
from serve.load.request_fields import VLLM_FIELDS, Length
from serve.measure.first_answer import first_answer
from serve.measure.probe import EndpointFailed
from tests.mock_server import Behaviour, MockServer
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.sweep import Sweep

FREE = replace(VLLM_FIELDS, length=Length.FREE)
ORDER = Sweep(MeasureOptions("http://h", prompt_tokens="16", output_tokens="4"), ()).ask()


def refusing(*fields, words="Unrecognized request argument supplied: %s"):
    """Says that it refuses the first of the fields that a body holds."""

    def refuses(body):
        found = next((name for name in fields if name in body), None)
        return None if found is None else words.replace("%s", found)

    return refuses


def agreed(server, *, chat=False, ignore_eos=None):
    return first_answer(Endpoint(server.url, "tiny", chat=chat), ORDER, ignore_eos)


def test_what_is_taken_is_sent_and_nothing_is_said():
    with MockServer() as server:
        found = agreed(server)
        (served,) = server.served
    assert (found.endpoint.fields, found.fallbacks) == (VLLM_FIELDS, ())
    assert served.body["ignore_eos"] is True


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    ("refuses", "fields", "said"),
    [
        (refusing("ignore_eos"), replace(VLLM_FIELDS, length=Length.MIN_TOKENS), ["min_tokens"]),
        (refusing("ignore_eos", "min_tokens"), FREE, ["ignore_eos is not sent"]),
        (
            refusing("ignore_eos", "min_tokens", words="Extra inputs are not permitted"),
            FREE,
            ["ignore_eos is not sent"],
        ),
        (
            refusing(
                *("stream_options", "ignore_eos", "min_tokens"),
                words='[{"type":"extra_forbidden","loc":["body","%s"],"msg":"Extra inputs are not permitted"}]',
            ),
            replace(FREE, usage=False),
            ["ignore_eos is not sent", "stream_options is not sent"],
        ),
        (refusing("stream_options"), replace(VLLM_FIELDS, usage=False), ["may not count tokens"]),
        (
            refusing("max_tokens", words="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
            replace(VLLM_FIELDS, limit="max_completion_tokens"),
            ["max_completion_tokens is sent in place of max_tokens"],
        ),
        (
            refusing("temperature", words="'temperature' does not support 0 with this model."),
            replace(VLLM_FIELDS, temperature=False),
            ["temperature is not sent"],
        ),
        (
            refusing("ignore_eos", "min_tokens", "max_tokens", "temperature"),
            replace(FREE, limit="max_completion_tokens", temperature=False),
            ["ignore_eos", "max_completion_tokens", "temperature"],
        ),
        (
            refusing(
                *("ignore_eos", "min_tokens", "max_completion_tokens"),
                words="Unknown field %s. Allowed: model, prompt, max_tokens, stream, stream_options, temperature",
            ),
            FREE,
            ["ignore_eos is not sent"],
        ),
        (
            refusing("temperature", "max_tokens", words="Bad request"),
            replace(FREE, usage=False, temperature=False, limit="max_completion_tokens"),
            ["ignore_eos", "stream_options", "max_completion_tokens", "temperature"],
        ),
    ],
)
def test_what_is_refused_is_left_out_and_said(refuses, fields, said, chat):
    with MockServer(refuses=refuses) as server:
        found = agreed(server, chat=chat)
    assert found.endpoint.fields == fields
    assert len(found.fallbacks) == len(said)
    for words, line in zip(said, found.fallbacks, strict=True):
        assert words in line
        assert "with it: http_400" in line


def test_a_model_that_must_end_is_let_end():
    with MockServer(Behaviour.MUST_END) as server:
        found = agreed(server, chat=True)
    assert found.endpoint.fields == FREE
    (said,) = found.fallbacks
    assert "Unexpected token 200002" in said


def test_token_ids_that_are_refused_become_words():
    def refuses(body):
        wrong = "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string"
        return wrong if isinstance(body["prompt"], list) else None

    with MockServer(refuses=refuses) as server:
        found = agreed(server)
        (served,) = server.served
    assert found.endpoint.fields == replace(VLLM_FIELDS, token_ids=False)
    assert len(served.body["prompt"].split()) == 16
    assert "words in place of token ids" in found.fallbacks[0]


def test_a_prompt_that_is_too_long_is_not_sent_otherwise():
    words = '"type": "BadRequestError": the context length is 8 tokens, you requested 20 tokens (16 in your prompt)'
    with (
        MockServer(refuses=lambda body: words if isinstance(body["prompt"], list) else None) as server,
        pytest.raises(EndpointFailed, match="context length is 8 tokens"),
    ):
        agreed(server)


def test_what_must_be_sent_is_sent_whatever_happens():
    with (
        MockServer(refuses=refusing("ignore_eos")) as server,
        pytest.raises(EndpointFailed, match=r"Unrecognized .*--no-ignore-eos"),
    ):
        agreed(server, ignore_eos=True)


@pytest.mark.parametrize("status", [200, 400, 422, 500, 501])
def test_a_refusal_comes_with_one_status_or_another(status):
    with MockServer(refuses=refusing("ignore_eos", "min_tokens"), refusal_status=status) as server:
        assert agreed(server).endpoint.fields == FREE


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_what_is_no_refusal_of_a_field_is_asked_once(status):
    asked = []
    with (
        MockServer(refuses=lambda body: asked.append(body) or "no", refusal_status=status) as server,
        pytest.raises(EndpointFailed, match=f"http_{status}"),
    ):
        agreed(server)
    assert len(asked) == 1


def test_what_is_not_to_be_sent_is_not():
    with MockServer(refuses=refusing("ignore_eos", "min_tokens")) as server:
        found = agreed(server, ignore_eos=False)
    assert (found.endpoint.fields, found.fallbacks) == (FREE, ())


def test_a_server_that_failed_once_has_refused_nothing():
    with MockServer(lambda number: Behaviour.OK if number else Behaviour.HTTP_500) as server:
        found = agreed(server)
    assert (found.endpoint.fields, found.fallbacks) == (VLLM_FIELDS, ())


@pytest.mark.parametrize("behaviour", [Behaviour.HTTP_500, Behaviour.HTTP_429, Behaviour.ERROR_EVENT, Behaviour.EMPTY])
def test_what_fails_whatever_is_sent_is_told_as_it_failed_first(behaviour):
    with MockServer(behaviour) as server, pytest.raises(EndpointFailed, match="does not answer a first request"):
        agreed(server)
    assert len(server.served) <= 10
