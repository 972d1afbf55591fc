"""Options of every verb that can work in shards: each has one name, one default and one meaning."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..audio.store import address
from ..errors import ConfigError
from ..terminal.door import say
from .asked import Asked as Asked

Shards = Annotated[
    int | None,
    typer.Option(
        "--shards",
        min=1,
        max=99_999,
        help="Cut the rows into so many shards, which processes share; a file each.",
    ),
]
OutFormat = Annotated[
    Literal["tar", "parquet", "files"],
    typer.Option("--out-format", help="Of a shard; files: one for each row."),
]
On = Annotated[
    Literal["here", "ray"], typer.Option("--on", help="ray: actors of a Ray cluster work on the shards.")
]
Workers = Annotated[int, typer.Option(min=1, help="Actors of --on ray; each opens the model.")]
GpusPerWorker = Annotated[float, typer.Option(min=0.0, help="GPUs that Ray keeps for each of them.")]
Address = Annotated[
    str | None, typer.Option(help="Of a Ray cluster; auto: the one that runs here. Else one is started.")
]
RowSeconds = Annotated[
    float, typer.Option(min=1.0, help="An actor of --on ray that finishes no row for so long hangs.")
]


def not_printed(asked: Asked) -> None:
    """Raises ConfigError where shards are to go to standard output."""
    if asked:
        raise ConfigError("--shards: shards are files and are not printed; give --out FOLDER")


def carry_out(
    asked: Asked,
    command: str,
    inputs: Sequence[str],
    out: Path,
    extensions: Sequence[str],
    settings: Callable[[], Mapping[str, Any]],
    suffixes: frozenset[str],
    policy: Any,
    open_work: Callable[[], Any],
    *,
    threads: int | None,
    progress: str,
    quiet: bool,
    dry_run: bool,
) -> int:
    """The exit code of a verb that works in shards; of a dry run, only which shards are to do."""
    from ..audio import store
    from ..folders.ledger import settings_hash
    from ..folders.options import use_threads
    from ..folders.plan import output_name
    from ..folders.progress import reporter
    from . import blocks, marks, run
    from .work import Task

    assert asked.shards is not None
    cut = blocks.Cut(inputs, suffixes, asked.shards)
    first = next(job for block in cut for job in block.jobs())
    for extension in extensions:
        output_name(first, extension, policy.name_template)
    if asked.format == "parquet":
        from .files import pyarrow

        pyarrow()
    key = settings_hash({**settings(), "shards": [asked.format, *extensions]})
    terms = marks.Terms(command, key, asked.shards, asked.format, tuple(extensions))
    where = address(out) if store.is_remote(out) else str(out.absolute())

    def opened() -> Any:
        use_threads(threads)
        return open_work()

    task = Task(where, terms, opened, policy.name_template)
    if dry_run:
        done = marks.names(task.store)
        for block in cut:
            jobs = list(block.jobs())
            name = blocks.name_of(block, jobs, key)
            say(f"{'skip' if name in done else 'run':7}{name}  ({len(jobs)} rows)")
        return 0
    shown = reporter(progress, quiet)
    if asked.on == "ray":
        from . import on_ray

        return on_ray.run(task, cut, shown, policy, asked)
    return run.run(task, cut, shown, policy)
