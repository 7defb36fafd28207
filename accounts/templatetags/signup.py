"""What the pages of sign-in and of the account must know."""

import re

from allauth.account.adapter import get_adapter
from django import template
from django.http import HttpRequest

from accounts import invited, second_factor
from accounts.models import User

register = template.Library()

# In this order: the later ones name themselves after the earlier ones too.
_BROWSERS = (("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


@register.simple_tag
def is_signup_open(request: HttpRequest) -> bool:
    """Tell whether newcomers may make an account by themselves."""
    return bool(get_adapter(request).is_open_for_signup(request))


@register.simple_tag
def invited_address(request: HttpRequest) -> str:
    """Give the address whose invitation was followed in this session, else nothing."""
    invitation = invited.waiting(request)
    return invitation.email if invitation else ""


@register.simple_tag
def second_factor_demanded_by(user: User) -> list[str]:
    """Name those who demand a second factor of a person."""
    return second_factor.demanded_by(user)


@register.filter
def browser(user_agent: str) -> str:
    """Name the browser and system of a User-Agent header as people know them; unknown ones show its first word."""
    name = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if not name:
        return re.split(r"[\s/]", user_agent, maxsplit=1)[0][:40] or "Unknown browser"
    return f"{name} on {system}" if system else name
