"""Two optimisers that are one to the loop, to loss scaling and to snapshots."""

from typing import Any

import torch


class Joined(torch.optim.Optimizer):
    """Steps with two optimisers; its parameters are numbered through, those of the first come first.

    With fp16 a step is skipped for both or for none, which two optimisers side by side would not ensure.

    Attributes:
        parts: both.
    """

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        # Not the base class's: it would keep groups and state of its own.
        self.parts = (first, second)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """What torch's gradient scaler asks: whether both skip a step on the device, so that no host waits to know."""
        return all(getattr(part, "_step_supports_amp_scaling", False) for part in self.parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]  # read only: the parts hold them
        """Those of both."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[torch.Tensor, Any]:  # type: ignore[override]  # read only: the parts hold it
        """That of both, by parameter."""
        return {key: value for part in self.parts for key, value in part.state.items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """See the base class."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no optimiser here needs a closure
        """See the base class."""
        # What torch's gradient scaler lays on an optimiser for the time of a step, where that skips by itself.
        scaling = {name: getattr(self, name) for name in ("grad_scale", "found_inf") if hasattr(self, name)}
        for part in self.parts:
            for name, value in scaling.items():
                setattr(part, name, value)
            part.step()
            for name in scaling:
                delattr(part, name)

    def state_dict(self) -> dict[str, Any]:
        """See the base class."""
        first, second = (part.state_dict() for part in self.parts)
        offset = self._offset
        shifted = [
            {**group, "params": [number + offset for number in group["params"]]} for group in second["param_groups"]
        ]
        state = first["state"] | {number + offset: value for number, value in second["state"].items()}
        return {"state": state, "param_groups": [*first["param_groups"], *shifted]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See the base class."""
        offset, groups = self._offset, state_dict["param_groups"]
        count = len(self.parts[0].param_groups)
        mine = {number: value for number, value in state_dict["state"].items() if number < offset}
        theirs = {number - offset: value for number, value in state_dict["state"].items() if number >= offset}
        shifted = [{**group, "params": [number - offset for number in group["params"]]} for group in groups[count:]]
        self.parts[0].load_state_dict({"state": mine, "param_groups": groups[:count]})
        self.parts[1].load_state_dict({"state": theirs, "param_groups": shifted})

    @property
    def _offset(self) -> int:
        return sum(len(group["params"]) for group in self.parts[0].param_groups)
