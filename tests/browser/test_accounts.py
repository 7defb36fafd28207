"""Sign-up, the second factor and passkeys, as a person meets them."""

import re
import time
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PASSWORD = "correct horse battery staple"


def sign_up(page: Page, email: str, name: str = "Ada Lovelace") -> None:
    page.goto("/accounts/login/")
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("Your name").fill(name)
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    expect(page).to_have_url(re.compile(r"/console/"))


def sign_out(page: Page) -> None:
    page.locator(".top details.menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You are signed out.")).to_be_visible()


def fill_in_sign_in(page: Page, email: str) -> None:
    page.goto("/accounts/login/")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def say_that_it_is_you(page: Page) -> None:
    """Before a second factor is set up the password is asked once more."""
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()


def code_of(secret: str) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30))


def set_up_the_app(page: Page) -> None:
    """On the page of the second factor."""
    page.get_by_role("link", name="Set up the app").click()
    say_that_it_is_you(page)
    secret = page.locator("#totp-secret").inner_text()
    page.get_by_label("The code that the app shows now").fill(code_of(secret))
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_text("10 of 10 are left")).to_be_visible()


def test_a_password_can_be_shown_and_is_sent_hidden(page: Page) -> None:
    page.goto("/accounts/signup/")
    field = page.get_by_role("textbox", name="Password")
    field.fill(PASSWORD)
    assert field.get_attribute("type") == "password"
    page.get_by_role("button", name="Show password").click()
    assert field.get_attribute("type") == "text"
    page.get_by_role("button", name="Hide password").click()
    assert field.get_attribute("type") == "password"


def test_an_authenticator_app_becomes_the_second_factor(page: Page) -> None:
    sign_up(page, "app@example.com", "App User")
    page.goto("/accounts/2fa/")
    set_up_the_app(page)
    recovery_code = page.locator("#recovery-codes").inner_text().split()[0]
    sign_out(page)
    fill_in_sign_in(page, "app@example.com")
    page.get_by_label("Code").fill(recovery_code)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page).to_have_url(re.compile(r"/console/"))


def test_a_passkey_is_added_signs_in_alone_and_after_the_password_and_is_removed(page: Page) -> None:
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options: dict[str, Any] = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
    }
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})

    sign_up(page, "passkey@example.com", "Passkey User")
    page.goto("/accounts/2fa/webauthn/add/")
    say_that_it_is_you(page)
    page.get_by_label("Name").fill("work laptop")
    page.get_by_label("Sign in with this passkey alone").check()
    page.get_by_label("Name").press("Enter")  # does what the button does
    expect(page.get_by_text("The passkey is added.")).to_be_visible()
    sign_out(page)

    page.goto("/accounts/login/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page).to_have_url(re.compile(r"/console/"))
    sign_out(page)

    fill_in_sign_in(page, "passkey@example.com")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page).to_have_url(re.compile(r"/console/"))

    page.goto("/accounts/2fa/webauthn/")
    expect(page.get_by_text("signs in alone")).to_be_visible()
    page.get_by_role("link", name="Remove work laptop").click()
    page.get_by_role("link", name="Use a passkey").click()
    page.get_by_role("button", name="Use a passkey").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("No passkeys yet")).to_be_visible()


def test_a_passkey_dialogue_that_is_closed_is_explained(page: Page) -> None:
    page.add_init_script(
        "navigator.credentials.get = () => Promise.reject(new DOMException('closed', 'NotAllowedError'))"
    )
    page.goto("/accounts/login/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.get_by_role("alert")).to_contain_text("The passkey was not used")
