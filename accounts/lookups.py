"""What the staff's lists look for, each by an index: organizations and keys."""

from django.db.models import Q, QuerySet
from django.db.models.functions import Lower

from accounts.models import ApiKey, Organization

_ORGANIZATIONS_AT_MOST = 20  # whose keys a search for the beginning of a name looks through
_KEYS_AT_MOST = 2_000


def organizations(rows: QuerySet[Organization], term: str) -> QuerySet[Organization]:
    """Keep organizations of this number, or whose name begins like this."""
    found = Q(low__startswith=term.lower())
    if term.isdecimal() and len(term) < 19:
        found |= Q(pk=int(term))
    return rows.alias(low=Lower("name")).filter(found)


def keys(term: str) -> list[int]:
    """Return the keys with these last four characters, and those of organizations that are called so."""
    named = organizations(Organization.objects.all(), term).order_by(Lower("name"))
    called_so = list(named.values_list("pk", flat=True)[:_ORGANIZATIONS_AT_MOST])
    found = ApiKey.objects.filter(Q(last_four=term) | Q(organization__in=called_so))
    return list(found.values_list("pk", flat=True)[:_KEYS_AT_MOST])
