"""Looks for endpoints by what a person knows of them."""

import contextlib

from django.db.models import Q

from accounts.models import Organization
from seedancee2.lib import destinations
from webhooks.models import Endpoint


def of_address(term: str) -> Q | None:
    """Return what finds the endpoints of an address or of a host alone; None where the text is neither."""
    urls = [term] if "://" in term else [f"https://{term}", f"http://{term}"]
    origins = []
    for url in urls:
        with contextlib.suppress(destinations.BadDestination):
            destination = destinations.parse(url)
            # A word without a dot is the name of something else.
            if "." in destination.host or ":" in destination.host:
                origins.append(destination.origin)
    return Q(origin__in=origins) if origins else None


def is_known(*, organization: Organization, url: str) -> bool:
    """Tell whether an organization lists the host of a URL, or ever had a webhook sent to its scheme, host and port.

    Raises:
        BadDestination: it is not a URL.
    """
    if destinations.is_listed(url, organization.callback_hosts):
        return True
    return Endpoint.objects.filter(organization=organization, origin=destinations.parse(url).origin).exists()
