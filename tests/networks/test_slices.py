"""Convolutions over stacks of slices against torch's own in three dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from domainseg.networks.slices import SliceConv, apart, by_slice


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("depth", "valid"), [(1, False), (2, True), (3, False), (3, True)])
@pytest.mark.parametrize("stride", [1, 2])
def test_is_a_convolution_in_three_dimensions(
    layout: torch.memory_format, depth: int, valid: bool, stride: int
) -> None:
    torch.manual_seed(0)
    slices, channels, width = 5, 3, 4
    ours = SliceConv(slices, channels, width, depth, 3, stride=stride, valid=valid).to(memory_format=layout)
    theirs = nn.Conv3d(
        channels,
        width,
        (depth, 3, 3),
        stride=(1, stride, stride),
        padding=(0 if valid else depth // 2, 1, 1),
        bias=False,
    )
    theirs.weight.data = ours.weight.data.unflatten(1, (depth, channels)).transpose(1, 2).contiguous()
    x = torch.randn(2, slices, channels, 8, 6)
    y = x.clone().requires_grad_()
    found = ours(y.flatten(0, 1).contiguous(memory_format=layout))
    expected = theirs(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(apart(found, expected.shape[1]), expected)
    grown = torch.autograd.grad(found.square().sum(), y)[0]
    z = x.clone().requires_grad_()
    theirs(z.transpose(1, 2)).square().sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(grown, z.grad, rtol=1e-4, atol=1e-4)


def test_by_slice_takes_a_slab_apart() -> None:
    x = torch.arange(2 * 6).float().reshape(1, 6, 1, 2)  # two windows of three slices
    assert by_slice(x, 2, 3)[:, :, 0, 0].tolist() == [[0.0, 6.0], [2.0, 8.0], [4.0, 10.0]]
