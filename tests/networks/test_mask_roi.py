"""The mask ROI-CNN on a graphics card, as far as a machine without one can tell; all else is in tests/contracts."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from domainseg.networks.mask_roi import roi_align_kernel


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Deterministic algorithms are asked for, as Lightning does in a fit."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("on_card", [True, False])
@pytest.mark.usefixtures("deterministic")
def test_on_a_card_torchvision_is_not_asked_to_compile_its_pooling(on_card: bool) -> None:
    with roi_align_kernel(SimpleNamespace(is_cuda=on_card)):  # type: ignore[arg-type]
        assert torch.are_deterministic_algorithms_enabled() is not on_card
    assert torch.are_deterministic_algorithms_enabled()  # and afterwards all is as it was
    assert torch.is_deterministic_algorithms_warn_only_enabled()
