"""Figures of many images, their intervals, and the difference of two models."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from lora_sam.core.errors import DataError, LoraSamError
from lora_sam.evaluation.comparison import compare, compare_means, draws_of_clusters, summarize, too_few
from lora_sam.evaluation.metrics import ImageScores, score_image
from tests.evaluation.test_metrics import names, random_masks, scores_from, square


def summed(image: ImageScores) -> float:
    return float(image.iou.sum())


def counted(image: ImageScores) -> int:
    return len(image.object_ids)


class TestSummary:
    def test_keys_and_point_estimates(self) -> None:
        scores = scores_from(np.random.default_rng(0), 9, 0.1)
        summary = summarize(scores, 0)
        assert set(summary) == {
            *("iou", "dice", "f1", "boundary_f1"),
            *("iou_median", "dice_median", "boundary_f1_median"),
            *("iou_interval", "dice_interval", "f1_interval", "boundary_f1_interval"),
            *("by_size", "resampled", "iou_pooled"),
        }
        iou = np.concatenate([image.iou for image in scores])
        assert summary["iou"] == pytest.approx(iou.mean())
        assert summary["iou_median"] == pytest.approx(np.median(iou))
        for name in ("iou", "dice", "f1", "boundary_f1"):
            low, high = summary[f"{name}_interval"]
            assert low < summary[name] < high
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary

    def test_mean_is_per_object_and_f1_per_pixel(self) -> None:
        """A perfect object of 100 pixels in one image, and one of 4 pixels missed in another."""
        perfect = score_image("a", ["x"], square(20, 20, 0, 0, 10)[None], square(20, 20, 0, 0, 10)[None])
        missed = score_image("b", ["y"], np.zeros((1, 20, 20), np.bool_), square(20, 20, 0, 0, 2)[None])
        summary = summarize([perfect, missed], 0)
        assert summary["iou"] == 0.5
        assert summary["f1"] == pytest.approx(200 / 204)
        assert summary["iou_pooled"] == pytest.approx(100 / 104)
        assert summary["iou_interval"] == [0.0, 1.0]

    def test_sizes_have_cocos_limits_in_original_pixels(self) -> None:
        truth = np.stack([square(120, 120, 0, 0, side) for side in (31, 32, 33)])
        by_size = summarize([score_image("a", names(3), truth & (np.arange(120) < 16), truth)], 0)["by_size"]
        assert by_size["small"] == {"objects": 1, "iou": pytest.approx(16 / 31), "dice": pytest.approx(32 / 47)}
        assert by_size["medium"]["objects"] == 2
        assert by_size["medium"]["iou"] == pytest.approx((16 / 32 + 16 / 33) / 2)
        assert by_size["large"] == {"objects": 0, "iou": None, "dice": None}

    def test_same_seed_same_intervals(self) -> None:
        scores = scores_from(np.random.default_rng(0), 9, 0.1)
        assert summarize(scores, 3) == summarize(scores, 3)
        assert summarize(scores, 3)["iou_interval"] != summarize(scores, 4)["iou_interval"]

    def test_one_image_resamples_its_objects_and_says_so(self) -> None:
        (image,) = scores_from(np.random.default_rng(2), 1, 0.1)
        summary = summarize([image], 0)
        assert summary["resampled"] == "objects"
        low, high = summary["iou_interval"]
        assert image.iou.min() < low < summary["iou"] < high < image.iou.max()
        assert summarize([image, image], 0)["resampled"] == "images"

    def test_interval_agrees_with_a_bootstrap_written_as_a_loop(self) -> None:
        scores = scores_from(np.random.default_rng(5), 25, 0.1)
        rng = np.random.default_rng(0)
        draws = []
        for _ in range(4000):
            drawn = [scores[index] for index in rng.integers(0, 25, 25)]
            pixels = [sum(getattr(image, name).sum() for image in drawn) for name in PIXELS]
            pooled = 2 * pixels[0] / (2 * pixels[0] + pixels[1] + pixels[2])
            draws.append((np.concatenate([image.iou for image in drawn]).mean(), pooled))
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        summary = summarize(scores, 0)
        width = (high - low).max()
        assert summary["iou_interval"] == pytest.approx([low[0], high[0]], abs=0.08 * width)
        assert summary["f1_interval"] == pytest.approx([low[1], high[1]], abs=0.08 * width)

    def test_intervals_cover_the_truth_about_as_often_as_they_say(self) -> None:
        """150 draws of 50 images of which the objects share their luck; 95 % +- 5.3 % (three standard errors).

        An interval over objects taken as independent would be about 2.5 times too narrow here and cover in 60 %.
        """
        rng = np.random.default_rng(7)
        covered = 0
        for seed in range(150):
            low, high = summarize(scores_from(rng, 50, 0.08), seed)["iou_interval"]
            covered += low <= 0.6 <= high
        assert 0.89 <= covered / 150 <= 0.995

    @pytest.mark.parametrize("counts", [7 * 300, 3])  # batches of 300 resamples, and of one, the least there is
    def test_drawing_in_batches_changes_nothing(self, monkeypatch: pytest.MonkeyPatch, counts: int) -> None:
        scores = scores_from(np.random.default_rng(2), 7, 0.1)
        at_once = summarize(scores, 0)
        monkeypatch.setattr("lora_sam.evaluation.comparison._COUNTS_AT_ONCE", counts)
        found = summarize(scores, 0)
        for name in ("iou", "dice", "f1", "boundary_f1"):  # a product of one row may round otherwise
            key = f"{name}_interval"
            assert found[key] == pytest.approx(at_once[key], rel=1e-12)

    def test_an_interval_holds_95_per_cent_of_two_thousand_draws(self) -> None:
        scores = scores_from(np.random.default_rng(3), 12, 0.1)
        drawn = np.concatenate(list(draws_of_clusters(12, 4)))
        assert drawn.shape == (2000, 12)
        assert (drawn.sum(axis=1) == 12).all()
        sums, objects = (np.array([part(image) for image in scores]) for part in (summed, counted))
        expected = np.percentile(drawn @ sums / (drawn @ objects), [2.5, 97.5])
        assert summarize(scores, 4)["iou_interval"] == pytest.approx(expected.tolist(), abs=1e-12)
        figures = [image.iou for image in scores]
        found = compare_means(figures, [2 * one for one in figures], 4)
        assert found.base_interval == pytest.approx(tuple(expected), abs=1e-12)
        assert found.delta_interval == pytest.approx(tuple(expected), abs=1e-12)
        assert found.tuned_interval == pytest.approx(tuple(2 * expected), abs=1e-12)

    def test_no_image_is_a_clear_error(self) -> None:
        with pytest.raises(DataError, match="there is no image to measure: the split is empty"):
            summarize([], 0)
        with pytest.raises(ValueError, match="there is no image to measure"):
            compare([], [], 0)


PIXELS = ("true_positive", "false_positive", "false_negative")


class TestComparison:
    def test_delta_is_tuned_minus_base(self) -> None:
        rng = np.random.default_rng(0)
        prediction, better, truth = (random_masks(seed, 3, 30, 30) for seed in (0, 1, 2))
        better = better | truth
        base = [score_image(str(n), names(3), np.roll(prediction, n, 1), truth) for n in range(5)]
        tuned = [score_image(str(n), names(3), np.roll(better, int(rng.integers(2)), 1), truth) for n in range(5)]
        result = compare(base, tuned, 0)
        assert result["base"] == summarize(base, 0)
        assert result["tuned"] == summarize(tuned, 0)
        assert set(result["delta"]) == set(result["base"])
        keys = ("iou", "dice", "f1", "boundary_f1", "iou_median", "dice_median", "boundary_f1_median", "iou_pooled")
        for key in keys:
            assert result["delta"][key] == pytest.approx(result["tuned"][key] - result["base"][key])
        small = [result[part]["by_size"]["small"] for part in ("base", "tuned", "delta")]
        assert small[2]["objects"] == small[0]["objects"] == 15
        assert small[2]["iou"] == pytest.approx(small[1]["iou"] - small[0]["iou"])
        assert result["delta"]["by_size"]["large"] == {"objects": 0, "iou": None, "dice": None}

    def test_paired_interval_is_narrow_where_both_share_their_images(self) -> None:
        """Images differ by 0.1, the gain is 0.02 everywhere: only pairing can see it."""
        base, tuned = (scores_from(np.random.default_rng(0), 30, 0.1, shift) for shift in (0.0, 0.02))
        result = compare(base, tuned, 0)
        assert result["delta"]["iou_interval"] == pytest.approx([0.02, 0.02], abs=1e-3)
        assert result["tuned"]["iou_interval"][0] < result["base"]["iou"]

    def test_identical_runs_differ_by_nothing(self) -> None:
        scores = scores_from(np.random.default_rng(0), 8, 0.1)
        delta = compare(scores, scores, 0)["delta"]
        for name in ("iou", "dice", "f1", "boundary_f1"):
            assert delta[name] == 0
            assert delta[f"{name}_interval"] == [0, 0]

    def test_different_images_or_objects_are_refused(self) -> None:
        scores = scores_from(np.random.default_rng(0), 3, 0.1)
        with pytest.raises(DataError, match="base has 3 images and tuned has 2. Measure both on the same split"):
            compare(scores, scores[:2], 0)
        with pytest.raises(DataError, match="image 0 is 'image 0' in base and 'image 1' in tuned"):
            compare(scores, scores[::-1][1:] + scores[:1], 0)
        other = scores_from(np.random.default_rng(1), 3, 0.1)
        with pytest.raises(LoraSamError, match="base and tuned have other objects in image 'image 0'"):
            compare(scores, other, 0)

    @pytest.mark.parametrize("images", [1, 2, 30])
    def test_means_of_any_figure_have_the_intervals_of_the_comparison(self, images: int) -> None:
        base, tuned = (scores_from(np.random.default_rng(seed), images, 0.1, 0.05 * seed) for seed in (0, 1))
        tuned = [
            ImageScores(**{**vars(one), "iou": np.resize(other.iou, one.iou.shape)})
            for one, other in zip(base, tuned, strict=True)
        ]
        expected = compare(base, tuned, 3)
        found = compare_means([image.iou for image in base], [image.iou for image in tuned], 3)
        for name in ("base", "tuned", "delta"):
            assert getattr(found, name) == pytest.approx(expected[name]["iou"], abs=1e-12)
            assert list(getattr(found, f"{name}_interval")) == pytest.approx(expected[name]["iou_interval"], abs=1e-12)

    @pytest.mark.parametrize("images", [1, 4])
    def test_tiles_of_an_image_are_drawn_together(self, images: int) -> None:
        base, tuned = (scores_from(np.random.default_rng(seed), 3 * images, 0.1, 0.05 * seed) for seed in (0, 1))
        tuned = [
            ImageScores(**{**vars(one), "iou": np.resize(other.iou, one.iou.shape)})
            for one, other in zip(base, tuned, strict=True)
        ]
        tiles = [
            [dataclasses.replace(one, id=f"tile {n}", group=f"image {n // 3}") for n, one in enumerate(scores)]
            for scores in (base, tuned)
        ]
        whole = [
            [
                ImageScores(
                    **{
                        field.name: f"image {n}"
                        if field.name == "id"
                        else None
                        if field.name == "group"
                        else names(sum(len(one.iou) for one in scores[3 * n : 3 * n + 3]))
                        if field.name == "object_ids"
                        else {}
                        if field.name == "further"
                        else np.concatenate([getattr(one, field.name) for one in scores[3 * n : 3 * n + 3]])
                        for field in dataclasses.fields(ImageScores)
                    }
                )
                for n in range(images)
            ]
            for scores in tiles
        ]
        expected, found = compare(*whole, 3), compare(*tiles, 3)
        means = compare_means(*([one.iou for one in scores] for scores in tiles), 3, [one.group for one in tiles[0]])
        for name in ("base", "tuned", "delta"):
            assert found[name]["resampled"] == ("groups" if images > 1 else "objects")
            assert expected[name]["resampled"] == ("images" if images > 1 else "objects")
            assert found[name]["iou_interval"] == pytest.approx(expected[name]["iou_interval"], abs=1e-9)
            assert list(getattr(means, f"{name}_interval")) == pytest.approx(expected[name]["iou_interval"], abs=1e-9)
        alone = compare(base, tuned, 3)  # as if each tile were an image
        assert alone["delta"]["iou_interval"] != pytest.approx(found["delta"]["iou_interval"], abs=1e-6)

    def test_means_of_other_objects_are_our_own_mistake(self) -> None:
        with pytest.raises(AssertionError, match="other objects"):
            compare_means([np.zeros(2)], [np.zeros(3)], 0)

    def test_means_of_no_image(self) -> None:
        with pytest.raises(DataError, match="there is no image to measure"):
            compare_means([], [], 0)


def test_the_same_objects_against_another_truth_are_no_pair() -> None:
    """Labels that were edited between two measurements: the ids are the same, what was scored against is not."""
    base = scores_from(np.random.default_rng(0), 3, 0.1)
    other = [dataclasses.replace(image, area=image.area.copy()) for image in base]
    compare(base, other, 0)
    other[1].area[0] += 1
    with pytest.raises(DataError, match="base and tuned have other objects in image 'image 1'"):
        compare(base, other, 0)


@pytest.mark.parametrize(("independent", "few"), [(1, True), (9, True), (10, False), (None, False)])
def test_intervals_of_fewer_than_ten_images_are_doubtful(independent: int | None, few: bool) -> None:
    """Files that are older do not say how many."""
    assert too_few({} if independent is None else {"independent": independent}) is few


def test_means_say_how_many_things_they_rest_on() -> None:
    figures = [np.array([0.2, 0.4]), np.array([0.5]), np.array([0.9])]
    assert compare_means(figures, figures, 0).independent == 3
    assert compare_means(figures[:1], figures[:1], 0).independent == 1
    assert compare_means(figures, figures, 0, ["a", "b", "a"]).independent == 2
    assert compare_means(figures, figures, 0, ["a", None, None]).independent == 3


def test_what_was_resampled_is_told_of_images_groups_and_objects() -> None:
    scores = scores_from(np.random.default_rng(0), 3, 0.1)
    for groups, said in (
        ((None, None, None), "images"), (("a", "b", "c"), "images"), (("a", "a", None), "groups"),
        (("a", "a", "a"), "objects"),
    ):  # fmt: skip
        some = [dataclasses.replace(one, group=group) for one, group in zip(scores, groups, strict=True)]
        assert summarize(some, 0)["resampled"] == said


def test_nothing_where_nothing_is_is_perfect() -> None:
    empty, pixel = np.zeros((1, 6, 8), np.bool_), square(6, 8, 2, 2, 1)[None]
    perfect = summarize([score_image("a", ["x"], empty, empty)], 0)
    assert (perfect["f1"], perfect["iou_pooled"], perfect["f1_interval"]) == (1, 1, [1, 1])
    missed = summarize([score_image("a", ["x"], empty, pixel)], 0)
    assert (missed["f1"], missed["iou_pooled"], missed["f1_interval"]) == (0, 0, [0, 0])
    found = summarize([score_image("a", ["x"], pixel, pixel)], 0)
    assert (found["f1"], found["iou_pooled"]) == (1, 1)
