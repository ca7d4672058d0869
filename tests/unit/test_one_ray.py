"""A process has one Ray: shared on one cluster, refused otherwise, and left to the last who uses it."""

import pytest

from serve.launch.one_ray import OneRay
from tuner.errors import BadInput


def join(ray, address):
    with ray.joining(address) as connects:
        return connects


def test_launchers_on_one_cluster_share_it_and_the_last_disconnects():
    ray, gone = OneRay(), []
    assert join(ray, "head:6379")
    assert not join(ray, "head:6379")
    ray.leave(lambda: gone.append("first"))
    assert not gone
    assert ray.used
    ray.leave(lambda: gone.append("second"))
    assert gone == ["second"]
    assert not ray.used
    assert join(ray, "other:6379")


@pytest.mark.parametrize(
    ("used", "given", "words"),
    [
        ("head:6379", "other:6379", "uses the cluster at head:6379"),
        ("head:6379", None, "uses the cluster at head:6379"),
        (None, "head:6379", "uses a Ray of another study's own"),
        (None, None, "uses a Ray of another study's own"),
    ],
)
def test_another_one_is_refused_and_takes_nothing_from_the_first(used, given, words):
    ray = OneRay()
    join(ray, used)
    with pytest.raises(BadInput, match=words):
        join(ray, given)
    gone = []
    ray.leave(lambda: gone.append("first"))
    assert gone == ["first"]


def test_a_start_that_fails_is_still_to_be_left():
    ray = OneRay()
    with pytest.raises(ZeroDivisionError), ray.joining(None):
        raise ZeroDivisionError
    assert ray.used
    ray.leave(lambda: None)
    assert not ray.used
