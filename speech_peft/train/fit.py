"""A recipe's training: what is trained is built, fitted, and told."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, SpeechPeftError
from ..recipe import config
from .traces import leave_traces

if TYPE_CHECKING:
    from ..core.method import Method
    from ..recipe.recipe import Recipe
    from .tasks.scores import Scores


@dataclass(frozen=True)
class Trained:
    """What a run left behind."""

    folders: list[Path]
    """The adapters, in the order of the recipe's `train`."""
    scores: Scores | None
    """Of the best validation."""
    steps: int
    seconds: float
    base_sha256: str
    """Of what is frozen of the base, checked to be the same before and after."""
    base_trained: bool = False
    """Whether the encoder was fine-tuned."""


def check_parts(recipe: Recipe) -> dict[str, Method]:
    """Validates what belongs to methods, steps and decoders; gives the methods."""
    config.degrader_of(recipe)
    config.check_decoder(recipe)
    return config.methods_of(recipe)


def train(recipe: Recipe, resume: bool = True, watchers: Sequence[Any] = ()) -> Trained:
    """Run a recipe to its end; raises Interrupted when asked to stop, with the state saved.

    `watchers` are Lightning callbacks that are called after our own.
    """
    methods = check_parts(recipe)  # a wrong field fails here, before anything is loaded
    from ..core.saved.swap import check_replaceable
    from .precision import check_device
    from .resume import only_run

    check_device(recipe.trainer)
    for name in recipe.adapters:
        if name in recipe.train or "from" not in recipe.adapters[name]:
            check_replaceable(Path(recipe.out) / name)
    with only_run(Path(recipe.out)):
        return _train(recipe, methods, resume, watchers)


def _train(recipe: Recipe, methods: Any, resume: bool, watchers: Sequence[Any]) -> Trained:
    import lightning.pytorch as L
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    from . import callbacks, progress
    from .data.bad import Unreadable
    from .precision import precision_of
    from .resume import check_same, checkpoint, clips
    from .state import Beside
    from .tasks.frozen import check_frozen, fingerprint
    from .tasks.strategy import strategy_of
    from .validation import Clock, Validate

    _quiet()
    precision = precision_of(recipe.trainer)
    if recipe.trainer.threads:
        torch.set_num_threads(recipe.trainer.threads)
    out = Path(recipe.out)
    last = checkpoint(recipe) if resume else None
    task, data = build(recipe, methods)
    task.clips = clips(data)
    if last is not None:
        check_same(*last, task)
    rank_zero_only(print)(check_frozen(task), file=sys.stderr, flush=True)
    leave_traces(recipe, out, precision)
    before = fingerprint(task.model.base, task.base_parameters)
    metrics = progress.Metrics(out, recipe.trainer.tensorboard)
    adapters = callbacks.SaveAdapter(out)
    trainer = L.Trainer(
        accelerator=recipe.trainer.accelerator,
        devices=recipe.trainer.devices,
        num_nodes=recipe.trainer.nodes,
        strategy=strategy_of(task),
        precision=precision,
        accumulate_grad_batches=recipe.trainer.accumulate,
        gradient_clip_val=recipe.optim.clip_norm,
        max_steps=-1,  # `Stop` ends the run, by steps or by time, and then one validation follows
        max_epochs=-1,
        check_val_every_n_epoch=10**9,  # never: `Validate` does
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[
            *(Clock(), Validate(), Unreadable(data.bad), metrics, progress.Show(metrics)),
            *(adapters, callbacks.Stop(out)),
            *watchers,
        ],
        plugins=[Beside()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(task, datamodule=data, ckpt_path=last[0] if last else None, weights_only=True)
    except torch.OutOfMemoryError as error:
        raise SpeechPeftError(
            f"out of memory: {str(error).splitlines()[0]} Give a smaller data.seconds_per_batch (with "
            "trainer.accumulate for the same step), trainer.recompute=true, or trainer.precision=bf16-true"
        ) from error
    after = fingerprint(task.model.base, task.base_parameters)
    if after != before:
        raise SpeechPeftError("the frozen base changed during training; its adapters cannot be trusted")
    return Trained(
        adapters.folders,
        adapters.best,
        task.global_step,
        task.elapsed.seconds,
        after,
        bool(task.base_parameters),
    )


def build(recipe: Recipe, methods: Any) -> tuple[Any, Any]:
    """The task and its data; weights are opened, sites resolved, clips screened."""
    import torch

    from ..backbones.families import open_backbone
    from ..core.model import AdaptedModel
    from ..core.saved import hub, save
    from ..registry import TASKS
    from .data.data import SpeechData
    from .data.heard import on_grid
    from .data.prefix_cache import PrefixCache

    torch.manual_seed(recipe.seed)  # the adapters' initial weights
    backbone = open_backbone(recipe.backbone.name, recipe.backbone.weights, **recipe.backbone.options())
    saved = {
        name: save.read(hub.locate(fields["from"]))
        for name, fields in recipe.adapters.items()
        if "from" in fields
    }
    for name, adapter in saved.items():
        if adapter.base_trained:
            raise ConfigError(
                f"adapters.{name}.from: {adapter.folder} is a fully fine-tuned encoder, and adapters are "
                "trained on the weights as published"
            )
    every = {name: saved[name].pinned if name in saved else methods[name] for name in recipe.adapters}
    kind = TASKS[recipe.task.name]
    sites = kind.sites(recipe, backbone)
    model = AdaptedModel(backbone.module, sites, every, {name: one.room() for name, one in saved.items()})
    for name, adapter in saved.items():
        adapter.load_into(model, name, backbone.card())
    if recipe.trainer.recompute:
        model.recompute()
    if recipe.trainer.precision == "bf16-true":
        model.base.to(torch.bfloat16)
    # The task hears, and no more. Behind the cast, which writes out what holds no memory; and not only when
    # training starts, for by then the base has its fingerprint, and a prefix cache may have worked for hours.
    if all(backbone.block_of(site) is not None for site in sites):
        backbone.let_go()
    data = SpeechData(recipe, backbone)
    task = kind(recipe, backbone, model, data)
    if recipe.data.cache:
        cache = task.cache = PrefixCache.of(recipe, backbone, model)
        data.train_clips.cached = lambda source, samples: cache.key(source, on_grid(samples)) in cache.store
    return task, data


def _quiet() -> None:
    """Silences Lightning's notices about what is meant: a base in eval mode, a stream without end."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
