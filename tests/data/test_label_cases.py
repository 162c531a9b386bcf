"""Forty small data sets in the layouts that labelling tools and people leave, opened as a user opens them.

The sets lie in `$LORA_SAM_DATA/label_cases`: `NAME/` is the data, `NAME.npz` the truth (`m:STEM` bool [N, H, W],
`i:STEM` uint8 [H, W, 3] where the pixels are in question). A case is right when it is

- **read**: the samples of all splits together are the images of the truth, found by the stem of their id; every object
  of the truth has one object of the sample with an IoU of at least 0.93, none is left over, and where the truth has
  pixels they differ by at most 6 grey levels on average. Images whose truth has no object are left out. `note` is
  what a note of the reader must say; or
- **refused**: in one line that matches `refused`; or
- **warned of**: where what is stored may be meant, but seldom is, a note says so and names the option.

`options` are what the user types after `data=`; where the first answer is a refusal or a warning with a remedy, the
remedy is a case of its own. `LAYOUTS_TO_COME` and `VALUES_TO_COME` list the cases that are not right yet, by name, or
by the whole command where it is one of several: whoever makes one right removes it there (the mark is strict).
"""

from __future__ import annotations

import importlib
import os
import re
import unicodedata
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from lora_sam.core.errors import DataError
from lora_sam.core.structures import Sample
from lora_sam.data.detection import stored_option
from lora_sam.data.splits import Splits

CASES = Path(os.environ.get("LORA_SAM_DATA", Path(__file__).parents[2] / "../shared/data")) / "label_cases"

LEAST_IOU = 0.93
MOST_GREY = 6.0


@dataclass(frozen=True)
class Case:
    """What a user types for a set, and what is to happen."""

    name: str
    data: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    note: str | None = None
    united: bool = False
    """Whether the objects of an image are read as one: their union is compared."""
    images: int | None = None
    """How many of the images of the truth are labelled, where it is not all of them."""
    pixels: bool = True
    """Whether pixels are compared; False where the truth has another scale for each image."""

    @property
    def label(self) -> str:
        words = [f"data={self.data}", *(f"data.{key}={value}" for key, value in self.options.items())]
        return " ".join([self.name, *words])


IN_TRAIN = {"val": "train", "test": "train"}

READ = (
    Case("cellpose_layout"),
    Case("coco_dup_ann_ids", note="ids"),
    Case("coco_flat_polygon"),
    Case("coco_hole_ring"),
    Case("coco_nfd_names"),
    Case("coco_yx_swapped", note="(y, x)"),
    Case("cvat_coco_brush_iscrowd1", note="iscrowd"),
    Case("cvat_coco_brush_iscrowd1", "coco", {"crowd": "objects"}),
    Case("cvat_xml"),
    Case("dsb_layout"),
    Case("img_more_than_masks", images=6, note="6 images without a mask"),
    Case("labelme2voc_old"),
    Case("labelme_json"),
    Case("labelstudio_coco_backslash"),
    Case("mask_alpha_white", note="alpha"),
    Case("mask_antialias_thin", note="data.mask_values=labels"),
    Case("mask_antialias_thin", "folder", {"mask_values": "binary"}),
    Case("mask_binary_40", united=True, note="data.instances=components"),
    Case("mask_binary_40", "folder", {"instances": "components"}),
    Case("mask_imagej_whiteiszero"),
    Case("mask_inverted", "folder", {"invert": True}),
    Case("mask_per_object"),
    Case("mask_png_from_jpg", note="data.mask_values=labels"),
    Case("mask_some_empty", images=8, note="images without an object"),
    Case("mask_suffix", note="_mask"),
    Case("mask_voc_void", note="data.ignore"),
    Case("medsam_npy"),
    Case("mmseg_layout"),
    Case("nested_some"),
    Case("qupath_geojson"),
    Case("supervisely"),
    Case("tiff_8band16", note="data.bands"),
    Case("tiff_grey16_around255", pixels=False, note="data.scale"),
    Case("tiff_overviews"),
    Case("tiff_rgb16_11bit", note="data.scale"),
    Case("train_images_masks"),
    Case("two_images", options=IN_TRAIN),
    Case("two_images"),
    Case("via_json"),
    Case("yolo_seg"),
)
REFUSED = (
    Case("img_heic", refused="HEIC"),
    Case("mask_jpg_labels", refused="JPEG"),
    Case("nifti", refused="NIfTI"),
    Case("tiff_zstack", refused="4 pages; save one image per file"),
    Case("two_images", options={"few_images": 0}, refused=r"data\.val=train"),
)
WARNED = (Case("mask_inverted", note="data.invert=true"),)
"""Read as they are stored, which may be meant, with a note that says what else may be."""

LAYOUTS_TO_COME = frozenset({})
"""Layouts of tools that have no reader yet."""

VALUES_TO_COME = frozenset({})
"""Values, outlines and pixels that are not read yet as they are meant."""

TO_COME = LAYOUTS_TO_COME | VALUES_TO_COME


WANT_TIFFFILE = frozenset({"tiff_8band16", "tiff_rgb16_11bit"})


def opened(case: Case) -> Splits:
    target, values = stored_option(case.data)
    module, _, name = target.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    splits: Splits = kind(**{**values, "root": str(CASES / case.name), **case.options}).open(0)
    return splits


def every(splits: Splits) -> list[Sample]:
    """Every sample once: of few images those that train validate too."""
    sources = {id(source): source for source in (splits.train, splits.val, splits.test)}.values()
    return [source[index] for source in sources for index in range(len(source))]


