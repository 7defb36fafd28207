"""Media on S3-compatible storage, over a real socket."""

import datetime as dt
from collections.abc import Iterator
from urllib.parse import quote

import boto3
import pytest
import time_machine
from moto.server import ThreadedMotoServer

from generations.models import OutputAsset
from generations.tests.factories import create_generation, funded_organization
from generations.tests.pipeline import run_to_end
from seedancee2.lib import storage_urls

pytestmark = pytest.mark.django_db

BUCKET = "media-of-this-test"


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An S3 server on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_outputs_are_stored_in_the_bucket_under_our_names(endpoint, settings):
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    client.create_bucket(Bucket=BUCKET)
    url = f"s3://{BUCKET}?endpoint_url={quote(endpoint)}&region_name=us-east-1&access_key=k&secret_key=s"
    settings.STORAGES = {**settings.STORAGES, "default": storage_urls.storage_for(url)}

    with time_machine.travel(dt.datetime.now(dt.UTC), tick=False) as clock:
        generation = run_to_end(clock, create_generation(funded_organization(), is_test=True, return_last_frame=True))

    assert generation.status == "completed"
    stored = {item["Key"]: item["Size"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert stored == dict(OutputAsset.objects.values_list("path", "size_bytes"))
    assert sorted(stored)[-1] == f"videos/{generation.created_at:%Y/%m/%d}/{generation.public_id}.mp4"
    heads = [client.head_object(Bucket=BUCKET, Key=key) for key in sorted(stored)]
    assert heads[-1]["ContentType"] == "video/mp4"
    assert {head["CacheControl"] for head in heads} == {"private, max-age=300, must-revalidate"}
