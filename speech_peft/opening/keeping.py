"""An adapter of a model in memory as a folder, with what it is over, and a README on how to open it."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from ..backbones.in_memory import is_in_memory
from ..core.describe import count
from ..core.method import Mixing
from ..core.model import AdaptedModel
from ..core.saved import save
from ..core.saved.save import BackboneCard


def keep(
    model: AdaptedModel,
    folder: str | Path,
    name: str,
    card: BackboneCard,
    heads: dict[str, nn.Module],
    head_config: Mapping[str, Any] | None,
) -> Path:
    """Write adapter `name` and the heads as a folder; what a mixer is over goes into folders inside it."""
    method = model.methods[name]
    over = method.over if isinstance(method, Mixing) else ()

    def beside(one: str, where: Path) -> Path:
        return keep(model, where / one, one, card, heads, head_config)

    with TemporaryDirectory() as aside:  # a mixer names its adapters by what their files hold
        digests = {one: save.read(beside(one, Path(aside))).digest for one in over}
    written = save.write(
        folder,
        model,
        name,
        card,
        heads=heads,
        head_config=head_config,
        together={**{one: f"./{one}" for one in over}, name: "."} if over else None,
        experts=digests,
        readme=_readme(model, name, card),
    )
    for one in over:
        beside(one, written)
    return written


def _readme(model: AdaptedModel, name: str, card: BackboneCard) -> str:
    size = count(model.parameters_of(name))
    front = "---\nlibrary_name: speech_peft\ntags: [speech, adapter]\n"
    if not is_in_memory(card) and card.id.count("/") == 1 and ":" not in card.id:
        front += f"base_model: {card.id}\n"
    base = ", base=MODEL" if is_in_memory(card) else ""
    return (
        f"{front}---\n\n# {name}\n\nA `{model.methods[name].name}` adapter ({size:,} parameters) for "
        f'{card}.\n\n```python\nimport speech_peft as sp\n\nmodel = sp.load("FOLDER"{base})\n```\n'
    )
