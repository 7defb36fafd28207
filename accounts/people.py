"""People: their names."""

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts import audit
from accounts.models import User


def clean_name(name: str) -> str:
    """Return a name without needless spaces.

    Raises:
        ValidationError: it holds characters that cannot be shown, or is a link: names are shown in mails to others.
    """
    name = " ".join(name.split())
    if not name.isprintable():
        raise ValidationError("Use letters that can be shown.")
    if "://" in name or "www." in name.lower():
        raise ValidationError("Write a name, not a link.")
    return name


def rename(*, user: User, name: str) -> User:
    """Change how a person is called.

    Raises:
        ValidationError: the name is not allowed.
    """
    name = clean_name(name)
    with transaction.atomic():
        locked = User.objects.select_for_update().get(pk=user.pk)
        before = locked.name
        if name != before:
            locked.name = name
            locked.save(update_fields=["name"])
            audit.note(
                organization_id=None,
                actor=locked,
                action="person.renamed",
                target=locked.email,
                before={"name": before},
                after={"name": name},
            )
    return locked