def samples(splits: Splits) -> dict[str, Sample]:
    """Every sample by the stem of its id, in one Unicode form."""
    found: dict[str, Sample] = {}
    for source in (splits.train, splits.val, splits.test):
        for index in range(len(source)):
            sample = source[index]
            stem = unicodedata.normalize("NFC", PurePosixPath(sample.id).stem)
            assert found.setdefault(stem, sample).id == sample.id, f"{stem}: two samples"
    return found


def overlaps(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of each mask of [N, H, W] with each of [M, H, W], float [N, M]."""
    one, two = (masks.reshape(len(masks), -1).astype(np.float64) for masks in (found, truth))
    shared = one @ two.T
    union: np.ndarray = one.sum(axis=1)[:, None] + two.sum(axis=1)[None] - shared
    return shared / union


def marks(case: Case) -> list[pytest.MarkDecorator]:
    skip = pytest.mark.skipif(not (CASES / case.name).is_dir(), reason=f"no {case.name} in {CASES.name}")
    if case.name in WANT_TIFFFILE and find_spec("tifffile") is None:
        skip = pytest.mark.skip(reason="the package tifffile is not installed")
    to_come = [pytest.mark.xfail(reason="not read yet", strict=True)] if TO_COME & {case.name, case.label} else []
    return [skip, *to_come]


def parameters(cases: tuple[Case, ...]) -> list[Any]:
    return [pytest.param(case, id=case.label, marks=marks(case)) for case in cases]


@pytest.mark.parametrize("case", parameters(READ))
def test_read_as_it_was_meant(case: Case) -> None:
    splits = opened(case)
    found = samples(splits)
    with np.load(CASES / f"{case.name}.npz") as stored:
        truth = {unicodedata.normalize("NFC", key): stored[key] for key in stored.files}
    masks = {PurePosixPath(key[2:]).name: value for key, value in truth.items() if key[:2] == "m:" and value.any()}
    if case.images is None:
        assert found.keys() == masks.keys()
    else:
        assert len(found) == case.images
        assert found.keys() < masks.keys()
        masks = {stem: masks[stem] for stem in found}
    for stem, expected in masks.items():
        wanted = expected.any(axis=0)[None] if case.united else expected
        table = overlaps(found[stem].masks, wanted)
        assert table.shape == (len(wanted), len(wanted)), f"{stem}: {len(table)} objects instead of {len(wanted)}"
        assert table.max(axis=0).min() >= LEAST_IOU, f"{stem}: {np.round(table, 2)}"
        assert len(set(table.argmax(axis=0).tolist())) == len(wanted)
        pixels = truth.get(f"i:{stem}")
        if pixels is not None and case.pixels:
            off = float(np.abs(found[stem].image.astype(float) - pixels).mean())
            assert off <= MOST_GREY, f"{stem}: {off:.1f} grey levels off"
    if case.note is not None:
        assert any(case.note in note for note in splits.notes), splits.notes


@pytest.mark.parametrize("case", parameters(REFUSED))
def test_refused_with_a_reason(case: Case) -> None:
    with pytest.raises(DataError) as error:
        opened(case)
    message = str(error.value)
    assert case.refused is not None
    assert re.search(case.refused, message), message
    assert "\n" not in message


@pytest.mark.parametrize("case", parameters(WARNED))
def test_read_with_a_warning(case: Case) -> None:
    notes = opened(case).notes
    assert case.note is not None
    assert any(case.note in note for note in notes), notes


@pytest.mark.parametrize("case", parameters((Case("tiff_zstack", options={"slices": "all"}),)))
def test_every_slice_of_the_stacks_is_read(case: Case) -> None:
    """The slices of each stack differ in brightness alone: the truth of an image holds for each of them."""
    splits = opened(case)
    found = every(splits)
    with np.load(CASES / f"{case.name}.npz") as truth:
        names = [key[2:] for key in truth.files if key[:2] == "m:"]
        assert sorted(sample.id for sample in found) == [
            f"images/{name}.tif/{k:04d}" for name in sorted(names) for k in range(4)
        ]
        for sample in found:
            name = PurePosixPath(sample.id).parent.stem
            table = overlaps(sample.masks, truth[f"m:{name}"])
            assert table.shape == (len(truth[f"m:{name}"]),) * 2
            assert table.max(axis=0).min() == 1
            off = np.abs(sample.image.astype(float) - truth[f"i:{name}"].mean(-1, keepdims=True)).mean()
            assert off <= MOST_GREY


@pytest.mark.skipif(find_spec("nibabel") is None, reason="the package nibabel is not installed")
@pytest.mark.parametrize("case", parameters((Case("nifti", options={"slices": "all"}),)))
def test_every_slice_of_nifti_is_read(case: Case) -> None:
    """Held against nibabel itself: there is no truth beside them. The first axis runs along the rows."""
    import nibabel

    splits = opened(case)
    found = every(splits)
    assert len(found) == 6
    for sample in found:
        name = PurePosixPath(sample.id).parent.name
        stored, pixels = (
            np.asarray(nibabel.load(CASES / case.name / folder / name).dataobj)[:, :, 0].T
            for folder in ("labelsTr", "imagesTr")
        )
        expected = np.stack([stored == value for value in np.unique(stored) if value])
        assert np.array_equal(sample.masks, expected)
        assert np.abs(sample.image.mean(-1) - pixels).mean() <= MOST_GREY


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no {CASES.name}")
def test_every_case_is_tried() -> None:
    assert {case.name for case in (*READ, *REFUSED, *WARNED)} == {
        path.name for path in CASES.iterdir() if path.is_dir()
    }
    assert {name for case in (*READ, *REFUSED, *WARNED) for name in (case.name, case.label)} >= TO_COME
