"""Our signature against an independent judge: Stripe's own verifier, which the public scheme equals."""

import random
import time

import stripe

from seedancee2.lib import signing

_ALPHABET = 'abc {}[]",:\\/éß漢字🎬\u2028\x7f0123456789'


def accepts(body: bytes, header: str, secret: str) -> bool:
    """Ask Stripe's verifier."""
    try:
        stripe.WebhookSignature.verify_header(body.decode(), header, secret, tolerance=300)
    except stripe.SignatureVerificationError:
        return False
    return True


def test_any_body_is_accepted_with_one_secret_and_two_and_no_changed_one() -> None:
    dice = random.Random(6)
    timestamp = int(time.time())
    for _ in range(1000):
        body = "".join(dice.choices(_ALPHABET, k=dice.choice([1, 50, 500, 20_000]))).encode()
        one = signing.signature_header(body=body, timestamp=timestamp, secrets=["whsec_new"])
        two = signing.signature_header(body=body, timestamp=timestamp, secrets=["whsec_new", "whsec_old"])
        place = dice.randrange(len(body))
        # The lowest bit of an ASCII byte, so that the changed text is UTF-8 still.
        changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :] if body[place] < 0x80 else body + b"!"

        assert accepts(body, one, "whsec_new")
        assert accepts(body, two, "whsec_new")
        assert accepts(body, two, "whsec_old")
        assert not accepts(body, one, "whsec_old")
        assert not accepts(changed, two, "whsec_new")
