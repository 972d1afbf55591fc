"""Where an adapter comes from and goes to: a folder, or a repository on the Hugging Face hub."""

from pathlib import Path

from ...errors import ConfigError

# Never a pickle: what cannot run code is all that is ever fetched.
PATTERNS = ["*.json", "*.safetensors", "README.md", "recipe.yaml"]


def locate(address: str | Path, revision: str | None = None, offline: bool = False) -> Path:
    """The local folder of an adapter; an existing folder wins over a hub repository of that name.

    Raises ConfigError naming the address and what was tried.
    """
    folder = Path(address)
    if folder.is_dir():
        return folder
    if folder.exists() or str(address).startswith((".", "/", "~")) or str(address).count("/") != 1:
        raise ConfigError(
            f"no adapter folder at {address}. An adapter is a folder with adapter.json and "
            "adapter.safetensors, or a hub id such as org/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                str(address), revision=revision, allow_patterns=PATTERNS, local_files_only=offline
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"{address} (revision {revision or 'main'}) is no folder here and could not be had from the hub"
            f"{' (offline: only the local cache was searched)' if offline else ''}: {error}"
        ) from error


def publish(
    folder: Path, repo: str, private: bool | None, token: str | None, revision: str | None, message: str
) -> str:
    """Put an adapter folder into a repository of the hub, made if need be; the address of the commit.

    Raises ConfigError naming the repository and what the hub said.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub = HfApi(token=token)
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            allow_patterns=PATTERNS,
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(f"{repo}: the adapter could not be put onto the hub: {error}") from error
    return str(done.commit_url)
