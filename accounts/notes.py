"""Notes of the staff on an organization: written, read in order of time, never changed."""

from django.db import transaction

from accounts import audit
from accounts.models import Organization, StaffNote, User

MAX_LENGTH = 2000


def write(*, organization: Organization, author: User, text: str) -> StaffNote:
    """Add a note; its entry in the audit log is the staff's alone, as the note is.

    Raises:
        ValueError: the text is empty or too long.
    """
    text = text.strip()
    if not 0 < len(text) <= MAX_LENGTH:
        raise ValueError(f"A note has 1 to {MAX_LENGTH:,} characters.")
    with transaction.atomic():
        note = StaffNote.objects.create(organization=organization, author=author, author_name=author.email, text=text)
        audit.note(
            organization_id=None,
            actor=author,
            action="note.written",
            target=organization.name,
            after={"organization": organization.pk, "note": note.pk},
        )
    return note
