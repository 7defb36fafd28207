"""How long does it take to seal every secret with a new key? Run: python -m bench.reencryption [ROWS].

ROWS webhook secrets (100,000 unless told), sealed with an old key; then `reencrypt_secrets` with both keys, while a
few of them are opened again and again. The bar is 60 seconds, and no secret that could not be opened meanwhile.
"""

import os
import shutil
import sys
import threading
import time

from cryptography.fernet import Fernet

from seedancee2.local import postgres, state, throwaway

SECONDS = 60


def main() -> None:
    """Measure, and exit with 1 where it is over the bar."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    folder = state.ensure_folder(state.ensure_var() / f"bench-{os.getpid()}")
    server = postgres.prepare(folder / "postgres", is_durable=False, say=lambda _: None)
    try:
        with throwaway._running(server) as database, throwaway.servers() as addresses:
            os.environ.update(addresses | {"DATABASE_URL": database}, LOCAL_MODE="true", SECRET_KEY="bench" * 10)
            os.environ.update(LOG_LEVEL="CRITICAL", DJANGO_SETTINGS_MODULE="seedancee2.settings")
            is_good = _measure(rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if is_good else 1)


def _measure(rows: int) -> bool:
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection

    from accounts.models import Organization
    from seedancee2.console import reencryption
    from seedancee2.lib import vault
    from webhooks.models import SigningSecret

    call_command("migrate", verbosity=0)
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    settings.FIELD_ENCRYPTION_KEYS = [old]
    organizations = Organization.objects.bulk_create(
        [Organization(name=f"Customer {number}") for number in range(rows)], batch_size=5_000
    )
    SigningSecret.objects.bulk_create(
        [SigningSecret(organization=one, sealed_secret=vault.seal(f"whsec_{one.pk:040}")) for one in organizations],
        batch_size=5_000,
    )
    settings.FIELD_ENCRYPTION_KEYS = [new, old]
    is_done, opened, wrong = threading.Event(), 0, 0

    def read() -> None:
        nonlocal opened, wrong
        while not is_done.wait(0.01):
            for row in SigningSecret.objects.order_by("?").filter(pk__lte=50)[:25]:
                opened += 1
                wrong += vault.unseal(bytes(row.sealed_secret)) != f"whsec_{row.organization_id:040}"
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    began = time.monotonic()
    counts = list(reencryption.run())
    took = time.monotonic() - began
    is_done.set()
    reader.join()
    settings.FIELD_ENCRYPTION_KEYS = [new]
    left = sum(count.resealed for count in reencryption.run())
    resealed = sum(count.resealed for count in counts)
    print(f"{resealed:,} secrets sealed anew in {took:.1f} s (bar {SECONDS} s); {left} left for a second run")
    print(f"{opened:,} were opened meanwhile, {wrong} of them wrongly; load {os.getloadavg()[0]:.1f}")
    return took <= SECONDS and resealed == rows and not wrong and not left


if __name__ == "__main__":
    main()
