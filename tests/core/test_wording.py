"""What comes from files is shown as text, whatever is in it."""

from __future__ import annotations

import pytest

from lora_sam.core.console import note
from lora_sam.core.errors import AdapterError, LoraSamError
from lora_sam.core.wording import printable

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
