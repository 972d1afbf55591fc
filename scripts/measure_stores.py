"""Whether other programs read our shards, and what becomes of a run whose store fails.

Both parts need packages that do not fit `constraints.txt`, so each has a folder of its own:

    pip install --target other datasets webdataset
    PYTHONPATH=other python scripts/measure_stores.py readers --rows rows.jsonl --out here
    pip install --target far s3fs 'moto[server]'
    PYTHONPATH=far python scripts/measure_stores.py s3 --out here --count 100

`readers` packs recordings with a text into tars and Parquet and reads them with webdataset, `datasets` and
this package. `s3` has rows, sound and shards in an S3 server (moto's, HTTP on this machine), of whose
requests 5 % fail or are slow, and two processes. Each prints one object.
"""

# pyright: reportMissingParameterType=false, reportMissingTypeArgument=false
import argparse
import json
import os
import random
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from measure_scale import SUFFIXES, clips, start, texts, worker

from speech_peft.audio import manifest, store
from speech_peft.audio.containers import held
from speech_peft.folders.outcomes.outcome import Outcome
from speech_peft.folders.progress import Quiet
from speech_peft.folders.runner import Policy
from speech_peft.shards import look, marks, run
from speech_peft.shards.blocks import Cut
from speech_peft.shards.files import unkeyed
from speech_peft.shards.work import Task


def readers(folder: Path, rows: str) -> dict:
    """The sound and the text of each row, as three programs read them out of our shards."""
    given = {row.id: (row.text or "", row.audio.read_bytes()) for row in manifest.read(rows)}

    def work(jobs):
        return (Outcome(job, {"txt": given[job.relpath][0], "flac": given[job.relpath][1]}) for job in jobs)

    for format in ("tar", "parquet"):
        terms = marks.Terms("transcribe", "measured", 4, format, ("txt", "flac"))
        made = Task(str(folder / format), terms, lambda: (SimpleNamespace(notes=[]), work))
        assert run.run(made, Cut([rows], SUFFIXES, 4), Quiet(), Policy()) == 0
    found = {name: reader(folder) for name, reader in READERS.items()}
    return {"rows": len(given), "equal": {name: one == given for name, one in found.items()}}


def by_datasets(folder: Path) -> dict:
    datasets = import_module("datasets")
    files = sorted(str(one) for one in (folder / "parquet").glob("*.parquet"))
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    assert isinstance(table.features["audio"], datasets.Audio)
    table = table.cast_column("audio", datasets.Audio(decode=False))
    return {row["id"]: (row["text"], row["audio"]["bytes"]) for row in table}


def by_webdataset(folder: Path) -> dict:
    tars = sorted(str(one) for one in (folder / "tar").glob("*.tar"))
    samples = import_module("webdataset").WebDataset(tars, shardshuffle=False)
    return {unkeyed(one["__key__"]): (one["txt"].decode(), one["flac"]) for one in samples}


def by_us(folder: Path) -> dict:
    rows = manifest.read(folder / "tar")
    return {row.id: (row.text, content(row.audio)) for row in rows}


def content(path: Path) -> bytes:
    with held.taken(path) as file:
        return Path(file.name).read_bytes()


READERS = {"datasets": by_datasets, "webdataset": by_webdataset, "this package": by_us}


def faulty(folder: Path, count: int, share: float = 0.05) -> dict:
    """Two processes with rows, sound and shards in S3, of whose requests a part fails or is slow."""
    from threading import Thread

    moto = import_module("moto.server")
    from werkzeug.serving import make_server

    inside, chance, seen = (
        moto.DomainDispatcherApplication(moto.create_backend_app),
        random.Random(0),
        Counter(),
    )

    def app(environ, respond):
        seen["requests"] += 1
        if chance.random() < share:
            kind = chance.choice(("503", "slow", "cut"))
            seen[kind] += 1
            if kind == "slow":
                time.sleep(2)
            elif kind == "503":
                respond("503 Slow Down", [("Content-Length", "0")])
                return [b""]
            else:
                respond("500 Internal Server Error", [("Content-Length", "1000"), ("Connection", "close")])
                return [b"<Error>"]  # and no more, where a thousand bytes were promised
        return inside(environ, respond)

    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {
        "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    rows, share_now = clips(folder, count), share
    share = 0.0
    boto3 = import_module("boto3")

    client = boto3.client("s3", endpoint_url=os.environ["FSSPEC_S3_ENDPOINT_URL"])
    client.create_bucket(Bucket="measured")
    for path in [rows, *(folder / "clips").iterdir()]:
        client.upload_file(str(path), "measured", f"in/{path.relative_to(folder)}")
    share = share_now
    seen.clear()
    began = time.monotonic()
    codes = [
        one.wait()
        for one in [start("s3://measured/in/rows.jsonl", "s3://measured/out", 20) for _ in range(2)]
    ]
    codes.append(
        start("s3://measured/in/rows.jsonl", "s3://measured/out", 20).wait()
    )  # what was with the other, if anything
    seconds, told = time.monotonic() - began, dict(seen)
    share = 0.0
    import_module("fsspec.config").conf.setdefault("s3", {})["endpoint_url"] = os.environ[
        "FSSPEC_S3_ENDPOINT_URL"
    ]
    worker(str(rows), str(folder / "one"), 20, "here", 60)
    names = [one.name for one in store.at("s3://measured/out").found("")]
    (folder / "got").mkdir()
    for name in names:
        (folder / "got" / name).write_bytes(store.at("s3://measured/out").read(name))
    found = look.status("s3://measured/out")
    return {
        "rows": count,
        "exit_codes": codes,
        "requests": told,
        "ok": found.ok,
        "retries_counted": found.retries,
        "problems": list(look.problems("s3://measured/out")),
        "equal_to_one_process": texts(folder / "got") == texts(folder / "one"),
        "objects": len(names),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["readers", "s3"])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--rows", help="a manifest of FLAC files with texts, for readers")
    parser.add_argument("--count", type=int, default=100, help="of rows, for s3")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True)
    found = readers(asked.out, asked.rows) if asked.part == "readers" else faulty(asked.out, asked.count)
    print(json.dumps({"part": asked.part, **found}), flush=True)


if __name__ == "__main__":
    main()
