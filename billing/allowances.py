"""What keys use in a month, and their caps of it: what is left, and what a refusal says. Months are those of UTC."""

import dataclasses
import datetime as dt
from collections.abc import Collection

from accounts.models import ApiKey
from billing.models import KeyAllowance
from seedancee2.lib import clock


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a task counts against: `api_key_id` is the first of the keys that were rolled into the one used.

    Without a cap it is counted too, so that a cap set later in the month knows what came before it.
    """

    api_key_id: int
    monthly_cap: int | None = None

    def refusal(self, amount: int, used: int, at: dt.datetime) -> str:
        """Say that the cap does not cover an amount, what is left of it, and when it begins anew."""
        assert self.monthly_cap is not None, "Without a cap nothing is refused."
        left = max(0, self.monthly_cap - used)
        return (
            f"This API key has reached its cap of {self.monthly_cap} credits a month: {left} are left, and this video "
            f"costs {amount}. The cap begins anew on {resets_at(at):%Y-%m-%d} at 00:00 UTC; an owner or admin of your "
            "organization can raise it in the console."
        )


def of(key: ApiKey) -> Allowance:
    """Return what a task that keeps to this key's terms counts against."""
    return Allowance(api_key_id=key.origin_id or key.pk, monthly_cap=key.monthly_credit_cap)


def resets_at(at: dt.datetime) -> dt.datetime:
    """Return the moment at which the month after this one begins."""
    first = dt.datetime(at.year, at.month, 1, tzinfo=dt.UTC)
    return (first + dt.timedelta(days=32)).replace(day=1)


def used_this_month(api_key_ids: Collection[int]) -> dict[int, int]:
    """Return the credits that the tasks of these keys cost this month; a key that used nothing is left out."""
    rows = KeyAllowance.objects.filter(api_key_id__in=api_key_ids, month=clock.now().date().replace(day=1))
    return dict(rows.values_list("api_key_id", "used"))
