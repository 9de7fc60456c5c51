"""Scoring: forward passes over a pool, written once as loss columns. The only folder that imports torch.

Read in this order: `templates` and `encode` (examples to tokens), `forward` (tokens to losses), `column` (losses to
the store), `score`; then `record`, `recipes`, `training`, `proxy` (losses while a model trains).
"""

from lossift.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f"scoring needs torch and transformers, and {error.name} is not installed",
        hint="pip install 'lossift[score]'",
    ) from error

from lossift.scoring.proxy import trace
from lossift.scoring.record import LossRecorder
from lossift.scoring.score import score
from lossift.scoring.tiny import tiny_model

__all__ = ["LossRecorder", "score", "tiny_model", "trace"]
