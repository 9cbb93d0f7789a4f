"""Models in the Hugging Face convention: a folder with model.safetensors, two JSON files and README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tagmask import __version__
from tagmask.errors import CheckpointError, one_line
from tagmask.models.checkpoint import FORMAT, PUBLISHED, save_tensors
from tagmask.store.files import atomic_write, write_json

__all__ = ["fetch_folder", "push_folder", "save_pretrained"]

_FILES = (PUBLISHED, "config.json", "preprocessor_config.json", "README.md")


def save_pretrained(folder: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any], card: str) -> Path:
    """Write the files.

    Args:
        folder: Made if missing.
        state: The method's state dict.
        meta: Header of the model; stored in the weight file, which alone is read back, and for people and
            other tools in config.json.
        card: Content of README.md.

    Returns:
        The folder.

    Raises:
        CheckpointError: A file cannot be written.
    """
    save_tensors(folder / PUBLISHED, state, meta)
    write_json(
        folder / "config.json",
        {
            "library_name": "tagmask",
            "model_type": "tagmask",
            "format": FORMAT,
            "tagmask": __version__,
            **meta,
        },
    )
    # By this, transformers finds the class that hands pictures on as they are.
    write_json(folder / "preprocessor_config.json", {"image_processor_type": "TagmaskImageProcessor"})
    with atomic_write(folder / "README.md", CheckpointError) as target:
        target.write_text(card, encoding="utf-8")
    return folder


def push_folder(
    folder: Path, repo: str, *, private: bool, message: str, token: str | None, endpoint: str | None
) -> str:
    """Upload a folder written by `save_pretrained`; the repository is made if missing.

    Args:
        folder: The folder.
        repo: "owner/name".
        private: Visibility of a new repository.
        message: Of the commit.
        token: Access token; what `huggingface_hub` finds by itself if None.
        endpoint: Address of another hub.

    Returns:
        Address of the commit.

    Raises:
        CheckpointError: The hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(endpoint=endpoint, token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message, allow_patterns=list(_FILES)
        )
    except Exception as error:
        raise CheckpointError(f"cannot push to {repo}: {one_line(error)}") from None
    return str(commit.commit_url)


def fetch_folder(
    repo: str, *, revision: str | None, token: str | None, endpoint: str | None, cache: Path | None
) -> Path:
    """Download a published model; files that are already there are not fetched again.

    Args:
        repo: "owner/name".
        revision: Branch, tag or commit; the main branch if None.
        token: Access token.
        endpoint: Address of another hub.
        cache: Where downloads are; the usual place of `huggingface_hub` if None.

    Returns:
        A folder with its files.

    Raises:
        CheckpointError: There is no such model, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            repo,
            revision=revision,
            token=token,
            endpoint=endpoint,
            cache_dir=cache,
            allow_patterns=list(_FILES),
        )
    except Exception as error:
        raise CheckpointError(
            f"no model '{repo}': it is no folder here, and the hub says: {one_line(error)}"
        ) from None
    return Path(str(found))
