"""Work in passes: the same sums to the bit, whatever the number of threads and processes.

How many threads share a kernel decides in which order it adds numbers, and so their last bits, and a training makes
other networks of other last bits. So work on a CPU is cut into passes by its content alone. One thread does a pass from
beginning to end; the passes are shared out among the threads of each process and among the processes; and what they
give is added in a way that no order shows in. On a GPU each process does its share of a batch in one pass: kernels
there are made for that, and are not all repeatable to the bit.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_modules import worker

UNIT = 2.0**-40  # terms of a sum are rounded to multiples of this: far below what any training notices
WHOLE = 2.0**52  # multiples up to this are added in float64 without rounding, in whatever order
STATISTICS = 2.0**-8  # batch statistics are larger numbers than gradients: they travel divided by 256

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew:
    """The threads that this process may use, each doing whole passes; on a GPU there is one. A context manager: inside
    it every kernel on the CPU runs on one thread."""

    def __init__(self) -> None:
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", torch.cuda.current_device()) if self.gpu else torch.device("cpu")
        self.threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Crew":
        if self.gpu:
            torch.backends.cudnn.deterministic = True
        else:
            torch.set_num_threads(1)
            if self.threads > 1:
                self._pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.threads)

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results of ``work`` in the order of ``items``; gradients and autocast are on each thread as they are here."""
        if self._pool is None:
            return map(work, items)
        grad, cast, kind = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def alike(item: Item) -> Result:
            with torch.set_grad_enabled(grad), torch.autocast("cpu", kind, enabled=cast):
                return work(item)

        return self._pool.map(alike, items)

    def total(self, work: Callable[[Item], Tensor], items: Sequence[Item], size: int) -> Tensor:
        """The sum over all items, those of other processes too, of ``work(item)``; every process calls this alike.

        Terms are rounded to multiples of 2^-40 and bounded by 2^12 over the number of items. Such whole numbers add up
        exactly, so the sum does not depend on who did what.

        Args:
            work: gives (size,) float32.
            items: all of the work, the same in every process; each does every ``world``-th.
            size: of a term.

        Returns:
            (size,) float64, not finite where a term was no number.
        """
        most = WHOLE / max(1, len(items))
        total = torch.zeros(size, dtype=torch.float64, device=self.device)
        own = items[worker.rank() :: worker.world()]
        for term in self.map(lambda item: (work(item) / UNIT).round_().clamp_(-most, most), own):
            total += term
        if worker.world() > 1:
            torch.distributed.all_reduce(total)
        return total * UNIT


class PassTrainer(pl.LightningModule):
    """Trains ``net`` by gradients that are sums over passes.

    A subclass says what a step's passes are and what each adds to the batch's loss.

    Where a network learns batch statistics, they are those of each pass, and the running ones move by the passes' mean.
    """

    def __init__(self, crew: Crew) -> None:
        super().__init__()
        self.crew = crew
        self._own = threading.local()
        self._lock = threading.Lock()
        self._gradient: tuple[Tensor, ...] = ()

    @property
    def net(self) -> nn.Module:
        """The network whose parameters are trained."""
        raise NotImplementedError

    def passes(self, step: int) -> Sequence[Any]:
        """The whole batch of a step, cut into passes: the same in every process."""
        raise NotImplementedError

    def pass_loss(self, part: Any, net: nn.Module) -> Tensor:
        """What a pass adds to the batch's loss, by ``net``, this thread's view of the network."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of the whole batch; what the loader hands in is only a tick.

        Raises ValueError where it, or a gradient, is no finite number.
        """
        parts = self.passes(self.global_step)
        wanted = [p for p in self.net.parameters() if p.requires_grad]
        learned = _learned_statistics(self.net)
        sizes = [t.numel() for t in (*wanted, *learned)]
        total = self.crew.total(lambda part: self._term(part, wanted, learned, len(parts)), parts, sum(sizes) + 1)
        if not torch.isfinite(total).all():
            raise ValueError(f"the loss or its gradient is no finite number at step {self.global_step}; lower --lr")
        *terms, loss = total.float().split([*sizes, 1])
        self._gradient = tuple(terms[: len(wanted)])
        for statistic, moved in zip(learned, terms[len(wanted) :], strict=True):
            statistic += moved.view_as(statistic) / STATISTICS
        return loss[0]

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Hand the gradients over: the passes have computed them already."""
        wanted = (p for p in self.net.parameters() if p.requires_grad)
        for parameter, gradient in zip(wanted, self._gradient, strict=True):
            parameter.grad = gradient.view_as(parameter)
        self._gradient = ()

    def _term(self, part: Any, wanted: list[nn.Parameter], learned: list[Tensor], passes: int) -> Tensor:
        net = self._view()
        mine = _learned_statistics(net)
        with torch.no_grad():
            for statistic, start in zip(mine, learned, strict=True):
                statistic.copy_(start)
        loss = self.pass_loss(part, net)
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        moved = [(s - start) * (STATISTICS / passes) for s, start in zip(mine, learned, strict=True)]
        return torch.cat([t.detach().float().reshape(-1) for t in (*gradients, *moved, loss)])

    def _view(self) -> nn.Module:
        """This thread's copy of the network around the one set of parameters: a forward leaves traces in a module."""
        if not hasattr(self._own, "net"):
            with self._lock:
                self._own.net = copy.deepcopy(self.net, {id(p): p for p in self.net.parameters()})
        view: nn.Module = self._own.net
        return view


def _learned_statistics(net: nn.Module) -> list[Tensor]:
    norms = (m for m in net.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats)
    return [t for norm in norms for t in (norm.running_mean, norm.running_var) if t is not None]


class _Unwrapped(DDPStrategy):
    """Processes that start from the same weights and add their gradients up themselves: no wrapper may do it again."""

    def configure_ddp(self) -> None:
        assert self.model is not None
        for tensor in self.model.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def strategy() -> Strategy | str:
    """How a Trainer shares a ``PassTrainer`` out among the processes that are there."""
    return _Unwrapped() if worker.world() > 1 else "auto"
