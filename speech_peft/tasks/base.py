"""A task: a loss over batches. Freezing, rates, checkpoints, procedures and validation are inherited."""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import OptimConfig, Recipe
from ..core.lifecycle import Outcome, Predicted
from ..errors import ConfigError, SpeechPeftError

if TYPE_CHECKING:
    from ..backbones.base import Backbone, Encoded, Features
    from ..core.model import AdaptedModel
    from ..core.site import Site
    from .clips import Batch
    from .prefix_cache import PrefixCache

# How many training batches a method with a procedure is shown before step 0 (scores, masks).
FIRST_BATCHES = 8


@dataclass(frozen=True)
class Loss:
    """A batch's summed loss, and how many targets (tokens, clips) it is summed over."""

    total: Tensor
    targets: int
    predicted: Predicted | None = None
    """For methods that let two passes agree."""


@dataclass(frozen=True)
class Scores:
    """What validation found; lower is better."""

    name: str
    value: float
    loss: float


class Task(L.LightningModule, ABC):
    """Trains the adapters named in the recipe, and a task's own heads, on a frozen backbone."""

    def __init__(self, recipe: Recipe, backbone: Backbone, model: AdaptedModel):
        super().__init__()
        self.recipe, self.backbone, self.model = recipe, backbone, model
        self.heads = nn.ModuleDict()
        self.cache: PrefixCache | None = None
        self.strict_loading = False  # the base is not in our checkpoints; see load_state_dict
        self.batches_seen = 0
        self._targets: list[float] = []  # of the batches since the last optimiser step
        self.scores: Scores | None = None
        self._seconds_before, self._started = 0.0, time.monotonic()
        model.activate(*recipe.active)
        model.trainable(*recipe.train)
        self.base_parameters: dict[str, nn.Parameter] = {}
        """Of the base, by name: what full fine-tuning trains; empty where the base is frozen."""
        if recipe.backbone.train:
            self.base_parameters = backbone.encoder_parameters()
            for parameter in self.base_parameters.values():
                parameter.requires_grad_(True)
        lives = {name: model.methods[name].lifecycle(model, name) for name in recipe.train}
        self.lifecycles = {name: life for name, life in lives.items() if life is not None}
        self.apart = [list(group) for life in self.lifecycles.values() for group in life.own()]
        """Groups of parameters that differ between processes."""
        self._hide_from_ddp()

    def _hide_from_ddp(self) -> None:
        """Of the adapters with such parameters also no buffer is sent: they see to that themselves."""
        names = {id(p): name for name, p in self.named_parameters()}
        whose = [f"model.adapters.{name}." for name, life in self.lifecycles.items() if life.own()]
        buffers = [name for name, _ in self.named_buffers() if name.startswith(tuple(whose))]
        own = [names[id(p)] for group in self.apart for p in group]
        # Nor is the frozen base: all have read the same, and decoders that are not called hold no memory.
        base = [
            name
            for name, p in self.named_parameters()
            if name.startswith("model.base.") and not p.requires_grad
        ]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, own + buffers + base)

    # ---- what a task says ---------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """The loss of one batch."""

    @abstractmethod
    def validate(self, batches: list[Any]) -> Scores:
        """The scores of a whole validation set, from what `validation_step` returned for each batch."""

    @classmethod
    @abstractmethod
    def sites(cls, recipe: Recipe, backbone: Backbone) -> list[Site]:
        """Where adapters may sit: only where this task passes through."""

    def head_config(self) -> dict[str, Any]:
        """What rebuilds the heads at inference; written into adapter.json."""
        return {}

    @property
    def written(self) -> tuple[str, ...]:
        """The adapters that are saved, each with the heads."""
        return self.recipe.train

    def encode(self, batch: Batch) -> Encoded:
        """Encoder states of a batch, through the prefix cache when there is one."""
        if self.cache is not None:
            return self.cache.encode(batch)
        return self.backbone.encode(self.prepare(batch))

    def prepare(self, batch: Batch, pad_to: int = 0) -> Features:
        """Features of a batch, in float32 whatever the precision of the run."""
        with torch.autocast(self.device.type, enabled=False):
            return self.backbone.prepare(batch.audio, batch.lengths, pad_to=pad_to)

    # ---- training -----------------------------------------------------------------------------------------

    def trained(self) -> list[nn.Parameter]:
        """Every parameter that trains: the adapters named in `train`, the heads, and a base that is tuned."""
        return [*self._adapted(), *(p for p in self.heads.parameters() if p.requires_grad)]

    def _adapted(self) -> list[nn.Parameter]:
        own = [p for name in self.recipe.train for p in self.model.parameters_of(name) if p.requires_grad]
        return [*own, *self.base_parameters.values()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optim = self.recipe.optim
        heads = [p for p in self.heads.parameters() if p.requires_grad]
        groups = [
            {"params": self._adapted(), "times": 1.0},
            {"params": heads, "times": (optim.head_lr or optim.lr) / optim.lr},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=optim.lr,
            betas=optim.betas,
            weight_decay=optim.weight_decay,
        )

    @property
    def seconds(self) -> float:
        """Training time so far, earlier parts of a resumed run included."""
        return self._seconds_before + time.monotonic() - self._started

    def fraction(self) -> float:
        """How far the run is, 0 to 1: by steps or by time, whichever is further."""
        trainer = self.recipe.trainer
        by_steps = self.global_step / trainer.max_steps if trainer.max_steps else 0.0
        by_time = self._shared_seconds() / (60 * trainer.max_minutes) if trainer.max_minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def _shared_seconds(self) -> float:
        """The first process's clock, so that every process takes the same step and stops together."""
        return self.trainer.strategy.broadcast(self.seconds) if self.trainer.world_size > 1 else self.seconds

    def on_train_start(self) -> None:
        self._started = time.monotonic()
        if self.backbone.let_gone:
            # Again, after `build`: the trainer has moved the model since, and a tensor that was expanded from
            # one number takes its whole place on the GPU.
            self.backbone.let_go()
        if self.apart and self.trainer.world_size > 1 and self.trainer.precision == "16-mixed":
            raise ConfigError(
                "trainer.precision: in 16-mixed a process whose gradients overflow leaves a step out, and "
                "each has some of its own here: what they share would part. Use bf16-mixed or 32-true"
            )
        if self.lifecycles and self.global_step == 0:
            for life in self.lifecycles.values():
                # In the precision of the steps that follow.
                with self.trainer.precision_plugin.train_step_context():
                    life.on_fit_start(self._mean_loss, self._first_batches())

    def _first_batches(self) -> Iterator[Batch]:
        loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        for batch in islice(loader, FIRST_BATCHES):
            yield self.transfer_batch_to_device(batch, self.device, 0)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        rate = learning_rate(self.recipe.optim, self.global_step, self.fraction())
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["times"]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        # The randomness of a batch is a function of its place in the run: a resumed run repeats it exactly.
        torch.manual_seed(_seed(self.recipe.seed, self.global_rank, self.batches_seen))
        for life in self.lifecycles.values():
            life.before_forward(self.global_step)
        outcome, targets = self._outcome(batch)
        total = loss = outcome.loss
        for life in self.lifecycles.values():
            extra = life.extra_losses(self.global_step, outcome, lambda: self._outcome(batch)[0])
            total = sum(extra.values(), start=total)
        self.batches_seen += 1
        self._targets.append(targets)
        return {"loss": total * self._weight(), "task_loss": loss.detach()}

    def generator(self) -> torch.Generator:
        """The randomness of the batch at hand, a function of its place in the run."""
        return torch.Generator().manual_seed(_seed(self.recipe.seed, self.global_rank, self.batches_seen, 2))

    def _mean_loss(self, batch: Batch) -> Tensor:
        return self._outcome(batch)[0].loss

    def _outcome(self, batch: Batch) -> tuple[Outcome, float]:
        """The mean over the targets of all processes with what was predicted, and their number per process.

        Each target weighs the same however they are spread.
        """
        if len(batch.lengths):
            loss = self.loss(batch)
        else:  # every clip of the batch was unreadable; the other processes have theirs
            nothing = torch.stack([p.sum() for p in self.trained()]).sum() * 0.0
            loss = Loss(nothing, 0, Predicted(nothing.new_zeros(0, 1), "values"))
        targets: float = loss.targets
        if self.trainer.world_size > 1:
            count = torch.tensor(float(loss.targets), device=self.device)
            targets = self.trainer.strategy.reduce(count, reduce_op="mean").item()
        return Outcome(loss.total / max(targets, 1.0), loss.predicted), targets

    def _weight(self) -> float:
        """How much the newest accumulated batch counts beside the first."""
        return self._targets[-1] / max(self._targets[0], 1.0) if len(self._targets) > 1 else 1.0

    def _even_out(self) -> None:
        """Accumulated gradients become those of one batch: the mean over targets, not over batches."""
        counts, self._targets = self._targets, []
        if len(counts) == 1:
            return
        # Batch i came in with the weight n_i / n_1, and the trainer took the mean of all.
        factor = len(counts) * max(counts[0], 1.0) / max(sum(counts), 1.0)
        for p in self.trained():
            if p.grad is not None:
                p.grad.mul_(factor)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._even_out()
        for life in self.lifecycles.values():
            life.after_backward()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """One norm for what all processes share, and one for each group that they do not.

        A norm over both would differ between processes, and so would what they share after the step.
        """
        if not self.apart or gradient_clip_val is None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        apart = {id(p) for group in self.apart for p in group}
        every = [p for group in optimizer.param_groups for p in group["params"]]
        for group in ([p for p in every if id(p) not in apart], *self.apart):
            nn.utils.clip_grad_norm_(group, gradient_clip_val)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        for life in self.lifecycles.values():
            life.after_step(self.global_step)

    def settle(self) -> None:
        """Bring the adapters to the form in which they are validated and saved."""
        for life in self.lifecycles.values():
            life.before_eval()

    # ---- validation ---------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._validated: list[Any] = []
        self.settle()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if len(batch.lengths):
            self._validated.append(self.examine(batch))

    @abstractmethod
    def examine(self, batch: Batch) -> Any:
        """What `validate` needs to know of one batch."""

    def on_validation_epoch_end(self) -> None:
        self.scores = self.validate(self._validated)

    # ---- state: everything but the frozen base ------------------------------------------------------------

    def train(self, mode: bool = True) -> Task:
        super().train(mode)
        self.model.train(mode)  # keeps the base in eval mode
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = super().state_dict(*args, **kwargs)
        tuned = {f"model.base.{name}" for name in self.base_parameters}
        return {k: value for k, value in state.items() if not k.startswith("model.base.") or k in tuned}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Strict about everything that we save."""
        if wrong := set(self.state_dict()) ^ set(state_dict):
            raise SpeechPeftError(
                f"checkpoint: {', '.join(sorted(wrong)[:5])} on one side only; another recipe's?"
            )
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = {
            "batches_seen": self.batches_seen,
            "seconds": self.seconds,
            "recipe": self.recipe.model_dump(mode="json"),
            "base": self.backbone.card().sha256,
            "scores": vars(self.scores) if self.scores else None,
            "lifecycles": {name: life.state_dict() for name, life in self.lifecycles.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        run = checkpoint["run"]
        self.batches_seen, self._seconds_before = run["batches_seen"], run["seconds"]
        self.scores = Scores(**run["scores"]) if run["scores"] else None
        for name, life in self.lifecycles.items():
            life.load_state_dict(run["lifecycles"][name])


def _seed(*parts: int) -> int:
    """A 63-bit seed; the same parts give the same seed on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def chance(*parts: int) -> float:
    """A number in [0, 1) that the parts decide."""
    return _seed(*parts, 1) / 2**63


def learning_rate(optim: OptimConfig, step: int, fraction: float) -> float:
    """Warm-up by steps, then the schedule over the fraction of the run."""
    warm = min(1.0, (step + 1) / optim.warmup) if optim.warmup else 1.0
    match optim.schedule:
        case "linear":
            fall = 1.0 - fraction
        case "cosine":
            fall = 0.5 * (1.0 + math.cos(math.pi * fraction))
        case "constant":
            fall = 1.0
    return optim.lr * warm * fall


def check_frozen(task: Task) -> str:
    """The table of what trains; raises ConfigError when the base would train unasked, or too much would."""
    thawed = [
        name
        for name, p in task.model.base.named_parameters()
        if p.requires_grad and name not in task.base_parameters
    ]
    if thawed:
        raise ConfigError(
            f"the base would train: {', '.join(thawed[:5])} require(s) grad. Nothing was changed."
        )
    trained = sum(p.numel() for p in task.trained())
    own = [p for p in task.trained() if not any(p is q for q in task.base_parameters.values())]
    every = sum(p.numel() for p in task.model.base.parameters()) + sum(p.numel() for p in own)
    percent = 100 * trained / every
    limit = task.recipe.trainer.max_trainable_pct
    heads = [
        f"  head {name}: {sum(p.numel() for p in head.parameters()):,}" for name, head in task.heads.items()
    ]
    tuned = sum(p.numel() for p in task.base_parameters.values())
    base = [f"  of the base, fine-tuned: {tuned:,}"] if tuned else []
    last = f"  trained in all: {trained:,} = {percent:.2f} %"
    table = "\n".join([task.model.describe(), *heads, *base, last])
    if percent > limit and not tuned:  # full fine-tuning was asked for by name
        raise ConfigError(
            f"trainer.max_trainable_pct: {percent:.1f} % of all parameters would train, {limit:g} % may. "
            f"Choose a smaller adapter or raise the limit.\n{table}"
        )
    return table


def fingerprint(module: nn.Module, tuned: Collection[str] = ()) -> str:
    """sha256 over every parameter and buffer, by name: the frozen base has the same one before and after.

    `tuned` names what is fine-tuned and therefore left out.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name not in tuned:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def encoder_sites(backbone: Backbone, top: int | None = None) -> list[Site]:
    """The sites that the encoder passes through on its way to its states, or to the output of block `top`."""
    found = []
    for site in backbone.sites():
        block = backbone.block_of(site)
        if block is None or (top is not None and block >= top):
            continue
        if site.kind == "stack" and top not in (None, backbone.depth):
            continue  # its exit is the last block, which never runs
        found.append(site)
    return found
