"""No dead links: every link that an owner finds in the console leads to a page, and stays in its organization."""

import datetime as dt
import re
from collections import Counter, deque
from html import unescape
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from django.db import transaction
from django.test import Client

from accounts import keys
from accounts.models import Membership
from accounts.tests.factories import MembershipFactory
from billing import ledger
from generations import lifecycle
from generations.models import Generation
from generations.tests.factories import create_generation
from seedancee2.console.tests.test_roles_of_pages import Scene

LINK = re.compile(r'<a\s[^>]*?href="([^"]*)"')
IDS = re.compile(r'\sid="([^"]+)"')
HERE = re.compile(r'<details class="menu">\s*<summary><span>([^<]*)</span>')
MOST = 3  # addresses of one page, which differ in their filters
# These ask for the password once more, or lead to what a person has not got.
ELSEWHERE = ("/accounts/", "/admin/", "/static/", "/openapi.json")


@pytest.mark.django_db
def test_every_link_leads_somewhere_and_stays_in_the_organization_of_the_page() -> None:
    scene = Scene(Membership.Role.OWNER)
    organization = scene.organization
    with transaction.atomic():
        ledger.grant(organization_id=organization.pk, amount=1_000, reference="grt_1", actor="t", reason="t")
    rolled = keys.issue(organization=organization, name="old", mode="live", created_by=scene.user).key
    keys.roll(key=rolled, rolled_by=scene.user, overlap=dt.timedelta(days=1))
    ended = create_generation(organization, is_test=True, callback_url="https://example.com/hook")
    lifecycle.fail(public_id=ended.pk, code=Generation.ErrorCode.GENERATION_FAILED)
    other = MembershipFactory.create(user=scene.user, role=Membership.Role.VIEWER).organization
    client = Client()
    client.force_login(scene.user)
    client.post("/console/organization/", {"organization": other.pk})  # the one that another tab shows

    start = f"/console/?organization={organization.pk}"
    waiting, seen, ids = deque([start]), {start: "the beginning"}, {}
    wrong: list[str] = []
    visits: Counter[str] = Counter()
    anchors: list[tuple[str, str, str]] = []
    while waiting:
        address = waiting.popleft()
        reply = client.get(address)
        if reply.status_code != 200:
            wrong.append(f"{address} is {reply.status_code}, found on {seen[address]}")
            continue
        if not reply.headers["Content-Type"].startswith("text/html") or reply.streaming:
            continue
        text = reply.content.decode()
        ids[address] = set(IDS.findall(text))
        is_console = address.startswith("/console/")
        if is_console and HERE.findall(text)[-1:] != [organization.name]:
            wrong.append(f"{address} shows {HERE.findall(text)}, found on {seen[address]}")
        for link in map(unescape, LINK.findall(text)):
            parts = urlsplit(urljoin(f"http://testserver{address}", link))
            found = parts._replace(scheme="", netloc="", fragment="").geturl()
            if parts.netloc != "testserver" or (found.startswith(ELSEWHERE) and found != "/accounts/profile/"):
                continue
            if parts.fragment:
                anchors.append((address, found, parts.fragment))
            if is_console and found.startswith("/console/") and "organization" not in parse_qs(parts.query):
                # The head of every page leads to the organization that was last switched to.
                if found != "/console/":
                    wrong.append(f"{link} on {address} does not say the organization")
                continue
            page = parts.path
            if found not in seen and visits[page] < MOST and (is_console or not page.startswith("/console/")):
                visits[page] += 1
                seen[found] = address
                waiting.append(found)

    wrong += [
        f"{found}#{name} on {address} is nowhere"
        for address, found, name in anchors
        if name not in ids.get(found, {name})
    ]
    assert wrong == []
    deepest = {"/console/billing/ledger/", f"/console/tasks/{ended.pk}/delete/", f"/console/keys/{rolled.pk}/"}
    assert deepest <= set(visits)
    assert any(page.startswith("/console/billing/statements/") for page in visits)
