"""Several processes that train one model together."""

import os

import torch

from sns_core.errors import UserError


class ProcessGroup:
    """The processes that torchrun starts to train one model together, or the only process without torchrun.

    Every process draws the whole batch and computes the loss of its own rows. The trained model therefore depends on
    the number of processes only through the order of a sum. Attributes: `rank` of this process; `size`, the number of
    processes; `device` of this process. The group is open inside a `with` block.
    """

    def __init__(self, device: torch.device):
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = device
        if device.type == "cuda" and self.size > 1:
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)

    def __enter__(self) -> "ProcessGroup":
        if self.size > 1:
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, *_) -> None:
        if self.size > 1:
            torch.distributed.destroy_process_group()

    def rows(self, batch: int) -> slice:
        """Return this process's rows of a batch. Raise UserError where the batch does not divide evenly."""
        if batch % self.size:
            raise UserError(
                f"training.batch: {batch} does not divide among {self.size} devices; take a multiple of {self.size}"
            )
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    @torch.no_grad()
    def average(self, tensors: list[torch.Tensor], *numbers: float) -> list[float]:
        """Replace `tensors`, of any shapes, by their means over all processes, and return the means of `numbers`.

        All values travel in one message, because a message costs more than the few numbers in it.
        """
        if self.size == 1:
            return list(numbers)
        flat = torch.cat([*(t.reshape(-1) for t in tensors), torch.tensor(numbers, device=self.device)])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([*(t.numel() for t in tensors), len(numbers)])
        for tensor, part in zip(tensors, parts[:-1], strict=True):
            tensor.copy_(part.view_as(tensor))
        return parts[-1].tolist()
