"""Models: from what a user names to states, tokenizers and weights in memory.

Enter: paths, hub ids, globs. Leave: `Source` (one state's folder), a tokenizer, a model in eval mode, and the
digest of a state's weights and config, which is what makes a loss column belong to it. It reads the weight files
once (about 1 GB/s), which is far cheaper than loading them, so a finished job is recognised without a model.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

from lossift.errors import ArgumentError, ModelError
from lossift.threads import resolve_threads

DTYPES = ("auto", "float32", "float16", "bfloat16")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?")
_STEP = re.compile(r"(?:checkpoint|step)[-_]?(\d+)")
_HUB_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]
_NOT_COUNTING = {
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
_VOCABULARIES = ("tokenizer.json", "tekken.json", "*.model", "*.tiktoken", "vocab*")
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Source:
    """Where one state comes from.

    Attributes
    ----------
    name
        The state's name.
    step
        Its training step, when its folder's name tells (``checkpoint-500``).
    folder
        A local folder in the layout of `transformers`.
    gguf
        Name of the GGUF file in it that holds model and tokenizer, or None.
    """

    name: str
    step: int | None
    folder: Path
    gguf: str | None = None

    @property
    def weight_files(self) -> list[Path]:
        """The files that hold the weights, by name; safetensors win over pickles, as in `transformers`."""
        if self.gguf:
            return [self.folder / self.gguf]
        return sorted(self.folder.glob("*.safetensors")) or sorted(self.folder.glob("pytorch_model*.bin"))


def find_states(models: str | Path | Sequence[str | Path]) -> list[Source]:
    """Returns the states that the argument names, in the order given, but those with a step by step.

    Parameters
    ----------
    models
        Each a model folder, a folder or glob of ``checkpoint-*``, a ``.gguf`` file or a hub id (with
        ``@revision``); ``name=path`` names the state, else it is called like its folder.

    Raises
    ------
    ModelError
        When a path is no model.
    ArgumentError
        When two states would have one name, or none is given.
    """
    given = [models] if isinstance(models, str | Path) else list(models)
    if not given:
        raise ArgumentError("models: found none, give at least one path or hub id")
    sources = [source for model in given for source in _resolve(str(model))]
    # A shell's glob sorts checkpoint-1000 before checkpoint-500: those with a step share their places by step.
    in_order = iter(_by_step([source for source in sources if source.step is not None]))
    sources = [source if source.step is None else next(in_order) for source in sources]
    by_name: dict[str, Source] = {}
    for source in sources:
        if other := by_name.get(source.name):
            raise ArgumentError(
                f"models: two states would be called {source.name!r}: {other.folder} and {source.folder}",
                hint=f"name one of them: other-{source.name}={source.folder}",
            )
        by_name[source.name] = source
    return sources


def find_model(model: str | Path) -> Source:
    """Returns the one state that the argument names."""
    sources = find_states(model)
    if len(sources) > 1:
        raise ArgumentError(f"model: {model} holds {len(sources)} models, give one of them")
    return sources[0]


def _resolve(model: str) -> list[Source]:
    name, equals, rest = model.partition("=")
    if equals and not Path(model).exists():
        sources = _resolve(rest)
        if len(sources) > 1:
            raise ArgumentError(f"models: {model!r} gives one name to {len(sources)} states")
        return [Source(_safe(name), s.step, s.folder, s.gguf) for s in sources]
    path = Path(model).expanduser()
    if glob.has_magic(model) and not path.exists():
        matches = [Path(p) for p in glob.glob(str(path))]  # noqa: PTH207  # Path.glob takes no absolute pattern
        if not matches:
            raise ModelError(f"{model}: matches no model folder")
        return _by_step([source for match in matches for source in _resolve(str(match))])
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        if path.suffix == ".gguf":
            return [Source(_safe(path.stem), None, path.parent, path.name)]
        raise ModelError(f"{model}: is a file; allowed are model folders and .gguf files")
    if _HUB_ID.fullmatch(model):
        return [_download(model)]
    raise ModelError(f"{model}: there is no such model folder")


def _in_folder(path: Path) -> list[Source]:
    name = path.resolve().name
    step = _STEP.fullmatch(name)
    source = Source(_safe(name), int(step[1]) if step else None, path)
    if (path / "config.json").exists():
        if not source.weight_files:
            raise ModelError(f"{path}: has a config.json but no weights (*.safetensors or pytorch_model*.bin)")
        return [source]
    ggufs = sorted(p.name for p in path.glob("*.gguf"))
    if len(ggufs) == 1:
        return [Source(source.name, source.step, path, ggufs[0])]
    if ggufs:
        raise ModelError(f"{path}: holds {len(ggufs)} GGUF files, give one: {', '.join(ggufs)}")
    checkpoints = [p for p in path.glob("checkpoint-*") if (p / "config.json").exists()]
    if checkpoints:
        return _by_step([source for p in checkpoints for source in _in_folder(p)])
    if (path / "adapter_config.json").exists():
        raise ModelError(f"{path}: is an adapter, not a whole model", hint="merge it into its base first")
    found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
    raise ModelError(f"{path}: is not a model folder: no config.json, *.gguf or checkpoint-*; found: {found}")


def _by_step(sources: list[Source]) -> list[Source]:
    return sorted(sources, key=lambda s: (s.step is not None, s.step or 0, s.name))


def _safe(name: str) -> str:
    """Returns `name` with what can't stand in a state's or file's name replaced."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"


