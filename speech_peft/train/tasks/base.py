"""A task: a loss over batches. Freezing, rates, checkpoints, procedures and validation are inherited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from ...core.context import Context
from ...core.lifecycle import Outcome, Predicted
from ...core.passage.ids import context_of
from ...errors import SpeechPeftError
from ...opening.enrolment import check_enrolled, enrolled
from ...opening.microphones import check_views, recorded
from ...recipe.recipe import Recipe
from ..step.accumulation import Accumulated
from ..step.apart import check_precision, clip_apart, hide_from_ddp
from ..step.elapsed import Elapsed
from ..step.finite import NotFinite
from ..step.optimizer import adamw, set_rate
from ..step.procedures import Procedures
from ..step.seeds import seed
from .scores import Loss, Scores

if TYPE_CHECKING:
    from ...backbones.base import Backbone, Encoded, Features
    from ...core.model import AdaptedModel
    from ...core.site import Site
    from ..data.heard import Batch
    from ..data.prefix_cache import PrefixCache


class Task(L.LightningModule, ABC):
    """Trains the adapters named in the recipe, and a task's own heads, on a frozen backbone."""

    def __init__(self, recipe: Recipe, backbone: Backbone, model: AdaptedModel):
        super().__init__()
        self.recipe, self.backbone, self.model = recipe, backbone, model
        self.heads = nn.ModuleDict()
        self.cache: PrefixCache | None = None
        self.strict_loading = False  # the base is not in our checkpoints; see load_state_dict
        self.batches_seen = 0
        self._accumulated = Accumulated()
        self.not_finite = NotFinite()
        self.scores: Scores | None = None
        self.owes_validation = False
        """Whether the step at hand is one to validate after, and that is still to do: a part of the state."""
        self.clips: dict[str, Any] = {}
        """Which clips it learns from, as `resume.clips` says it."""
        self.brings: list[Callback] = []
        """Callbacks of ours for a trainer of somebody else's making; `fit` gives its own trainer its own."""
        self.elapsed = Elapsed()
        check_enrolled(model, bool(recipe.data.enrol))
        check_views(model, recipe.data.channels == "views")
        model.activate(*recipe.active)
        model.trainable(*recipe.train)
        self.base_parameters: dict[str, nn.Parameter] = {}
        """Of the base, by name: what full fine-tuning trains; empty where the base is frozen."""
        if recipe.backbone.train:
            self.base_parameters = backbone.encoder_parameters()
            for parameter in self.base_parameters.values():
                parameter.requires_grad_(True)
        self.procedures = Procedures(model, recipe.train)
        self.apart = self.procedures.own
        """Groups of parameters that differ between processes."""
        hide_from_ddp(self, [p for group in self.apart for p in group], self.procedures.whose)

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
    def kept_heads(self) -> dict[str, nn.Module]:
        """The heads as they are saved."""
        return dict(self.heads)

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
            features = self.backbone.prepare(batch.audio, batch.lengths, pad_to=pad_to)
        return recorded(features, batch.lengths) if batch.views > 1 else features

    # ---- training -----------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """What Lightning adds to the callbacks of whichever trainer fits this task."""
        return self.brings

    def trained(self) -> list[nn.Parameter]:
        """Every parameter that trains: the adapters named in `train`, the heads, and a base that is tuned."""
        return [*self._adapted(), *(p for p in self.heads.parameters() if p.requires_grad)]

    def _adapted(self) -> list[nn.Parameter]:
        own = [p for name in self.recipe.train for p in self.model.parameters_of(name) if p.requires_grad]
        return [*own, *self.base_parameters.values()]

    def head_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters of the heads, and what their learning rate is multiplied by."""
        return [([p for p in self.heads.parameters() if p.requires_grad], 1.0)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        paces = {p: pace for name in self.recipe.train for p, pace in self.model.paces_of(name).items()}
        return adamw(self.recipe.optim, self._adapted(), paces, self.head_groups())

    def on_fit_start(self) -> None:
        self.elapsed.start()

    def on_train_start(self) -> None:
        if self.backbone.let_gone:
            # Again, after `build`: the trainer has moved the model since, and a tensor that was expanded from
            # one number takes its whole place on the GPU.
            self.backbone.let_go()
        if self.apart:
            check_precision(self.trainer)
        if self.global_step == 0:
            self.procedures.on_fit_start(lambda batch: self._outcome(batch)[0].loss, self)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        optimizer = self.trainer.optimizers[0]
        set_rate(optimizer, self.recipe.optim, self.global_step, self.elapsed.fraction)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        # The randomness of a batch is a function of its place in the run: a resumed run repeats it exactly.
        torch.manual_seed(seed(self.recipe.seed, self.global_rank, self.batches_seen))
        self.procedures.before_forward(self.global_step)
        outcome, targets = self._outcome(batch)
        loss = outcome.loss
        self.not_finite.heard(loss)
        total = self.procedures.total(self.global_step, outcome, lambda: self._outcome(batch)[0])
        self.batches_seen += 1
        self.log_dict(self.procedures.numbers(), batch_size=max(1, len(batch.lengths)))
        self.log("train_loss", loss.detach(), batch_size=max(1, len(batch.lengths)))
        return {"loss": total * self._accumulated.add(targets), "task_loss": loss.detach()}

    def heard(self, batch: Batch) -> Batch:
        """What a step learns from of a batch: all clips, unless a task says otherwise."""
        return batch

    def context(self, batch: Batch) -> Context:
        """What the manifest says of the clips, where an adapter asks for it, and which rows are one clip."""
        known = context_of(self.model.methods.values(), batch.said, batch.lengths.device)
        known = replace(known, views=batch.views)
        if batch.enrolled is None:
            return known
        return replace(known, reference=enrolled(self.model, self.backbone, *batch.enrolled))

    def generator(self) -> torch.Generator:
        """The randomness of the batch at hand, a function of its place in the run."""
        return torch.Generator().manual_seed(seed(self.recipe.seed, self.global_rank, self.batches_seen, 2))

    def _outcome(self, batch: Batch) -> tuple[Outcome, float]:
        """The mean over the targets of all processes with what was predicted, and their number per process.

        Each target weighs the same however they are spread.
        """
        if len(batch.lengths):
            batch = self.heard(batch)
            with self.model.context(self.context(batch)):
                loss = self.loss(batch)
        else:  # every clip of the batch was unreadable; the other processes have theirs
            nothing = torch.stack([p.sum() for p in self.trained()]).sum() * 0.0
            loss = Loss(nothing, 0, Predicted(nothing.new_zeros(0, 1), "values"))
        targets: float = loss.targets
        if self.trainer.world_size > 1:
            count = torch.tensor(float(loss.targets), device=self.device)
            targets = self.trainer.strategy.reduce(count, reduce_op="mean").item()
        return Outcome(loss.total / max(targets, 1.0), loss.predicted), targets

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._accumulated.even_out(self.trained())
        self.procedures.after_backward()
        self.not_finite.settle(self.trainer, self.trained())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        limit = self.recipe.optim.clip_norm if gradient_clip_val is None else gradient_clip_val
        if self.apart and limit is not None:
            clip_apart(optimizer, self.apart, limit)
        else:
            self.clip_gradients(optimizer, limit, gradient_clip_algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.procedures.after_step(self.global_step)

    def settle(self) -> None:
        """Bring the adapters to the form in which they are validated and saved."""
        self.procedures.before_eval()

    # ---- validation ---------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._validated: list[Any] = []
        if not self.trainer.sanity_checking:  # nothing was learned yet, and procedures have not begun
            self.settle()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if len(batch.lengths):
            with self.model.context(self.context(batch)):
                self._validated.append(self.examine(batch))

    @abstractmethod
    def examine(self, batch: Batch) -> Any:
        """What `validate` needs to know of one batch."""

    def on_validation_epoch_end(self) -> None:
        found = self.validate(self._validated)
        # By these names EarlyStopping and ModelCheckpoint know them.
        self.log_dict({f"valid_{found.name}": found.value, "valid_loss": found.loss}, rank_zero_only=False)
        self.scores = None if self.trainer.sanity_checking else found

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
            "seconds": self.elapsed.seconds,
            "recipe": self.recipe.model_dump(mode="json"),
            "base": self.backbone.card().sha256,
            "scores": vars(self.scores) if self.scores else None,
            "owes_validation": self.owes_validation,
            "clips": self.clips,
            "lifecycles": self.procedures.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        run = checkpoint["run"]
        self.batches_seen = run["batches_seen"]
        self.elapsed.go_on_from(run["seconds"])
        self.scores = Scores(**run["scores"]) if run["scores"] else None
        self.owes_validation = run.get("owes_validation", False)
        self.procedures.load_state_dict(run["lifecycles"])
