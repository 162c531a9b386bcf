"""What a run says of the rows that it reads."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from lora_sam.predictors.embeddings.layout import described_spec
from lora_sam.training.encoding import Encodings


class Images:
    """Two small images that are no files."""

    ids = ("a", "b")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(image=np.random.default_rng(index).integers(0, 256, (32, 48, 3), np.uint8))


def test_a_row_that_is_found_damaged_by_reading_is_made_anew_with_a_note(option, tmp_path):
    base = option("model/tiny_random").build()
    adapted = option("method/decoder").apply(base.sam)
    said: list[str] = []
    encodings = Encodings(
        adapted, base, adapted.frozen_stage, option("cache/default", directory=str(tmp_path)), said.append
    )
    split = encodings.training(Images(), option("augmentation/none"), 0)
    encodings.before_epoch(0)
    right = split.read(0, 1)
    assert right is not None
    assert said == ["embedding cache: encoding 2 training images once, in fp32"]
    (path,) = tmp_path.rglob(f"{split.key(0, 1)}.safetensors")
    data = bytearray(path.read_bytes())
    data[-9] ^= 16
    path.write_bytes(data)
    assert split.read(0, 1) is None  # the step encodes the image itself
    assert split.read(0, 0) is not None
    encodings.before_epoch(1)
    assert said[1:] == [
        "embedding cache: 1 damaged rows are made anew",
        "embedding cache: encoding 1 training image once, in fp32",
    ]
    assert right.equal(split.read(1, 1))
    encodings.before_epoch(2)
    assert len(said) == 3
    encodings.close()


def test_rows_of_an_architecture_that_no_weight_shows_are_its_own(option, tmp_path):
    """Other windows make another embedding of the same weights: a run read that of the run before."""
    found = {}
    for windows in ([4, 4, 6, 3], [4, 2, 2, 3]):
        base = option("model/sam2_random", window_sizes=windows).build()
        adapted = option("method/decoder").apply(base.sam)
        encodings = Encodings(
            adapted, base, adapted.frozen_stage, option("cache/default", directory=str(tmp_path)), lambda _: None
        )
        split = encodings.training(Images(), option("augmentation/none"), 0)
        encodings.before_epoch(0)
        found[tuple(windows)] = split.store.spec, split.read(0, 0)
        encodings.close()
    (usual, first), (other, changed) = found.values()
    assert (usual.weights, usual.variant, usual.shapes) == (other.weights, other.variant, other.shapes)
    assert (first - changed).abs().max() > 1e-3
    # of a usual one the name says no more than it did, so that older rows are read
    assert "architecture" not in usual.described()["rows"]
    assert described_spec(tmp_path / other.name) == other
