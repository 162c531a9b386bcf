"""What is chosen for a limit, and what is said about it."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from lora_sam.core.errors import TrainingError
from lora_sam.core.wording import about, in_flops, in_gib, in_gigabytes, in_short, plural
from lora_sam.training.planning.plan import TrainingData, make_plan, row_bytes
from lora_sam.training.planning.workload import trained_in

GIB = 2**30
DATA = TrainingData(images=40, prompts=4.0, most_prompts=6)


@pytest.fixture
def plan(option, make_step, machine):
    """Plans LoRA on ViT-B; `trained` changes what trains, `on` the machine, anything else the trainer's options."""

    def make(*, trained=None, on=None, data=DATA, precision="bf16", processes=1, **options):
        step = make_step(trained=trained)
        return make_plan(
            model=step.model,
            trained=step.trained,
            options=option("trainer/default", **options),
            precision=precision,
            machine=replace(machine, **(on or {})),
            data=data,
            processes=processes,
        )

    return make


def test_with_enough_memory_everything_goes_at_once(plan):
    found = plan(batch_size=4, accumulate=2)
    assert (found.at_once, found.checkpointing, found.checkpointed) == (4, "off", frozenset())
    assert (found.effective_batch, found.steps_per_epoch) == (8, 5)
    assert found.limit_bytes == pytest.approx(0.9 * 24 * GIB, rel=1e-6)
    assert found.notes == ()


def test_less_memory_first_takes_fewer_images_then_checkpoints(plan):
    """The cheapest first; each plan fits, and the next cheaper one would not."""
    chosen = []
    for limit in (12, 6, 4, 3, 2.5, 2.2, 2.0):
        found = plan(batch_size=4, memory_gb=limit)
        assert found.peak.total <= limit * GIB
        chosen.append((found.at_once, found.checkpointing))
    order = [(images, way) for way in ("off", "global", "all") for images in (4, 2, 1)]
    places = [order.index(choice) for choice in chosen]
    assert places == sorted(places)
    assert places[0] == 0
    assert {way for _, way in chosen} == {"off", "global", "all"}
    assert found.checkpointed == frozenset(range(12))


def test_what_the_user_sets_stays(plan):
    assert plan(checkpointing="global").checkpointed == {2, 5, 8, 11}
    assert plan(checkpointing="all", batch_size=3).at_once == 3
    decoder = plan(trained={"first_block": None, "adapted": frozenset()})
    assert decoder.checkpointing == "off"


def test_memory_is_that_of_the_attention_that_is_used(plan):
    """Relative positions as channels are kept three times as wide."""
    tiled, channels = plan(), plan(attention="channels")
    assert channels.peak.activations > 1.15 * tiled.peak.activations
    assert plan(on={"kind": "cuda"}, attention="tiled").peak.activations < plan(on={"kind": "cuda"}).peak.activations


def test_nothing_fits_into_what_the_user_allows(plan):
    with pytest.raises(
        TrainingError,
        match=r"trainer\.memory_gb = 1\.0: the least .* about \d\.\d GiB \(bf16, checkpointing all, 1 image at once\); "
        r".*method\.blocks=last:3, a smaller model\.image_size \(now 1024\), trainer\.decoder_chunk=1$",
    ):
        plan(memory_gb=1.0, batch_size=4)
    with pytest.raises(TrainingError, match=r"precision=bf16, trainer\.frozen=bf16, trainer\.checkpointing=auto"):
        plan(memory_gb=1.0, checkpointing="off", precision="fp32", on={"kind": "mps"})


def test_nothing_fits_into_what_is_free_and_the_run_may_try(plan):
    found = plan(on={"free_bytes": GIB})
    assert (found.at_once, found.checkpointing) == (1, "all")
    (note,) = [text for text in found.notes if "lack of memory" in text]
    assert "method.blocks=last:3" in note


def test_bf16_is_the_last_resort_where_precision_is_free(plan):
    wide = plan(precision="fp32", batch_size=1)
    assert wide.precision == "fp32"
    smallest = plan(precision="fp32", memory_gb=4.0, checkpointing="all").peak.total / GIB
    narrow = plan(precision="fp32", memory_gb=smallest - 0.1)
    assert narrow.precision == "bf16"
    assert any("fp32 does not fit" in note for note in narrow.notes)


def test_the_evaluation_is_told_where_it_takes_more_than_allowed(plan):
    few = TrainingData(images=40, prompts=1, most_prompts=1, cached=40, cached_bytes=1)
    found = plan(trained={"first_block": None, "adapted": frozenset()}, data=few, memory_gb=1.5)
    assert found.peak.total < found.limit_bytes < found.evaluation_bytes
    assert any("evaluation" in note for note in found.notes)


def test_the_line(plan):
    found = plan(batch_size=4, data=replace(DATA, cached=128, cached_bytes=row_bytes((256, 64, 64), "float16")))
    assert found.line().startswith("plan: 4.4 M of 94.0 M parameters train; about ")
    assert found.line().endswith(
        "(bf16, checkpointing off, 4 images at once); embeddings of 128 images cached: 0.27 GB"
    )
    assert "embeddings" not in plan().line()


