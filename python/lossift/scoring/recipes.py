"""Recipes: how a proxy is fine-tuned when nobody says otherwise, and why.

``default``: for proxies of 70M to 500M parameters, and for tiny ones trained from nothing on a CPU.

- Learning rate by size: up to 20M parameters 1e-3 (such a model has been trained from nothing, and a smaller rate
  leaves it there), up to 200M 1e-4, above 5e-5 (what supervised fine-tuning of small models commonly uses).
- Batches of 32 examples: on 10,000 examples three epochs are 940 steps, so that 12 states are well apart; on pools too
  small for that, states coincide and fewer are recorded.
- 3 % warm-up, cosine to zero, no weight decay, gradients clipped at 1: as the S2L authors.

``s2l``: the authors' released recipe. Their scripts save every 500 steps and keep at most 12 checkpoints; a save limit
keeps the **newest**, so a longer run (more than 6,500 steps) is recorded at its last 12 multiples of 500.
Giving ``states`` spaces them evenly instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from lossift.errors import ArgumentError
from lossift.scoring.record import spaced_steps

_SIZES = ((20e6, 1e-3), (200e6, 1e-4), (float("inf"), 5e-5))


@dataclass(frozen=True)
class Recipe:
    """What decides a proxy's training; None is decided by the model.

    Attributes
    ----------
    batch_size
        Examples per optimiser step.
    every, at_most
        Record every so many steps, the newest so many; None: evenly spaced states.
    """

    name: str
    epochs: float = 3
    learning_rate: float | None = None
    batch_size: int = 32
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_length: int | None = None
    template: str = "auto"
    seed: int = 42
    states: int = 12
    every: int | None = None
    at_most: int = 12

    def steps(self, n_steps: int, n_states: int | None) -> list[int]:
        """Returns the steps to record, strictly between 0 and `n_steps`, ascending.

        Raises
        ------
        ArgumentError
            When the run is too short for a recipe that records every so many steps.
        """
        if n_states is not None or self.every is None:
            return spaced_steps(n_steps, n_states or self.states)
        steps = list(range(self.every, n_steps, self.every))[-self.at_most :]
        if not steps:
            raise ArgumentError(
                f"recipe: {self.name} records every {self.every} steps, and this run has {n_steps}",
                hint="give states=12 to space them evenly",
            )
        return steps

    def learning_rate_for(self, n_parameters: int) -> float:
        """Returns the peak learning rate for a model of this size."""
        if self.learning_rate is not None:
            return self.learning_rate
        return next(rate for limit, rate in _SIZES if n_parameters <= limit)


RECIPES = {
    "default": Recipe("default"),
    "s2l": Recipe("s2l", learning_rate=2e-5, batch_size=128, max_length=512, template="alpaca", every=500),
}
