"""The models that customers can name (public page, "Public Models").

Every creation asks for one twice, so a process reads the names at most once a second: a model that was switched off is
refused a second later.
"""

import functools
import time

from generations.models import ModelAlias, PublicModel
from seedancee2.api.errors import ModelNotFound


def active_models() -> list[PublicModel]:
    """Return the models that can be used, in the order of the page; aliases are never among them."""
    return list(PublicModel.objects.filter(is_active=True).order_by("position"))


def find(name: str) -> PublicModel | None:
    """Return the active model of this name, or of this old name; None where there is none."""
    return _by_name(int(time.monotonic())).get(name)


def resolve(name: str) -> PublicModel:
    """Return the active model of this name, or of this old name.

    Raises:
        ModelNotFound: there is none.
    """
    model = find(name)
    if model is None:
        raise ModelNotFound
    return model


@functools.lru_cache(maxsize=1)
def _by_name(_second: int) -> dict[str, PublicModel]:
    models = {model.name: model for model in active_models()}
    old = {alias.alias: models[alias.model_id] for alias in ModelAlias.objects.filter(model__in=models)}
    return old | models
