"""A model in the layout of the Hugging Face hub, and its upload."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tagmask.errors import CheckpointError
from tagmask.methods.base import Method
from tagmask.models.card import model_card, run_facts
from tagmask.models.hub import push_folder, save_pretrained
from tagmask.models.trained import Trained
from tagmask.names import deprecated

__all__ = ["Publishing"]


class Publishing:
    """What a model can do to be shared; part of `tagmask.Model`."""

    method: Method
    _trained: Trained
    _source: Path | None

    @deprecated("0.2", arguments={"licence": "license"})
    def save_pretrained(
        self, folder: str | Path, *, name: str | None = None, data: str = "", license: str = "other"
    ) -> Path:
        """Write the model in the layout of the Hugging Face hub.

        Args:
            folder: Gets ``model.safetensors``, ``config.json`` and the model card ``README.md``.
            name: What the card calls the model; the folder's name if None.
            data: What it was trained on, in words, for the card.
            license: License identifier of the hub, for example "apache-2.0".

        Returns:
            The folder.

        Raises:
            CheckpointError: It cannot be written.
        """
        target, meta = Path(folder), self._trained.meta
        if not meta:
            raise CheckpointError("a published checkpoint has no header of ours; save it from a run folder")
        facts = run_facts(self._source) if self._source is not None else run_facts(target)
        card = model_card(meta, facts, name or target.name, data, license)
        return save_pretrained(target, self.method.state_dict(), meta, card)

    @deprecated("0.2", arguments={"licence": "license"})
    def push_to_hub(
        self,
        repo: str,
        *,
        data: str = "",
        license: str = "other",
        private: bool = False,
        message: str = "Upload a tagmask model",
        token: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Upload the model; see `save_pretrained` for what is written.

        Args:
            repo: "owner/name"; made if missing.
            data: For the card.
            license: For the card.
            private: Visibility of a new repository.
            message: Of the commit.
            token: Access token; what huggingface_hub finds by itself if None.
            endpoint: Address of another hub.

        Returns:
            Address of the commit.

        Raises:
            CheckpointError: The hub refuses or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, name=repo, data=data, license=license)
            return push_folder(
                Path(folder), repo, private=private, message=message, token=token, endpoint=endpoint
            )
