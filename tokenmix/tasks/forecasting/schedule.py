"""How long and how fast the official scripts train: the learning rate of an epoch, and when an epoch was the last one.

Both are functions of what has happened, without a state of their own: a run that goes on after a kill asks them again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

DECAY = 0.9  # of the learning rate, for each epoch after ...
CONSTANT_EPOCHS = 4  # ... these; the official rule is asked after an epoch, so that its "epoch 3" acts on the fourth


def learning_rate(epoch: int, base: float) -> float:
    """The rate of an epoch, counted from 0: constant for four epochs, then times 0.9 for each further one.

    Source: the rule "type3" of the official scripts (from PatchTST and ModernTCN).
    """
    return base * DECAY ** max(0, epoch + 1 - CONSTANT_EPOCHS)


def best_epoch(losses: Sequence[float]) -> int:
    """The epoch, from 0, whose weights are kept: the lowest loss, of equal ones the last.

    Raises:
        ValueError: If there is no loss.
    """
    if not losses:
        raise ValueError("no epoch has been validated")
    known = [math.inf if math.isnan(loss) else loss for loss in losses]
    return max(range(len(known)), key=lambda epoch: (-known[epoch], epoch))


def is_last(losses: Sequence[float], patience: int) -> bool:
    """Whether training stops here: ``patience`` epochs in a row were worse than the best one before them.

    Args:
        losses: On the validation part, of all epochs so far.
        patience: Epochs without an improvement; the official scripts' option of that name.
    """
    return bool(losses) and len(losses) - 1 - best_epoch(losses) >= patience
