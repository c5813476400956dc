"""Whether there is such a model: a directory of this machine, or a name on the hub. Needs the extra `transformers`."""

from __future__ import annotations

from pathlib import Path

from kernel_env.errors import AuthenticationFailed, EndpointUnreachable, ModelNotFound


def find_model(name: str, option: str) -> None:
    """Raises where `name` is neither a directory with a model nor one that the hub, or this machine's copy of it, has.

    `option` is what the user sets it by.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if Path(name).is_dir():
        if not Path(name, "config.json").is_file():
            raise ModelNotFound(f"the directory {name} holds no model (no config.json); set {option}")
        return
    try:
        hf_hub_download(name, "config.json")
    except GatedRepoError as error:
        raise AuthenticationFailed(
            f"the hub keeps {name} behind its licence: accept it there, and set HF_TOKEN to a token of yours"
        ) from error
    except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError, so it comes first
        raise EndpointUnreachable(
            f"{name} is no directory here, and the hub cannot be asked for it: {one_line(error)}; set {option}"
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError) as error:
        raise ModelNotFound(f"{name} is neither a directory here nor a model on the hub; set {option}") from error
    except Exception as error:  # of the network or the disk
        raise EndpointUnreachable(f"the hub cannot be asked for {name}: {one_line(error)}; set {option} to a directory") from error


def one_line(error: Exception) -> str:
    """What a library's error says, for a message of ours."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
