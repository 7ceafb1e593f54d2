"""The processes that train together: which one this is, and how what they hold is put together.

Everything here also works in a run of one process, where it costs nothing. The process group itself is made and ended
by ``training.processes``; all that has to agree (rows, samples, denominators, buffers) goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)  # of one exchange: the first process may simulate films for so long


def rank() -> int:
    """Number of this process, 0 for the first, which writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes files."""
    return rank() == 0


def share(things: Sequence[T]) -> Sequence[T]:
    """What this process does of a list that all of them know."""
    return things[rank() :: size()]


def gather(mine: T) -> list[T]:
    """What every process holds, in their order, on every process. Objects travel as they are: nothing is padded."""
    if size() == 1:
        return [mine]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, mine, group=_objects())
    return found


def first(make: Callable[[], T]) -> T:
    """What the first process makes (writing files, reading what others may be writing), on every process."""
    if size() == 1:
        return make()
    made: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(made, src=0, group=_objects())
    value: T = made[0]
    return value


def barrier() -> None:
    """Wait until every process is here."""
    if size() > 1:
        dist.barrier(group=_objects())


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block alone, then the others: what it wrote, they find."""
    if not is_first():
        barrier()
    yield
    if is_first():
        barrier()


def count(mine: Tensor) -> Tensor:
    """The denominator of a loss that is a sum over what it counts in the batch: at least 1.

    DDP averages the gradients of the processes. With the count of the whole batch divided by their number, the average
    is the sum over the whole batch by the count of the whole batch, as one process has it.
    """
    if size() == 1:
        return mine.clamp(min=1)
    total = _summed(mine.detach().float())
    return total.clamp(min=1) / size()


def total(mine: Tensor) -> Tensor:
    """A sum over the whole batch, for losses that are no plain sums of their samples (Dice).

    Each process gets the same value. Its gradient is that of the process's own part times their number, so that the
    average which DDP takes is the gradient that one process would have.
    """
    if size() == 1:
        return mine
    everywhere = _summed(mine.detach())
    return everywhere + size() * (mine - mine.detach())


def _summed(mine: Tensor) -> Tensor:
    """The sum over all processes. What lies on the processor, as before a network is moved, needs a group that does."""
    everywhere = mine.clone()
    dist.all_reduce(everywhere, group=None if everywhere.is_cuda else _objects())
    return everywhere


def same_buffers(network: nn.Module) -> None:
    """Give every process the first one's buffers: running statistics follow each process's own share of a batch."""
    if size() > 1:
        buffers = first(lambda: [buffer.cpu() for buffer in network.buffers()])
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(value)


def _objects() -> Any:
    """A group whose messages need no graphics card; the default group when that is one already."""
    if dist.get_backend() == "gloo":
        return None
    if dist.group.WORLD not in _GROUPS:
        _GROUPS.clear()
        _GROUPS[dist.group.WORLD] = dist.new_group(backend="gloo", timeout=TIMEOUT)
    return _GROUPS[dist.group.WORLD]


_GROUPS: dict[Any, Any] = {}
