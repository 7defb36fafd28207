"""GET /v1/models."""

import json
import time

from generations import catalog
from generations.models import ModelAlias, PublicModel
from generations.tests.callers import Caller, golden


def test_models_are_listed_as_on_the_page(customer: Caller) -> None:
    ModelAlias.objects.create(alias="seedance-lite", model_id="mini")

    response = customer.get("/v1/models")

    assert response.status_code == 200
    assert response.content.decode() == json.dumps(golden("models"), separators=(",", ":"))
    assert customer.get("/v1/models/").content == response.content


def test_inactive_models_are_not_listed(customer: Caller) -> None:
    PublicModel.objects.filter(name="fast").update(is_active=False)

    assert [row["id"] for row in customer.get("/v1/models").json()["data"]] == ["pro", "mini"]


def test_a_model_that_was_switched_off_is_not_found_a_second_later(db, monkeypatch, django_assert_num_queries) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert catalog.find("mini") == PublicModel.objects.get(name="mini")
    PublicModel.objects.filter(name="mini").update(is_active=False)
    with django_assert_num_queries(0):
        assert catalog.find("mini")

    monkeypatch.setattr(time, "monotonic", lambda: 1001.0)
    assert catalog.find("mini") is None
