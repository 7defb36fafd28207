"""Sealed secrets: unreadable in a dump, and sealed with a new key while the old one still opens them."""

import base64
import io

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from cryptography.fernet import Fernet
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection

from accounts.tests.factories import OrganizationFactory, UserFactory, issue_key
from providers import channels
from providers.models import Channel, Credential
from seedancee2.console import reencryption
from seedancee2.lib import vault
from webhooks import secrets
from webhooks.models import SigningSecret

pytestmark = pytest.mark.django_db

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture
def sealed(settings) -> dict[str, str]:
    """One secret of each kind, sealed with the old key."""
    settings.FIELD_ENCRYPTION_KEYS = [OLD]
    organization, stranger = OrganizationFactory.create(), OrganizationFactory.create()
    channel = Channel.objects.create(name="kie", adapter="kie", base_url="https://api.kie.ai")
    channels.set_credential(channel=channel, credential="sk-credential-of-a-provider")
    channels.set_callback_secret(channel=channel, secret="whsec-of-a-provider")
    user = UserFactory.create()
    totp = generate_totp_secret()
    TOTP.activate(user, totp)
    codes = RecoveryCodes.activate(user)
    return {
        "webhook": secrets.current(organization_id=organization.pk),
        "webhook of a stranger": secrets.current(organization_id=stranger.pk),
        "credential": "sk-credential-of-a-provider",
        "callback": "whsec-of-a-provider",
        "totp": totp,
        "recovery code": codes.get_unused_codes()[0],
        "api key": issue_key(organization),
    }


def opened() -> list[str]:
    """Open everything again, as the programs that need it do."""
    channel = Channel.objects.get(name="kie")
    rows = [vault.unseal(bytes(row.sealed_secret)) for row in SigningSecret.objects.order_by("pk")]
    rows += [vault.unseal(bytes(row.sealed_secret)) for row in Credential.objects.filter(channel=channel)]
    rows.append(vault.unseal(bytes(channel.sealed_callback_secret)))
    factors = {row.type: row.data for row in Authenticator.objects.all()}
    rows.append(vault.unseal(factors["totp"]["secret"].encode()))
    rows.append(vault.unseal(factors["recovery_codes"]["seed"].encode()))
    return rows


def run() -> str:
    out = io.StringIO()
    call_command("reencrypt_secrets", stdout=out)
    return out.getvalue()


def test_a_dump_of_the_database_holds_no_secret(sealed):
    dump = b""
    with connection.cursor() as cursor:
        for model in apps.get_models(include_auto_created=True):
            with cursor.copy(f"COPY {connection.ops.quote_name(model._meta.db_table)} TO STDOUT") as copy:
                dump += b"".join(bytes(part) for part in copy)

    assert b"api.kie.ai" in dump
    for name, secret in sealed.items():
        raw = secret.encode()
        for form in (raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"=")[:-2]):
            assert form not in dump, name


def test_every_secret_is_sealed_with_the_new_key_and_opens_without_the_old_one(sealed, settings):
    before = opened()
    settings.FIELD_ENCRYPTION_KEYS = [NEW, OLD]
    assert opened() == before

    told = run()

    assert "webhooks_signingsecret.sealed_secret: 2 sealed anew, 0 had been" in told
    assert "providers_credential.sealed_secret: 1 sealed anew, 0 had been" in told
    assert "providers_channel.sealed_callback_secret: 1 sealed anew, 0 had been" in told
    assert "mfa_authenticator.data: 2 sealed anew, 0 had been" in told
    settings.FIELD_ENCRYPTION_KEYS = [NEW]
    assert opened() == before


def test_a_run_that_was_cut_short_is_taken_up_and_a_repeat_writes_nothing(sealed, settings, monkeypatch):
    monkeypatch.setattr(reencryption, "BATCH", 1)
    settings.FIELD_ENCRYPTION_KEYS = [NEW, OLD]
    first = SigningSecret.objects.earliest("pk")
    SigningSecret.objects.filter(pk=first.pk).update(sealed_secret=vault.reseal(bytes(first.sealed_secret)))

    assert "webhooks_signingsecret.sealed_secret: 1 sealed anew, 1 had been" in run()
    before = list(SigningSecret.objects.order_by("pk").values_list("sealed_secret", flat=True))
    assert "webhooks_signingsecret.sealed_secret: 0 sealed anew, 2 had been" in run()

    assert list(SigningSecret.objects.order_by("pk").values_list("sealed_secret", flat=True)) == before


def test_a_secret_that_no_key_opens_is_named_and_left(sealed, settings):
    row = SigningSecret.objects.earliest("pk")
    lost = Fernet(Fernet.generate_key()).encrypt(b"lost")
    SigningSecret.objects.filter(pk=row.pk).update(sealed_secret=lost)
    settings.FIELD_ENCRYPTION_KEYS = [NEW, OLD]
    out = io.StringIO()

    with pytest.raises(CommandError, match="1 secrets were not read"):
        call_command("reencrypt_secrets", stdout=out)

    assert f"no key opens 1 rows: {row.pk}" in out.getvalue()
    assert "webhooks_signingsecret.sealed_secret: 1 sealed anew" in out.getvalue()
    row.refresh_from_db()
    assert bytes(row.sealed_secret) == lost


def test_what_somebody_set_meanwhile_is_not_overwritten(sealed, settings):
    settings.FIELD_ENCRYPTION_KEYS = [NEW, OLD]
    row = SigningSecret.objects.earliest("pk")
    read = bytes(row.sealed_secret)
    SigningSecret.objects.filter(pk=row.pk).update(sealed_secret=vault.seal("set meanwhile"))

    written = reencryption._write("webhooks_signingsecret", "sealed_secret", [(row.pk, read, vault.seal("old"))])

    row.refresh_from_db()
    assert (written, vault.unseal(bytes(row.sealed_secret))) == (0, "set meanwhile")


def test_every_column_of_sealed_secrets_is_known():
    assert {f"{model._meta.label}.{field.name}" for model, field in reencryption.columns()} == {
        "webhooks.SigningSecret.sealed_secret",
        "providers.Credential.sealed_secret",
        "providers.Channel.sealed_callback_secret",
    }
