"""What the sign-in page must know about sign-up."""

from allauth.account.adapter import get_adapter
from django import template
from django.http import HttpRequest

register = template.Library()


@register.simple_tag
def is_signup_open(request: HttpRequest) -> bool:
    """Tell whether newcomers may make an account by themselves."""
    return bool(get_adapter(request).is_open_for_signup(request))
