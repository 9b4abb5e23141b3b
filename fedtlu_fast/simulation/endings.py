"""What is said of a run that ends before its last round."""

from __future__ import annotations

from pathlib import Path

from fedtlu_fast.shown import shell_word
from fedtlu_fast.wording import either


def how_it_diverged(done: int, rounds: int) -> str:
    """What happened to a run that has diverged, and what may help.

    Args:
        done: rounds done.
        rounds: of the run.
    """
    return (
        f"the global model has diverged: after round {done} of {rounds} its test loss is no number, and no "
        f"further round was run. Use a smaller training.lr or server_lr, training.clip_norm, a robust "
        f"aggregation.rule, or aggregation.max_share"
    )


def how_to_resume(done: int, rounds: int, path: Path | None) -> str:
    """What was done of a run that was interrupted, and how to do the rest.

    Args:
        done: rounds done.
        rounds: of the run.
        path: of its directory; None when it has none.
    """
    told = f"after round {done} of {rounds}"
    if path is None:
        return f"{told}; nothing was written, since the run has no directory"
    in_python = f"simulate(config, {str(path)!r}, resume=True), or federation.resume({str(path)!r})"
    again = either(in_python, f"fedtlu run --resume {shell_word(path)}")
    return f"{told}; you can resume it with: {again}"
