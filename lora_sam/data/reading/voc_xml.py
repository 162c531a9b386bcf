"""The size of an image as its Pascal VOC annotation states it, from XML that may come from anybody."""

from __future__ import annotations

from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.data.reading.paths import shown

MAX_XML_BYTES = 2**20
"""Larger annotations are refused before they are parsed."""


def declared_size(path: Path) -> tuple[int, int] | None:
    """(height, width) in pixels according to `annotation/size`, or None where it does not say.

    Raises:
        DataError: it is no XML, is larger than `MAX_XML_BYTES`, declares a document type or entities, or the size is
            not two whole numbers.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        if not path.is_file():
            raise DataError(f"{path}: is not a regular file; restore it, or remove it.", "missing_file")
        if path.stat().st_size > MAX_XML_BYTES:
            raise DataError(
                f"{path}: is larger than {MAX_XML_BYTES // 2**20} MiB; is it an annotation of one image?", "too_large"
            )
        annotation = fromstring(path.read_bytes(), forbid_dtd=True)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check its permissions.", "unreadable_file"
        ) from error
    except DefusedXmlException as error:
        raise DataError(
            f"{path}: declares a document type or entities ({type(error).__name__}), which an annotation does not "
            "need and which can exhaust memory or read other files; remove them.",
            "bad_annotation",
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise DataError(
            f"{path}: is not valid XML ({error}); export the annotation again.", "bad_annotation"
        ) from error
    size = annotation.find("size")
    if size is None:
        return None
    height, width = (str(size.findtext(name, "")).strip() for name in ("height", "width"))
    if not height and not width:
        return None
    if not all(text.isascii() and text.isdecimal() and len(text) <= 9 for text in (height, width)):
        raise DataError(
            f"{path}: states the size {shown(width)} x {shown(height)}; it takes whole numbers of pixels: correct it.",
            "bad_annotation",
        )
    stated = int(height), int(width)
    return stated if any(stated) else None  # some tools write zeros for an unknown size
