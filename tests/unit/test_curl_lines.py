"""What README and the service's page tell a pipeline to type is typed, against a real ``parlay serve``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.curl_lines import README, SERVICE, curl_lines, run_line, serving

REQUEST = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)[0])


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, SERVICE], ids=lambda page: page.name)
def test_the_lines_of_a_page_lead_to_a_decision(page: Path, tmp_path: Path) -> None:
    ask, follow, decision, spec = curl_lines(page)
    asked = {"name": "llama", "request": REQUEST | {"budget": {"launches": 1, "minutes": 60}}}
    (tmp_path / "study.json").write_text(json.dumps(asked))
    with serving(tmp_path, "--launchers", "simulated") as (url, token):
        assert run_line(ask, tmp_path, url, "of somebody else").returncode == 22  # as curl tells an error of HTTP
        assert json.loads(run_line(ask, tmp_path, url, token).stdout)["state"] == "queued"
        again = run_line(ask, tmp_path, url, token)
        assert again.returncode == (0 if "Idempotency-Key" in ask else 22)
        events = run_line(follow, tmp_path, url, token)
        assert events.returncode == 0, events
        assert events.stdout.rstrip().endswith('data: {"state": "decided"}')
        decided = json.loads(run_line(decision, tmp_path, url, token).stdout)
        assert decided["winner"]["layout"] in decided["why"]
        refused = run_line(spec.replace("-sf", "-s"), tmp_path, url, token)
        assert "was simulated" in json.loads(refused.stdout)["detail"]  # on a real cluster: tests/real
