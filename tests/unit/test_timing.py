"""Timing never decides a test, on however slow a machine it runs."""

from hypothesis import HealthCheck, settings


def test_no_property_has_a_deadline():
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check
