"""schemathesis runs over all operations of the served schema, in all its phases, without a failure."""

import json
import subprocess
import sys

import pytest

from accounts.tests.factories import issue_key
from generations import lifecycle, openapi_examples
from generations.models import Generation
from generations.tests.factories import create_generation, funded_organization
from seedancee2.lib import clock, ids
from seedancee2.local import state
from seedancee2.local.state import ROOT
from tests import web
from tests.receivers import Receiver
from webhooks import openapi_examples as webhook_examples
from webhooks.tests.factories import DeliveryFactory

CASES_AT_LEAST = 2_000
CREATE = "POST /v1/videos/generations"


@pytest.mark.django_db(transaction=True)
def test_no_case_fails_and_no_operation_is_left_out(tmp_path, capsys, monkeypatch):
    organization = funded_organization(credits=1_000_000_000)
    key = issue_key(organization)
    with monkeypatch.context() as patch:
        patch.setattr(ids, "new", lambda prefix: openapi_examples.CREATED["data"]["id"])
        web.complete(create_generation(organization))
    lifecycle.start(public_ids=[create_generation(organization).public_id])
    failed = create_generation(organization)
    lifecycle.fail(public_id=failed.public_id, code=Generation.ErrorCode.GENERATION_FAILED)
    ended = {"organization": organization, "due_at": None, "finished_at": clock.now()}
    DeliveryFactory.create(state="abandoned", delivery_id=webhook_examples.PENDING["id"], **ended)
    DeliveryFactory.create(state="delivered", **ended)
    monkeypatch.setenv("OUTBOUND_ALLOWED_HOSTS", "127.0.0.1")
    with Receiver() as receiver, web.server(tmp_path / "web.log") as base_url:
        result = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", "tests/schemathesis.toml", "run"),
                *("--header", f"Authorization: Bearer {key}", "--report", "json", "--no-color"),
                *("--report-json-path", str(tmp_path / "report.json"), f"{base_url}/openapi.json"),
            ],
            cwd=ROOT,
            env=web.environment(base_url) | {"SCHEMATHESIS_RECEIVER": receiver.url("/hook")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    written = (tmp_path / "report.json").read_text()
    (state.ensure_var() / "schemathesis.json").write_text(written)
    report = json.loads(written)
    with capsys.disabled():
        print(f" [schemathesis: {report['test_cases']['generated']} cases]", end="")
    operations, cases = report["operations"], report["test_cases"]
    assert operations["total"] == operations["selected"] == operations["tested"] == 10
    assert (operations["errored"], operations["skipped"]) == (0, 0)
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(
        ["examples", "coverage", "fuzzing", "stateful"], "success"
    )
    assert (report["failures"], report["errors"], cases["errored"]) == ([], [], 0)
    assert cases["generated"] >= CASES_AT_LEAST
    # Good data must mostly be taken, or the rules that only we know would be all that was tested.
    taken = {name: _counted("accepted", phases) for name, phases in report["valid_rates"].items()}
    assert len(taken) == 10
    assert receiver.received("/hook")
    assert min(taken.values()) >= 40, taken  # the cases are the same in every run, until an operation changes
    assert taken[CREATE] > 10 * _counted("rejected", report["valid_rates"][CREATE])


def _counted(what, phases):
    return sum(phase[what] for phase in phases.values())