def test_table_and_json_hold_the_same_figures(plan):
    found = plan(memory_gb=3.0, data=replace(DATA, cached=128, cached_bytes=2_097_152))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(found.table())
    text = console.export_text()
    for words in ("4,353,252", "of 94,030,384", in_gib(found.peak.total), "limit 3.0 GiB", "0.27 GB", "40 optimiser"):
        assert words in text, words
    values = json.loads(json.dumps(found.to_json()))
    peak = values["peak"]
    assert peak["total"] == found.peak.total == sum(peak[name] for name in peak if name != "total")
    assert values["cache_bytes"] == 128 * 2_097_152
    assert values["checkpointed"] == sorted(found.checkpointed)


def test_the_time_of_training_is_that_of_its_steps(plan):
    """A limit of steps counts, not the images that there would be."""
    found = plan()
    assert found.total_steps == 20 * found.steps_per_epoch
    assert found.seconds == pytest.approx(20 * found.seconds_per_epoch)
    short = plan(max_steps=10)
    assert short.total_steps == 10
    assert short.machine.startswith("cpu with ")
    assert short.seconds == pytest.approx(found.seconds_per_epoch / 4)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(short.table())
    assert f"10 optimiser steps at most, on {short.machine}" in console.export_text()
    assert plan(processes=2).machine == f"2 times {short.machine}"


def test_a_cross_validation_lasts_as_long_as_its_halves_train(plan):
    folds = replace(DATA, images=5, folds=(3, 2))
    epochs = plan(data=folds, max_epochs=4, max_steps=None)
    assert epochs.seconds_to_cross_validate == pytest.approx(epochs.seconds)
    steps = plan(data=folds, max_epochs=None, max_steps=30)  # each half trains for all of them
    assert steps.seconds_to_cross_validate == pytest.approx(2 * steps.seconds)
    assert "; cross-validation first: " in steps.line()
    assert any(name == "cross-validation" for name, *_ in steps._rows())
    alone = plan(data=replace(folds, folds=()), max_epochs=4, max_steps=None)
    assert alone.seconds_to_cross_validate == 0
    assert "cross-validation" not in alone.line()


def test_time_follows_images_processes_and_cache(plan):
    alone, shared = plan(), plan(processes=2)
    assert shared.seconds_per_epoch == pytest.approx(alone.seconds_per_epoch / 2)
    assert shared.effective_batch == 2
    frozen = {"first_block": None, "adapted": frozenset()}
    cached = plan(trained=frozen, data=replace(DATA, cached=40, cached_bytes=1))
    again = plan(trained=frozen)
    assert again.seconds_per_epoch > 5 * cached.seconds_per_epoch
    assert cached.seconds_to_cache == pytest.approx(again.seconds_per_epoch, rel=0.5)


def test_prompts_follow_the_objects_of_images():
    counts = [1, 3, 20]
    found = TrainingData.of(counts, 3, max_objects=None, chunk=16)
    assert (found.prompts, found.most_prompts) == (8, 20)
    found = TrainingData.of(counts, 3, max_objects=5, chunk=16, rounds=2)
    assert (found.prompts, found.most_prompts) == (6, 5)
    unknown = TrainingData.of(None, 3, max_objects=None, chunk=16, cached=2, cached_bytes=9)
    assert (unknown.prompts, unknown.most_prompts, unknown.cached, unknown.cached_bytes) == (16, 16, 2, 9)


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("lora", {}, (0, False, {"q", "v"}, True)),
        ("lora", {"blocks": "last:1", "decoder": "frozen"}, (1, False, {"q", "v"}, False)),
        ("lora", {"targets": ["mlp", "proj"], "decoder": "lora"}, (0, False, {"lin1", "lin2", "proj"}, True)),
        ("decoder", {}, (None, False, set(), True)),
        ("full", {}, (0, True, set(), True)),
    ],
)
def test_what_trains_is_read_off_the_model(option, tiny_sam, method, changes, expected):
    adapted = option(f"method/{method}", **changes).apply(tiny_sam())
    found = trained_in(adapted)
    assert (found.first_block, found.whole_encoder, found.adapted, found.decoder) == expected
    assert (found.trainable, found.total) == adapted.count()
    assert found.held == sum(parameter.numel() for parameter in adapted.peft.parameters())


def test_rows_of_the_cache():
    assert row_bytes((256, 64, 64), "float16") == pytest.approx(2.1e6, rel=0.01)
    assert row_bytes((64, 64, 768), "float16") == pytest.approx(6.3e6, rel=0.01)
    assert row_bytes((64, 64, 768), "float32") == 2 * row_bytes((64, 64, 768), "float16")


def test_words():
    assert [in_short(n) for n in (12, 294_912, 4_353_252, 637e6)] == ["12", "295 k", "4.4 M", "637 M"]
    assert [about(s) for s in (0.2, 40, 240, 3600 * 2.5)] == ["1 s", "40 s", "4 min", "2.5 h"]
    assert [in_flops(n) for n in (5e6, 3.62e9, 2.18e12, 1e15)] == ["5 MFLOP", "3.62 GFLOP", "2.18 TFLOP", "1 PFLOP"]
    assert (in_gib(2.9 * GIB), in_gigabytes(0.268e9), plural(1, "image"), plural(1024, "image")) == (
        "2.9 GiB",
        "0.27 GB",
        "1 image",
        "1,024 images",
    )