def _download(model: str) -> Source:
    """Returns a hub model as a local folder; files that are in the cache are not fetched again."""
    import huggingface_hub

    repo, _, revision = model.partition("@")
    fetch: dict[str, Any] = {"repo_id": repo, "revision": revision or None}
    try:
        folder = Path(huggingface_hub.snapshot_download(**fetch, allow_patterns=_HUB_FILES))
        source = Source(_safe(repo.rsplit("/", 1)[-1]), None, folder)
        if not source.weight_files:
            huggingface_hub.snapshot_download(**fetch, allow_patterns=["pytorch_model*.bin"])
    except Exception as error:  # its own, of its HTTP client, of the system: all mean the same here
        raise ModelError(f"{model}: is no folder here, and as a hub id: {_first_line(error)}") from error
    if not (folder / "config.json").exists() or not source.weight_files:
        raise ModelError(f"{model}: the hub repository holds no config.json with weights")
    return source


# ------------------------------------------------------------------- loading


def load_config(source: Source, *, trust_remote_code: bool = False) -> Any:
    """Returns the configuration of a model; cheap but for GGUF, whose header lists all tokens."""
    with _told_as_model_error(source):
        return AutoConfig.from_pretrained(
            source.folder, **_gguf(source), trust_remote_code=trust_remote_code, local_files_only=True
        )


