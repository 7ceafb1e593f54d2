"""The order of samples depends on seed and step only; balance is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from domainseg.tasks.items import StepSampler, as_uint16, as_unit, balancing


def test_every_sample_is_seen_once_a_pass() -> None:
    batches = list(StepSampler(12, steps=6, batch_size=4, seed=1))
    seen = [index for batch in batches for _, index in batch]
    assert sorted(seen[:12]) == list(range(12))
    assert sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_a_resumed_order_is_the_rest_of_the_whole(weights: list[float] | None) -> None:
    whole = list(StepSampler(5, steps=20, batch_size=3, seed=7, weights=weights))
    rest = list(StepSampler(5, steps=20, batch_size=3, seed=7, weights=weights, start=8))
    assert rest == whole[8:]


def test_balancing_draws_the_wanted_share() -> None:
    labels = [1] * 5 + [0] * 95
    weights = balancing(labels, share=0.4)
    drawn = [
        labels[index]
        for batch in StepSampler(100, steps=500, batch_size=8, seed=0, weights=weights)
        for _, index in batch
    ]
    assert np.mean(drawn) == pytest.approx(0.4, abs=0.03)
    assert balancing([0, 0], 0.5) == [1.0, 1.0]


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        StepSampler(0, steps=1, batch_size=1, seed=0)


def test_pictures_survive_the_cache_to_half_a_level() -> None:
    picture = np.random.default_rng(0).random((30, 40), dtype=np.float32)
    assert np.abs(as_unit(as_uint16(picture)) - picture).max() < 0.51 / 65535
