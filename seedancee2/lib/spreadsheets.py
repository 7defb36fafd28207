"""CSV for people who open it in a spreadsheet, which takes some texts for formulas and some for dates."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from django.http import StreamingHttpResponse

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_ROWS = 500  # written at once


def rows(head: Sequence[str], lines: Iterable[Sequence[object]]) -> Iterator[str]:
    """Write CSV (RFC 4180), in pieces; a text that would be a formula gets an apostrophe in front (OWASP)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(head)
    for number, line in enumerate(lines, start=1):
        writer.writerow([_cell(value) for value in line])
        if number % _ROWS == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def reply(name: str, head: Sequence[str], lines: Iterable[Sequence[object]]) -> StreamingHttpResponse:
    """Answer with a CSV file to be saved under a name of ours."""
    response = StreamingHttpResponse(rows(head, lines), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
