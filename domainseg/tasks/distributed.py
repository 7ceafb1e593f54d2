"""What a fit in several processes asks of Lightning and of the network."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.utilities.apply_func import move_data_to_device
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, default_collate

from domainseg.tasks import ranks

if TYPE_CHECKING:
    from domainseg.tasks.fit import StepModule

log = logging.getLogger(__name__)


class Joined(ClusterEnvironment):
    """Tells Lightning that the processes are there and joined; it starts none and reads no variables.

    In a run of one process too: inside a SLURM job Lightning would put a handler in place that asks SLURM to start the
    job anew.
    """

    creates_processes_externally = True
    main_address = ""  # the group is made: nobody connects any more
    main_port = 0

    def __init__(self, devices: int) -> None:
        self.devices = devices

    @staticmethod
    def detect() -> bool:
        """Never found by itself."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return ranks.size()

    def set_world_size(self, size: int) -> None:
        """Checked, since it is what it is."""
        assert size == ranks.size()

    def global_rank(self) -> int:
        """Number of this process."""
        return ranks.rank()

    def set_global_rank(self, rank: int) -> None:
        """Checked, since it is what it is."""
        assert rank == ranks.rank()

    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return ranks.rank() % self.devices

    def node_rank(self) -> int:
        """Number of the machine."""
        return ranks.rank() // self.devices


@contextmanager
def all_trained(module: StepModule, loader: DataLoader[Any]) -> Iterator[None]:
    """Inside, parameters that the loss of this phase does not reach need no gradient.

    The phases of a stage train parts of a network, and DDP waits for the gradient of every parameter that needs one.
    Which ones the loss reaches is seen on one sample, as in training but with running statistics, so that nothing of
    the network changes.
    In a run of one process nothing is done: such parameters have no gradient anyway.
    """
    if ranks.size() == 1:
        yield
        return
    trained = [p for p in module.network.parameters() if p.requires_grad]
    key = next(iter(loader.batch_sampler))[0]  # type: ignore[arg-type]
    module.network.train()
    for layer in module.network.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
    device = trained[0].device if trained else torch.device("cpu")
    loss = module.loss(move_data_to_device(default_collate([loader.dataset[key]]), device))["loss"]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    still = [p for p, gradient in zip(trained, gradients, strict=True) if gradient is None]
    log.info("%s: %d of %d parameters are trained", module.name, len(trained) - len(still), len(trained))
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)


@contextmanager
def synchronised(network: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, batch norms take their statistics from the samples of all processes; afterwards they are as before.

    Lightning's own option leaves layers of another class behind, which the norms' freezing and the export do not know.
    """
    if not wanted or ranks.size() == 1:
        yield
        return
    before = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for name, layer in before.items():
            parent, _, own = name.rpartition(".")
            holder = network.get_submodule(parent)
            layer.load_state_dict(holder.get_submodule(own).state_dict())
            holder.register_module(own, layer)
