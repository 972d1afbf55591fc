"""Adapter folders: `speech-peft adapter show | diff | search | card | merge-adapters | export-peft | ...`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ConfigError
from ..folders.options import ADDRESS
from ..terminal.door import line, printable, say
from ..terminal.program import new_app, run
from . import catalogue

if TYPE_CHECKING:
    from ..core.saved.save import Saved
    from ..opening.adapted import Adapted

app = new_app("Look into adapter folders, compare them, and turn them into something else.")
app.command("search")(catalogue.search)
app.command("card")(catalogue.card)
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
    if (made := saved.manifest.joined) is not None:
        line(f"  made of     {', '.join(made.adapters)}, by {made.how}")
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


@app.command("merge-adapters")
def merge_adapters(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Folders or hub ids.")],
    out: Out,
    how: Annotated[
        Literal["average", "sum", "mera", "cat", "svd", "ties", "dare"],
        typer.Option(help="mera: inner units aligned, then averaged. The last four are for LoRAs."),
    ] = "average",
    probe: Annotated[
        str | None, typer.Option(help="Recordings by which mera aligns; by weights if not given.")
    ] = None,
    factors: Annotated[
        str | None, typer.Option(metavar="F,F,...", help="One for each adapter; all 1 if not given.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of what LoRAs become; by default theirs.")] = None,
    density: Annotated[float, typer.Option(help="The share of entries that ties and dare keep.")] = 0.5,
    anchor: Annotated[
        int | None, typer.Option(min=1, help="The adapter whose order holds in mera; the cheapest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what dare drops.")] = 0,
    across: Annotated[
        bool, typer.Option("--across", help="Also of other tasks and languages than the first.")
    ] = False,
    weights: Weights = None,
) -> None:
    """Make one adapter of several that were trained on one base."""
    numbers = _numbers(factors)
    _absent(out)
    from ..opening.merging import merge_adapters as merged
    from ..opening.together import names_of

    done = merged(
        adapters, out, how, probe=probe, factors=numbers, rank=rank, density=density,
        anchor=None if anchor is None else anchor - 1, seed=seed, across=across, weights=weights,
    )  # fmt: skip
    if done.alignment is not None:
        first = names_of(adapters)[done.alignment.anchor]
        line(f"  in the order of {first}; {done.alignment.moved:.0%} of the others' inner units were moved")
    if done.lost:
        line(f"  its rank leaves out {done.lost:.1%} of what they change, where it leaves out most")
    line(f"{out}: {how} of {len(adapters)} adapters, a {done.method.name}")


@app.command()
def together(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Folders or hub ids.")],
    out: Out,
) -> None:
    """Write a folder that opens as several adapters at once, which were trained apart.

    The last one's heads and backbone options hold: give an adapter of lengths, or a bridge, last.
    """
    _absent(out)
    if len(adapters) < 2:
        raise ConfigError(f"together: give two or more adapters; {adapters[0]} opens by itself")
    from ..compose.together import write_together

    saved = [_read(adapter) for adapter in adapters]
    names = [one.folder.name for one in saved]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two adapters are called {twice[0]!r}; copy one to a folder of another name")
    write_together(out, dict(zip(names, saved, strict=True)))
    line(f"{out}: {', '.join(names)}, which run together")


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
    from ..backbones.families import open_backbone
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


@app.command()
def materialise(
    adapter: Adapter,
    out: Out,
    name: Annotated[
        str | None, typer.Option(help="A task or language of its own; by default one that nobody names.")
    ] = None,
    weights: Weights = None,
) -> None:
    """Write what a poly or hyper adapter is for one task or language, as an ordinary adapter."""
    from ..opening.adapted import load

    _absent(out)
    model = load(adapter, weights=weights)
    _opened_alone(model, adapter)
    model.materialise(name).save(out)
    line(f"{out}: written")


@app.command()
def extend(
    adapter: Adapter,
    out: Out,
    name: Annotated[list[str], typer.Option(help="A new task or language; may be repeated.")],
    weights: Weights = None,
) -> None:
    """Write a poly or hyper adapter that is to learn another task or language, and nothing else.

    Then train it: adapters: {NAME: {from: OUT}}, train: [NAME].
    """
    from ..opening.adapted import load

    _absent(out)
    model = load(adapter, weights=weights)
    _opened_alone(model, adapter)
    model.extend(*name).save(out)
    line(f"{out}: written")


def _opened_alone(model: "Adapted", adapter: str) -> None:
    if len(model.methods) > 1:
        raise ConfigError(f"{adapter} was trained together with others, {', '.join(model.methods)}")


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


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"--factors: {text!r} are no numbers; expected some such as 1,0.5") from None


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