def load_tokenizer(source: Source, *, trust_remote_code: bool = False) -> Any:
    """Returns the tokenizer that lies beside the weights.

    Where there is none, transformers may make one up that knows two tokens (GPT-NeoX), so the files are looked for.
    """
    if not (source.gguf or trust_remote_code or any(any(source.folder.glob(name)) for name in _VOCABULARIES)):
        raise ModelError(
            f"{source.folder}: holds no tokenizer (tokenizer.json)",
            hint=f"save the model's there: tokenizer.save_pretrained({str(source.folder)!r})",
        )
    with _told_as_model_error(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(
            source.folder, **_gguf(source), trust_remote_code=trust_remote_code, local_files_only=True
        )


def load_model(source: Source, *, dtype: str, device: str, trust_remote_code: bool = False) -> Any:
    """Returns the model in eval mode on `device`."""
    with _told_as_model_error(source), _quiet_gguf():
        model, report = AutoModelForCausalLM.from_pretrained(
            source.folder,
            **_gguf(source),
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    # What isn't in the files is filled with random numbers, and transformers only warns.
    if absent := sorted(report["missing_keys"]):
        raise ModelError(f"{source.folder}: lacks {len(absent)} of the model's weights: {', '.join(absent[:3])}")
    return model.to(device).eval()


def known_context(config: Any) -> int | None:
    """Returns how many positions a model has, None where its configuration doesn't say.

    Past them GPT-2 fails and rotary models score what they have never seen, without a word.
    """
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def resolve_length(given: int | None, config: Any, tokenizer: Any, name: str) -> int:
    """Returns `given` where the model takes that many tokens, or all that it takes when None is given.

    Where the configuration doesn't say, any length given is believed.

    Raises
    ------
    ArgumentError
        When the model takes fewer, or none is given and nobody says how many it takes.
    """
    if given is None:
        return context_length(config, tokenizer, name)
    context = known_context(config)
    if context is not None and given > context:
        raise ArgumentError(f"max_length: found {given}, allowed are at most {context}, the positions that {name} has")
    return given


def context_length(config: Any, tokenizer: Any, name: str) -> int:
    """Returns how many tokens a model takes, by its configuration or else by its tokenizer."""
    length = known_context(config) or tokenizer.model_max_length
    if not isinstance(length, int) or length > 1 << 30:  # tokenizers say 1e30 for "unknown"
        raise ArgumentError(f"max_length: {name} doesn't say how many tokens it takes, so give max_length")
    return length


def resolve_device(device: str) -> str:
    """Returns ``cuda``, ``mps`` or ``cpu`` for ``auto``, else the device as it was named."""
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"device: found {device!r}: {_first_line(error)}") from error
    return device


def resolve_dtype(dtype: str, config: Any, device: str) -> str:
    """Returns the dtype of the weights: for ``auto`` the model's own, but float32 on a CPU.

    CPUs without native bfloat16 multiply it some 400 times slower than float32.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype: found {dtype!r}, allowed are {', '.join(DTYPES)}")
    if dtype != "auto":
        return dtype
    own = getattr(config, "dtype", None)
    return "float32" if device == "cpu" or own is None else str(own).removeprefix("torch.")


# -------------------------------------------------------------------- digests


def files_digest(source: Source) -> str:
    """Returns a digest of a state's config and the bytes of its weight files, in the order of their names."""
    digest = blake2b(digest_size=16)
    if not source.gguf:  # which holds its own
        digest.update(_what_counts(json.loads((source.folder / "config.json").read_bytes())))
    for path in source.weight_files:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def state_digest(model: Any) -> str:
    """Returns a digest of a model in memory: its config, and its weights' names, dtypes, shapes and bytes."""
    digest = blake2b(_what_counts(model.config.to_dict()), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _what_counts(config: dict[str, Any]) -> bytes:
    """Returns what decides losses in a config: the same weights with another `rope_theta` are another model.

    Not what saving, loading or training leaves in it: names, versions, dtypes (a column has its own), special tokens.
    """

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): kept(v) for k, v in value.items() if not (str(k).startswith("_") or k in _NOT_COUNTING)}
        if isinstance(value, list | tuple):
            return [kept(item) for item in value]
        return value

    return json.dumps(kept(config), sort_keys=True, default=str).encode()


# ------------------------------------------------------------------ manners


@contextlib.contextmanager
def manners(n_threads: int | None = None) -> Iterator[None]:
    """Silences `transformers` and sets torch's threads, and puts everything back afterwards.

    Parameters
    ----------
    n_threads
        CPU threads, as `lossift.threads` resolves them.
    """
    wanted = resolve_threads(n_threads)
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    threads = torch.get_num_threads()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _quiet_gguf() -> Iterator[None]:
    """Switches off the one progress bar in `transformers` that doesn't ask whether bars are wanted."""
    shown = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = functools.partial(shown, disable=True)
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = shown


def _gguf(source: Source) -> dict[str, str]:
    return {"gguf_file": source.gguf} if source.gguf else {}


@contextlib.contextmanager
def _told_as_model_error(source: Source, what: str = "causal language model") -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
        raise ModelError(f"{source.folder}: can't be loaded as a {what}: {_first_line(error)}") from error
    except Exception as error:
        # safetensors and tokenizers raise classes of their own that derive from Exception alone.
        if type(error).__module__.partition(".")[0] in ("safetensors", "builtins", "tokenizers"):
            raise ModelError(f"{source.folder}: can't be loaded as a {what}: {_first_line(error)}") from error
        raise


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
