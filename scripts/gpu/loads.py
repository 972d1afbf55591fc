"""A packed folder in loads that a narrow door lets through, and put together again behind it.

    python scripts/gpu/loads.py pack FOLDER LOADS [--megabytes 58]     LOADS/1, LOADS/2, ...
    python scripts/gpu/loads.py unpack LOADS/1 FOLDER                  as each arrives; Python alone is enough

Files go by the order of `WORTH`; weights are compressed. A file that is cut lies in pieces, which become a
file again with the last of them.
"""

import argparse
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

WORTH = (
    *("wheels", "text.txt", "adapters", "weights/tiny.en", "clips/strangers_valid", "clips/voices"),
    *(
        "clips/prompts_train",
        "clips/sounds",
        "clips/sky",
        "weights/base",
        "clips/abroad_",
        "clips/english",
        "",
    ),
)
_WHOLE_MATRICES = {"id": lzma.FILTER_LZMA2, "preset": 4, "dict_size": 1 << 27}  # one may come a second time
_PIECE = ".piece"
_HEAD = 256  # of a file in a compressed tar, more or less


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=float, default=58.0)
    options = parser.parse_args()
    if options.verb == "unpack":
        unpack(options.source, options.out)
    else:
        for load, content in enumerate(filled(options.source, int(options.megabytes * 2**20)), 1):
            path = options.out / str(load) / "load.tar.xz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(path, "w:xz", preset=1) as tar:  # for the heads of many small files
                for name, data in content:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {len(content)} files")


def filled(folder: Path, most: int) -> Iterator[list[tuple[str, bytes]]]:
    """The files of each load, by name."""
    load: list[tuple[str, bytes]] = []
    room = most
    for name, data in packed(folder):
        pieces = 0
        while data is not None:
            if (size := _travels(data)) <= room:
                load.append((f"{name}{_PIECE}{pieces}.last" if pieces else name, data))
                room, data = room - size, None
                continue
            if room > 2**20 and size > 2**20:
                load.append((f"{name}{_PIECE}{pieces}", data[: room - _HEAD]))
                data, pieces = data[room - _HEAD :], pieces + 1
            yield load
            load, room = [], most
    yield load


def _travels(data: bytes) -> int:
    """About how many bytes it will be in a load: speech is stored with a good deal of padding."""
    return _HEAD + min(len(data), len(zlib.compress(data, 1)))


def packed(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file in the order of its worth, a model compressed."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for start in WORTH:
        found = sorted(name for name in names if name.startswith(start))
        names -= set(found)
        for name in found:
            data = (folder / name).read_bytes()
            if name.endswith(("model.bin", "tokenizer.json")):
                name, data = f"{name}.xz", lzma.compress(data, filters=[_WHOLE_MATRICES])
            yield name, data


def unpack(load: Path, folder: Path) -> None:
    """Put a load into the folder, and together what is complete with it."""
    with tarfile.open(load / "load.tar.xz") as tar:
        tar.extractall(folder, filter="data")
        names = tar.getnames()
    for name in names:
        path = folder / name
        if name.endswith(".last"):
            stem = folder / name.rpartition(_PIECE)[0]
            count = int(name.removesuffix(".last").rpartition(_PIECE)[2])
            pieces = [stem.with_name(f"{stem.name}{_PIECE}{i}") for i in range(count)] + [path]
            stem.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
            for piece in pieces:
                piece.unlink()
            path = stem
        if path.suffix == ".xz":
            half = path.with_suffix(".half")
            half.write_bytes(lzma.decompress(path.read_bytes()))
            half.rename(path.with_suffix(""))
            path.unlink()


if __name__ == "__main__":
    main()
