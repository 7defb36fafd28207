"""The models that customers can name (public page, "Public Models")."""

from django.db.models import Q

from generations.models import PublicModel
from seedancee2.api.errors import ModelNotFound


def active_models() -> list[PublicModel]:
    """Return the models that can be used, in the order of the page; aliases are never among them."""
    return list(PublicModel.objects.filter(is_active=True).order_by("position"))


def find(name: str) -> PublicModel | None:
    """Return the active model of this name, or of this old name; None where there is none."""
    found = PublicModel.objects.filter(Q(name=name) | Q(aliases__alias=name), is_active=True).distinct()
    by_name = {model.name: model for model in found}
    return by_name.get(name) or next(iter(by_name.values()), None)


def resolve(name: str) -> PublicModel:
    """Return the active model of this name, or of this old name.

    Raises:
        ModelNotFound: there is none.
    """
    model = find(name)
    if model is None:
        raise ModelNotFound
    return model
