"""Media from the local disk, with Range requests so that a browser can seek; production uses its storage's host."""

import mimetypes
import posixpath
import re
from pathlib import Path

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import FileSystemStorage, storages
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe
from whitenoise.responders import SlicedFile

from generations import deletion
from seedancee2.lib.storage_urls import CACHE_CONTROL

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@require_safe
def serve(request: HttpRequest, path: str) -> HttpResponseBase:
    """Serve one stored file: 206 for one range (RFC 9110, 14), 304 where the client has it already, 410 once deleted.

    The 410 is told whatever the storage, so that the media host in production can ask here for files that it misses.
    """
    # Under another spelling the storage would find a file that the table of the deleted ones does not know.
    if path != posixpath.normpath(path):
        raise Http404
    if deletion.was_asked(path):
        gone = HttpResponse("This file was deleted.\n", status=410, content_type="text/plain; charset=utf-8")
        gone.headers["Cache-Control"] = "no-store"
        return gone
    file = _find(path)
    size = file.stat().st_size
    etag = f'"{size:x}-{file.stat().st_mtime_ns:x}"'
    headers = {"Accept-Ranges": "bytes", "Cache-Control": CACHE_CONTROL, "ETag": etag}
    if request.headers.get("If-None-Match") == etag:
        return HttpResponse(status=304, headers=headers)

    first, last = 0, size - 1
    status = 200
    asked = _RANGE.fullmatch(request.headers.get("Range", ""))
    if asked and any(asked.groups()) and request.headers.get("If-Range", etag) == etag:
        head, tail = asked.groups()
        first = int(head) if head else max(0, size - int(tail))
        last = min(int(tail), size - 1) if head and tail else size - 1
        if first > last:
            return HttpResponse(status=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"

    headers["Content-Length"] = str(last - first + 1)
    content_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers, content_type=content_type)
    stream = SlicedFile(file.open("rb"), first, last)
    return FileResponse(stream, status=status, headers=headers, content_type=content_type)


def _find(path: str) -> Path:
    storage = storages["default"]
    if not isinstance(storage, FileSystemStorage):
        raise Http404
    try:
        file = Path(storage.path(path))
    except SuspiciousFileOperation as error:
        raise Http404 from error
    if not file.is_file():
        raise Http404
    return file
