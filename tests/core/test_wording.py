"""What comes from files is shown as text, whatever is in it."""

from __future__ import annotations

import pytest

from lora_sam.core.console import note, print_table, text_table
from lora_sam.core.errors import AdapterError, LoraSamError
from lora_sam.core.wording import in_one_line, printable, unturned
from lora_sam.report.markup import element, serialize
from lora_sam.report.model_card import _escape

HOSTILE = "a\x1b[31mred\x07\x00\r\x9b2J\u202egnp.exe\u2028end"


def test_nothing_that_a_terminal_acts_on_is_left() -> None:
    assert printable(HOSTILE) == "a\\x1b[31mred\\x07\\x00\\r\\x9b2J\\u202egnp.exe\\u2028end"
    assert printable("Grüße, 细胞 — 'quoted' \\ slash") == "Grüße, 细胞 — 'quoted' \\ slash"
    assert printable("one\ntwo") == "one\ntwo"


@pytest.mark.parametrize("kind", [LoraSamError, AdapterError])
def test_no_error_and_no_note_carries_it(kind: type[LoraSamError], capsys: pytest.CaptureFixture[str]) -> None:
    assert str(kind(f"{HOSTILE} is missing")).isprintable()
    assert "gnp.exe" in f"{kind(HOSTILE)}"
    note(f"{HOSTILE}: left out")
    assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_a_name_is_one_line() -> None:
    assert in_one_line("one\ntwo\u2028three") == r"one\ntwo\u2028three"


def test_no_table_and_no_page_is_turned(capsys: pytest.CaptureFixture[str]) -> None:
    """A class called so turned the figures beside it around."""
    name = "a\u202eb\u2067c\x1b\x9b"
    told = "a\\u202eb\\u2067c\\u001b\\u009b"
    assert unturned(name) == told
    assert unturned("Zelle\xa0A\t中\u3000文\u200f\n") == "Zelle\xa0A\t中\u3000文\u200f\n"
    assert serialize(element("td", name, title=name)) == f'<td title="{told}">{told}</td>'
    assert _escape(name) == told.replace("\\", "\\\\")
    print_table(text_table(("class", "IoU"), [(name, "0.123")]))
    assert told in capsys.readouterr().out
