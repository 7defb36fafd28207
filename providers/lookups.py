"""Jobs found by what a provider calls them."""

from django.db.models import Q

from providers.models import Channel


def of_upstream_id(upstream_id: str) -> Q:
    """Return the condition for jobs that a provider knows under this id, whichever it is.

    The one index on these ids begins with the channel, and channels are few: so they are all named.
    """
    channels = list(Channel.objects.values_list("pk", flat=True))
    return Q(channel_id__in=channels, upstream_id=upstream_id) & ~Q(upstream_id="")
