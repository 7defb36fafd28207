"""Where media is kept, told as one URL: `file:///path` or `s3://bucket?endpoint_url=...`."""

from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

# Short and for one browser alone, so that a deleted file does not live on in caches; an ETag makes asking again cheap.
CACHE_CONTROL: Final = "private, max-age=300, must-revalidate"

_S3_OPTIONS = {"endpoint_url", "region_name", "access_key", "secret_key", "location", "addressing_style", "default_acl"}


def storage_for(url: str) -> dict[str, Any]:
    """Translate MEDIA_STORAGE_URL into an entry of Django's STORAGES.

    S3 credentials come from the URL's `access_key` and `secret_key`, else from boto's own environment.

    Raises:
        ImproperlyConfigured: the scheme or a query parameter is unknown; the message names it.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": unquote(parts.path), "file_permissions_mode": 0o644, "allow_overwrite": True},
        }
    if parts.scheme == "s3":
        options = dict(parse_qsl(parts.query))
        unknown = sorted(set(options) - _S3_OPTIONS)
        if unknown:
            raise ImproperlyConfigured(
                f"MEDIA_STORAGE_URL: unknown parameter {', '.join(unknown)}; use {', '.join(sorted(_S3_OPTIONS))}."
            )
        return {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {
                "bucket_name": parts.netloc,
                "file_overwrite": True,
                "querystring_auth": False,
                "object_parameters": {"CacheControl": CACHE_CONTROL},
                **options,
            },
        }
    raise ImproperlyConfigured(f"MEDIA_STORAGE_URL must be file:///path or s3://bucket?…, not {parts.scheme}://…")
