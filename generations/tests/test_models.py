"""GET /v1/models."""

import json

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
