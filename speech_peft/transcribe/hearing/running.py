"""What runs for each window of a batch: adapters that were chosen for it, or told of it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from ...core.listening.reference import Reference
from ...core.model import AdaptedModel
from ...folders.told import telling
from ..choosing import Chooser
from ..result import TranscribeOptions
from .file import FilePiece


@dataclass(frozen=True)
class Running:
    """Says of pieces what is to run for them."""

    model: AdaptedModel
    options: TranscribeOptions
    device: torch.device
    reference: Reference | None
    """Who is wanted of those who talk."""
    chooser: Chooser | None
    """What chose adapters for each recording, or each window, where that is asked."""

    def of(self, pieces: Sequence[FilePiece], views: int = 1) -> AbstractContextManager[object]:
        """Inside, each row has the adapters of its piece, or is told its task and language."""
        if not pieces:
            return nullcontext()
        if self.chooser is None:
            sources, spoken = [p.file.source for p in pieces], [self.language(p) for p in pieces]
            told = (self.options.adapter_task, spoken, self.device, self.reference, views)
            return telling(self.model, sources, *told)
        chosen = [piece.file.choice_at(piece.window.start) for piece in pieces]
        return self.model.using_rows(*(one.runs if one else () for one in chosen))

    def language(self, piece: FilePiece) -> str | None:
        """What is known of it: asked for, chosen with its adapters, or heard in its recording."""
        choice = None if self.chooser is None else piece.file.choice_at(piece.window.start)
        return self.options.language or (choice.language if choice else None) or piece.file.language
