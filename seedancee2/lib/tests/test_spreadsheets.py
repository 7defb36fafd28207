"""CSV that a spreadsheet can open without running anything."""

import csv
import io

import pytest

from seedancee2.lib import spreadsheets


def read(head, lines):
    return list(csv.reader(io.StringIO("".join(spreadsheets.rows(head, lines)))))


def test_texts_come_back_as_they_were_and_numbers_stay_numbers():
    texts = ["plain", 'a "quote"', "a,b", "two\nlines", "ü", ""]

    assert read(["text", "number", "none"], [[text, -5, None] for text in texts]) == [
        ["text", "number", "none"],
        *([text, "-5", ""] for text in texts),
    ]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_is_no_formula(text):
    assert read(["x"], [[text]])[1] == [f"'{text}"]


def test_many_lines_come_in_pieces_and_none_is_lost():
    pieces = list(spreadsheets.rows(["n"], ([number] for number in range(1_234))))

    assert len(pieces) == 3
    assert "".join(pieces).split() == ["n", *map(str, range(1_234))]
