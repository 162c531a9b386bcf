"""Jobs of one process share data, base and embeddings, and end with the bits that each has alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from lora_sam.cli.jobs import plain
from lora_sam.cli.sharing import Shared
from lora_sam.cli.train import run_train
from lora_sam.core.conf_files import conf_directory
from lora_sam.data.coco import Coco
from lora_sam.models.vit import ViTSam
from lora_sam.predictors.embeddings.store import EmbeddingCache
from lora_sam.runs.sweep import read_sweep
from lora_sam.runs.unchanged import _data_of
from lora_sam.training.settings import Settings, settings_from

QUICK = ("model=tiny_random", "tracker=none", "trainer.overlays=0", "trainer.max_epochs=null", "trainer.max_steps=2")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often data are opened, bases built, and rows of embeddings made."""
    counts: Counter[str] = Counter()

    def count(cls: type, method: str, name: str, by: Callable[[Any], int] = lambda _: 1) -> None:
        original = getattr(cls, method)

        def counting(self: Any, *given: Any, **options: Any) -> Any:
            result = original(self, *given, **options)
            counts[name] += by(result)
            return result

        monkeypatch.setattr(cls, method, counting)

    count(Coco, "open", "opened")
    count(ViTSam, "build", "built")
    count(EmbeddingCache, "fill", "encoded", int)
    return counts


def sweep(place: Path, blobs: Path, *words: str) -> None:
    cache = () if any(word.startswith("cache.") for word in words) else (f"cache.directory={place / 'cache'}",)
    assert run_train("train.py", [*words, *cache, *QUICK, "data=coco", f"data.root={blobs}"]) == 0


def check_alike(one: Path, other: Path, trained_weights: Callable[[Path], Any]) -> None:
    first, second = trained_weights(one), trained_weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (one / "evaluation.json").is_file()


@pytest.mark.usefixtures("quiet_logging")
def test_a_job_that_shares_ends_with_the_bits_it_has_alone(
    counted: Counter[str],
    blobs: Path,
    tmp_path: Path,
    trained_weights: Callable[[Path], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LoRA changes modules of the base, and the job after it begins with a base that it has not seen."""
    monkeypatch.chdir(tmp_path)
    sweep(tmp_path, blobs, "-m", "method=lora,decoder", f"hydra.sweep.dir={tmp_path / 'swept'}")
    assert (counted["opened"], counted["built"]) == (1, 1)
    made = counted["encoded"]
    sweep(tmp_path, blobs, "method=decoder", f"hydra.run.dir={tmp_path / 'alone'}", "cache.directory=other")
    assert counted["built"] == 2
    check_alike(tmp_path / "swept" / "1", tmp_path / "alone", trained_weights)
    # LoRA from the first block on keeps nothing: the one job with a frozen encoder encoded what it does alone
    assert counted["encoded"] == 2 * made > 0


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_logging")
def test_eight_jobs_over_the_decoder_encode_each_image_once(
    counted: Counter[str], blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(tmp_path, blobs, "method=decoder", f"hydra.run.dir={tmp_path / 'alone'}", "cache.directory=other")
    alone = counted["encoded"]
    rates = ",".join(f"{rate}e-4" for rate in range(1, 9))
    sweep(tmp_path, blobs, "-m", "method=decoder", f"optim.lr={rates}", f"hydra.sweep.dir={tmp_path / 'swept'}")
    assert [job.state for job in read_sweep(tmp_path / "swept").jobs] == ["done"] * 8
    assert counted["encoded"] == 2 * alone
    assert (counted["opened"], counted["built"]) == (2, 2)


def test_what_the_data_depend_on_is_in_their_key(blobs: Path) -> None:
    """A sweep over `trainer.shots` trained each job on the images of the first."""

    class Noted:
        """Notes what is asked of settings."""

        def __init__(self, of: Any, path: str, asked: set[str]) -> None:
            self._of, self._path, self._asked = of, path, asked

        def __getattr__(self, name: str) -> Any:
            path = f"{self._path}.{name}".lstrip(".")
            if path == "trainer":
                return Noted(self._of.trainer, path, self._asked)
            self._asked.add(path)
            return getattr(self._of, name)

    words = ["model=tiny_random", f"data.root={blobs}", "trainer.shots=2", "trainer.draw=1"]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        settings = settings_from(plain(compose("train", words)))
    asked: set[str] = set()
    keyed: set[str] = set()
    Settings.open_data(Noted(settings, "", asked))  # type: ignore[arg-type]
    assert Settings.data_key.fget is not None  # type: ignore[attr-defined]
    Settings.data_key.fget(Noted(settings, "", keyed))  # type: ignore[attr-defined]
    assert asked <= keyed
    assert {"data", "trainer.shots", "trainer.draw"} <= asked


def test_jobs_with_other_shots_have_their_own_images(blobs: Path) -> None:
    shared = Shared()
    for shots, draw in ((1, 0), (3, 0), (3, 1)):
        words = ["model=tiny_random", f"data.root={blobs}", f"trainer.shots={shots}", f"trainer.draw={draw}"]
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            settings = settings_from(plain(compose("train", words)))
        assert shared.data(settings).train.ids == settings.open_data().train.ids
        assert _data_of(settings).train.ids == settings.open_data().train.ids


def test_other_data_and_another_base_are_not_shared(option: Callable[..., Any], blobs: Path) -> None:
    class Told:
        def __init__(self, **changes: Any) -> None:
            self.model, self.data_key = option("model/tiny_random"), "a"
            self.__dict__.update(changes)

        def open_data(self) -> Any:
            return object()

    shared = Shared()
    first = shared.data(Told())  # type: ignore[arg-type]
    assert shared.data(Told()) is first  # type: ignore[arg-type]
    assert shared.data(Told(data_key="b")) is not first  # type: ignore[arg-type]
    base = shared.base(Told())  # type: ignore[arg-type]
    again = shared.base(Told())  # type: ignore[arg-type]
    other = shared.base(Told(model=option("model/tiny_random", weights_seed=5)))  # type: ignore[arg-type]
    assert base.sha256 == again.sha256 != other.sha256
    assert not {id(value) for value in base.sam.parameters()} & {id(value) for value in again.sam.parameters()}
    assert all(torch.equal(*pair) for pair in zip(base.sam.parameters(), again.sam.parameters(), strict=True))
