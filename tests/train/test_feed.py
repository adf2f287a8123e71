"""Which images a step sees: every process its part, each epoch another order, the same however a run was cut up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from edgetune.errors import UsageError
from edgetune.train.feed import Feed
from edgetune.train.objective import Objective
from edgetune.train.reading import TIMED, Reader
from edgetune.train.step import Batch, generator, step_seed

CPU = torch.device("cpu")
STEPS = 9


def feed(dataset, recipe, *, seed: int = 0, augment: dict[str, Any] | None = None, **changes: Any) -> Feed:
    plain = recipe(**changes)
    plain = plain.model_copy(update={"augment": plain.augment.model_copy(update={"flip": True} | (augment or {}))})
    objective = Objective(dataset.heads, {}, dataset.targets("train"), label_smoothing=0.0)
    return Feed(dataset, plain, objective, seed=seed, device=CPU)


def as_rank(rank: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, str(value))


def epoch(made: Feed, number: int = 0, first: int = 0) -> list[Batch]:
    return list(made.stream(number, number, first))


def equal(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("rows", "views", "targets", "known")
    )  # fmt: skip


def test_an_epoch_sees_each_image_once_and_the_next_in_another_order(dataset, recipe) -> None:
    made = feed(dataset, recipe)
    first, second = epoch(made, 0), epoch(made, 1)
    assert len(first) == made.steps_per_epoch == STEPS
    for batches in (first, second):
        assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(72))
        assert all(torch.equal(batch.rows, batch.rows.sort().values) for batch in batches)
    assert [batch.rows.tolist() for batch in first] != [batch.rows.tolist() for batch in second]


def test_what_is_left_over_is_another_part_each_time(dataset, recipe) -> None:
    made = feed(dataset, recipe, batch_size=10)
    seen = [set(torch.cat([batch.rows for batch in epoch(made, number)]).tolist()) for number in range(2)]
    assert [len(rows) for rows in seen] == [70, 70]
    assert seen[0] != seen[1]


def test_targets_and_views_belong_to_their_rows(dataset, recipe) -> None:
    still = {
        "crop_min_area": 1.0,
        "aspect": 1.0,
        "rotation_degrees": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
    }
    made = feed(dataset, recipe, augment={**still, "flip": False})
    sources, labels = torch.from_numpy(np.array(dataset.source_images())), dataset.labels("train")
    for batch in epoch(made)[:2]:
        assert batch.targets[:, 0].tolist() == labels[batch.rows.numpy()].tolist()
        expected = sources[batch.rows].permute(0, 3, 1, 2).float() / 255
        expected = torch.nn.functional.interpolate(expected, (32, 32), mode="bilinear", antialias=False)
        assert (batch.views.mean(dim=(2, 3)) - expected.mean(dim=(2, 3))).abs().max() < 0.05
        assert batch.known.tolist() == [8]


def test_an_epoch_begun_in_its_middle_goes_on_with_the_same_bits(dataset, recipe) -> None:
    whole = epoch(feed(dataset, recipe), 3)
    rest = epoch(feed(dataset, recipe), 3, 4)
    assert len(rest) == STEPS - 4
    assert all(equal(one, other) for one, other in zip(whole[4:], rest, strict=True))


def test_views_depend_on_seed_and_view_alone(dataset, recipe) -> None:
    """Not on the order, nor on the size of batches: else a teacher could not be asked once."""

    def by_row(made: Feed, number: int, view: int) -> dict[int, torch.Tensor]:
        batches = made.stream(number, view, 0)
        return {int(row): image for batch in batches for row, image in zip(batch.rows, batch.views, strict=True)}

    first = by_row(feed(dataset, recipe), 0, 0)
    again = by_row(feed(dataset, recipe, batch_size=24), 5, 0)
    assert all(torch.equal(first[row], again[row]) for row in range(72))
    others = [by_row(feed(dataset, recipe), 0, 1), by_row(feed(dataset, recipe, seed=1), 0, 0)]
    assert all(not torch.equal(first[row], other[row]) for other in others for row in range(72))


@pytest.mark.parametrize("augment", [{}, {"mixup": 0.4}, {"cutmix": 1.0}])
def test_two_processes_see_together_what_one_would(dataset, recipe, monkeypatch, augment) -> None:
    whole = epoch(feed(dataset, recipe, augment=augment))
    parts = []
    for rank in range(2):
        as_rank(rank, 2, monkeypatch)
        parts.append(epoch(feed(dataset, recipe, augment=augment)))
    for step, (one, *halves) in enumerate(zip(whole, *parts, strict=True)):
        for rank, half in enumerate(halves):
            own = slice(rank, None, 2)
            assert torch.equal(half.rows, one.rows[own]), step
            assert torch.equal(half.views, one.views[own]), step
            assert torch.equal(half.targets, one.targets[own])
            # The gradients of the processes are averaged, so that each divides by its share of the known.
            assert torch.equal(half.known, one.known / 2)
            if augment:
                assert torch.equal(half.mixture.targets, one.mixture.targets[own])
                assert torch.equal(half.mixture.share, one.mixture.share[own])
    assert {len(half.rows) for half in parts[0]} == {4}


def test_a_batch_that_cannot_be_shared_evenly_is_refused(dataset, recipe, monkeypatch) -> None:
    as_rank(0, 3, monkeypatch)
    with pytest.raises(UsageError, match=r"train.batch_size = 8 cannot be shared evenly by 3 processes\n.*multiple of 3"):
        feed(dataset, recipe)


@pytest.fixture(scope="module")
def unbalanced(dataset, tmp_path_factory):
    """Twelve bars and four frames among 56 discs, and eight images of nothing known."""
    folder = tmp_path_factory.mktemp("unbalanced")
    labels = np.repeat([0, 1, 2], [56, 12, 4])
    for name, content in {"labels": labels, "source": dataset.source_images()}.items():
        (folder / "train").mkdir(exist_ok=True)
        np.save(folder / "train" / f"{name}.npy", content)
    (folder / "unlabelled").mkdir()
    np.save(folder / "unlabelled" / "source.npy", dataset.source_images()[:8])
    return dataset.at(folder)


def test_the_sampler_draws_all_classes_alike(unbalanced, recipe) -> None:
    made = feed(unbalanced, recipe, balance="sampler")
    labels = unbalanced.labels("train")
    drawn = [row for number in range(40) for batch in epoch(made, number) for row in batch.rows.tolist()]
    counts = Counter(labels[drawn].tolist())
    assert len(drawn) == 40 * 72
    # 960 of each are expected, with a standard deviation of 25.
    assert all(abs(counts[label] - 960) < 110 for label in range(3))
    plain = Counter(labels[[row for batch in epoch(feed(unbalanced, recipe)) for row in batch.rows.tolist()]].tolist())
    assert plain == {0: 56, 1: 12, 2: 4}


def test_images_without_labels_follow_those_with(unbalanced, recipe) -> None:
    both = unbalanced.model_copy(update={"unlabelled": 8}).at(unbalanced.folder)
    for balance in ("none", "sampler"):
        made = feed(both, recipe, balance=balance)
        assert (made.rows, made.steps_per_epoch) == (80, 10)
        seen = Counter()
        for number in range(20):
            for batch in epoch(made, number):
                seen.update(batch.rows.tolist())
                assert torch.equal(batch.targets[:, 0].isnan(), batch.rows >= 72)
                assert batch.known.item() == max(1, int((batch.rows < 72).sum()))
        # Each as often as an average image: 20 times, give or take.
        assert sum(seen[row] for row in range(72, 80)) == pytest.approx(160, abs=0 if balance == "none" else 50)


@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_parts_of_a_batch_are_the_batch(dataset, recipe, count) -> None:
    batch = next(feed(dataset, recipe, augment={"mixup": 0.4}).stream(0, 0, 0))
    parts = batch.parts(count)
    assert len(parts) == min(count, 8)
    for name in ("rows", "views", "targets"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert torch.equal(torch.cat([part.mixture.share for part in parts]), batch.mixture.share)
    assert torch.equal(torch.cat([part.mixture.targets for part in parts]), batch.mixture.targets)
    assert all(torch.equal(part.known, batch.known) for part in parts)
    assert batch.parts(1) == [batch]


def test_seeds_of_steps_and_purposes_are_all_different() -> None:
    seeds = {step_seed(seed, epoch, step) for seed in range(3) for epoch in range(20) for step in range(20)}
    assert len(seeds) == 3 * 20 * 20
    assert step_seed(2**31 - 1, 9_999, 10**6) != step_seed(2**31 - 1, 10_000, 10**6)
    drawn = {torch.rand(1, generator=generator(seed, 1, purpose)).item() for seed in range(5) for purpose in range(5)}
    assert len(drawn) == 25


@pytest.mark.parametrize("slow", [False, True])
def test_reading_ahead_changes_nothing_but_the_time(monkeypatch, slow) -> None:
    """Slow reads are taken off by threads; the batches come in their order, whichever is read first."""
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 256, (count, 4, 4, 3), np.uint8) for count in (30, 10)]
    everything = np.concatenate(arrays)
    reader = Reader(arrays, CPU)
    if slow:
        read = reader.read

        pauses = iter(np.linspace(0.004, 0.0, TIMED + 12).tolist())  # The later, the faster.

        def slowly(rows: np.ndarray) -> torch.Tensor:
            time.sleep(next(pauses))
            return read(rows)

        monkeypatch.setattr(reader, "read", slowly)
    batches = [np.sort(random.choice(40, 6, replace=False)) for _ in range(TIMED + 12)]
    found = list(reader.stream(batches))
    assert all(np.array_equal(images.numpy(), everything[rows]) for images, rows in zip(found, batches, strict=True))
    if slow:
        assert reader.threads > 0


def test_a_stream_that_is_left_early_leaves_no_threads(monkeypatch) -> None:
    reader = Reader([np.zeros((40, 4, 4, 3), np.uint8)], CPU)
    read = reader.read
    monkeypatch.setattr(reader, "read", lambda rows: (time.sleep(0.003), read(rows))[1])
    stream = reader.stream([np.arange(4)] * 30)
    for _ in range(TIMED + 3):
        next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgetune-read")]
