"""What a reader refuses is told for what it is, not as a file of another kind that is damaged."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import pytest

from lora_sam.core.errors import DataError
from lora_sam.data import cvat
from lora_sam.data.reading import tool_files, voc_xml
from lora_sam.data.reading.class_table import read_dataset_meta


def test_an_xml_of_cvat_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "annotations.xml").write_text("<annotations/>")
    assert list(cvat._pictures(tmp_path)) == []
    monkeypatch.setattr(cvat, "MAX_ANNOTATION_BYTES", 4)
    (said,) = cvat._pictures(tmp_path)
    assert isinstance(said, DataError)
    assert (said.kind, str(said)) == (
        "too_large", f"{tmp_path / 'annotations.xml'}: is larger than 0 GiB; split the data set."
    )  # fmt: skip


def test_an_xml_of_cvat_that_is_a_link_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "secret.xml").write_text("<annotations/>")
    root = tmp_path / "set"
    root.mkdir()
    (root / "annotations.xml").symlink_to(tmp_path / "secret.xml")
    (said,) = cvat._pictures(root)
    assert isinstance(said, DataError)
    assert said.kind == "path_escape"
    assert "valid XML" not in str(said)


def test_an_xml_of_voc_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xml").write_text("<annotation/>")
    monkeypatch.setattr(voc_xml, "MAX_XML_BYTES", 4)
    with pytest.raises(DataError, match="a.xml: is larger than") as caught:
        voc_xml.declared_size(tmp_path / "a.xml")
    assert caught.value.kind == "too_large"
    assert "valid XML" not in str(caught.value)


def test_a_bitmap_that_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = base64.b64encode(zlib.compress(bytes(10_000))).decode()
    monkeypatch.setattr(tool_files, "_MAX_PACKED", 1_000)
    with pytest.raises(DataError, match="^has a bitmap that unpacks to more than 16 MiB; export it again$"):
        tool_files.packed_bitmap(packed, zipped=True)


def test_a_table_of_classes_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "dataset_meta.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="is not UTF-8 text") as caught:
        read_dataset_meta(tmp_path / "dataset_meta.json")
    assert caught.value.kind == "unreadable_file"
    assert "valid JSON" not in str(caught.value)
