"""Adapter folders: `speech-peft adapter show | diff | merge | export-peft | import-peft`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ConfigError
from ..folders.options import ADDRESS
from ..terminal.door import line, printable, say
from ..terminal.program import new_app, run

if TYPE_CHECKING:
    from ..core.saved.save import Saved

app = new_app("Look into adapter folders, compare them, and turn them into something else.")
Adapter = Annotated[str, typer.Argument(help="An adapter folder, or a hub id.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="The folder to write; must not exist.")]
Weights = Annotated[
    str | None,
    typer.Option("--weights", "--model", help=f"The frozen model: {ADDRESS}; the one in adapter.json."),
]
Rank = Annotated[
    int | None,
    typer.Option(min=1, help="Of the nearest LoRA, for an adapter that merges and is none itself."),
]


@app.command()
def show(adapter: Adapter) -> None:
    """Print what an adapter is: method, settings, backbone, sites, size."""
    from ..core.saved.fill import shapes_of

    saved = _read(adapter)
    there = shapes_of(saved.folder / "adapter.safetensors")
    size = sum(file.stat().st_size for file in saved.folder.iterdir() if file.is_file())
    sites = f": {saved.sites[0]} … {saved.sites[-1]}" if saved.sites else ""
    written_by = saved.manifest.model_dump()["library"]
    line(f"{saved.folder}: {saved.method.name}, written by speech_peft {written_by}")
    line(f"  backbone    {saved.backbone}, {_options(saved.backbone.options)}")
    line(f"  sites       {len(saved.sites)}{sites}")
    if all(shape.dtype.is_floating_point for shape in there.values()):
        line(f"  parameters  {sum(shape.numel for shape in there.values()):,} in {len(there)} tensors")
    else:  # packed: how many numbers they make is not how many there are
        line(f"  tensors     {len(there)} of {sum(s.nbytes for s in there.values()):,} bytes, packed")
    line(f"  folder      {size / 1e6:.2f} MB, sha256 {saved.digest[:16]}")
    if saved.manifest.needs:
        line(f"  needs       {', '.join(saved.manifest.needs)}")
    for name in saved.head_config:
        line(f"  head        {name}")
    if saved.base_trained:
        line("  base        trained too: base.safetensors")
    for name, address in saved.manifest.together.items():
        if address != ".":
            line(f"  runs with   {name}, at {address}")
    for key, value in saved.manifest.config.items():
        line(f"  {key:<11} {value}")


@app.command()
def diff(a: Adapter, b: Adapter) -> None:
    """Compare two adapters, settings and tensors; exit code 0 when they are equal, 1 when they differ."""
    lines = list(differences(_read(a), _read(b)))
    say("\n".join(map(printable, lines)) if lines else "equal")
    raise typer.Exit(1 if lines else 0)


@app.command()
def merge(adapter: Adapter, out: Out, weights: Weights = None) -> None:
    """Write a stock Hugging Face folder: speech-peft export --to hf, under its old name."""
    from ..export.__main__ import export

    export(adapter, out, "hf", weights=weights)


@app.command("export-peft")
def to_peft(adapter: Adapter, out: Out, weights: Weights = None, rank: Rank = None) -> None:
    """Write a LoRA as PEFT's own two files: speech-peft export --to peft, under its old name."""
    from ..export.__main__ import export

    export(adapter, out, "peft", weights=weights, rank=rank)


@app.command("import-peft")
def from_peft(
    folder: Annotated[Path, typer.Argument(help="A folder that PEFT wrote.")],
    out: Out,
    weights: Annotated[str, typer.Option("--weights", "--model", help=f"The frozen model: {ADDRESS}.")],
    backbone: Annotated[
        Literal["whisper", "ast", "conformer", "usm"], typer.Option(help="The family of the frozen model.")
    ] = "whisper",
) -> None:
    """Read a PEFT LoRA folder and write it as an adapter folder of ours."""
    from ..backbones.base import open_backbone
    from ..compose.peft_lora import import_peft
    from ..core.saved.save import write

    _absent(out)
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(f"{folder} has no adapter_config.json, so it is no folder that PEFT wrote")
    opened = open_backbone(backbone, weights)
    model = import_peft(folder, opened.module, opened.sites(), "adapter")
    write(out, model, "adapter", opened.card())
    say(model.describe())
    line(f"{out}: written")


def differences(a: "Saved", b: "Saved") -> Iterator[str]:
    """One line per difference between two saved adapters; none when they are equal."""
    left, right = (saved.manifest.model_dump(exclude={"library"}) for saved in (a, b))
    for key in left:
        if left[key] != right[key]:
            yield f"{key}: {left[key]} | {right[key]}"
    for file in ("adapter.safetensors", "head.safetensors"):
        ours, theirs = _tensors(a.folder / file), _tensors(b.folder / file)
        for name in sorted(ours.keys() | theirs.keys()):
            if name not in ours or name not in theirs:
                yield f"{name}: only in {(a if name in ours else b).folder}"
            elif ours[name].shape != theirs[name].shape:
                yield f"{name}: shape {tuple(ours[name].shape)} | {tuple(theirs[name].shape)}"
            elif not ours[name].equal(theirs[name]):
                gap = (ours[name].double() - theirs[name].double()).abs().max()
                yield f"{name}: differs by at most {gap:.3g}"


def _tensors(path: Path) -> dict[str, Any]:
    from ..files import tensors

    return tensors.read(path) if path.is_file() else {}


def _read(adapter: str) -> "Saved":
    from ..core.saved.hub import locate
    from ..core.saved.save import read

    return read(locate(adapter))


def _absent(out: Path) -> None:
    if out.exists():
        raise ConfigError(f"--out {out} exists already; give a new name or delete it")


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "default options"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "adapter")


if __name__ == "__main__":
    raise SystemExit(main())
