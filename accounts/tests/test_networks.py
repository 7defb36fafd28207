"""Lists of addresses: written in one form, and what they let through."""

import pytest

from accounts import networks


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], []),
        (["", "  "], []),
        (["203.0.113.7"], ["203.0.113.7"]),
        (["203.0.113.7/32", " 203.0.113.7 "], ["203.0.113.7"]),
        (["203.0.113.0/24", "10.0.0.0/8"], ["203.0.113.0/24", "10.0.0.0/8"]),
        (["2001:DB8:0:0::/64", "2001:db8::1/128"], ["2001:db8::/64", "2001:db8::1"]),
    ],
)
def test_a_list_is_written_in_one_form(texts, found):
    assert networks.normalize(texts) == found


@pytest.mark.parametrize(
    "text", ["office", "203.0.113.256", "203.0.113.0/33", "fe80::1%eth0", "010.0.0.1", "1", "a" * 99]
)
def test_what_is_no_network_is_refused_with_an_example(text):
    with pytest.raises(networks.BadNetwork, match=r"no address and no network, such as 203\.0\.113\.7"):
        networks.normalize([text])


def test_an_address_within_a_network_is_answered_with_the_network():
    with pytest.raises(networks.BadNetwork, match=r"write 203\.0\.113\.0/24 for all of it"):
        networks.normalize(["203.0.113.9/24"])


def test_a_list_is_not_endless():
    texts = [f"10.0.0.{number}" for number in range(networks.MAX_NETWORKS + 1)]
    assert len(networks.normalize(texts[:-1])) == networks.MAX_NETWORKS
    with pytest.raises(networks.BadNetwork, match="at most 50"):
        networks.normalize(texts)


@pytest.mark.parametrize(
    ("address", "is_covered"),
    [
        ("203.0.113.0", True),
        ("203.0.113.255", True),
        ("203.0.114.0", False),
        ("::ffff:203.0.113.9", True),
        ("::203.0.113.9", False),
        ("2001:db8::7", True),
        ("2001:db8::8", False),
        ("", False),
        (None, False),
        ("nonsense", False),
    ],
)
def test_an_address_is_looked_for_in_all_of_them(address, is_covered):
    assert networks.cover(("203.0.113.0/24", "2001:db8::7"), address) is is_covered


def test_no_network_covers_nothing():
    assert not networks.cover((), "203.0.113.7")
