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
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
    return True


def flipped(body: bytes, bit: int) -> bytes:
    """Change one bit."""
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_any_body_is_accepted_with_one_secret_and_two_and_no_changed_one() -> None:
    dice = random.Random(6)
    timestamp = int(time.time())
    for _ in range(1000):
        body = "".join(dice.choices(_ALPHABET, k=dice.choice([1, 50, 500, 20_000]))).encode()
        one = signing.signature_header(body=body, timestamp=timestamp, secrets=["whsec_new"])
        two = signing.signature_header(body=body, timestamp=timestamp, secrets=["whsec_new", "whsec_old"])
        changed = flipped(body, dice.randrange(len(body) * 8))

        assert accepts(body, one, "whsec_new")
        assert accepts(body, two, "whsec_new")
        assert accepts(body, two, "whsec_old")
        assert not accepts(body, one, "whsec_old")
        assert not accepts(changed, two, "whsec_new")


def test_each_single_bit_counts() -> None:
    body = '{"data":{"id":"vid_1","note":"é漢🎬"}}'.encode()
    header = signing.signature_header(body=body, timestamp=int(time.time()), secrets=["whsec_new", "whsec_old"])

    assert accepts(body, header, "whsec_old")
    assert not any(accepts(flipped(body, bit), header, "whsec_old") for bit in range(len(body) * 8))
