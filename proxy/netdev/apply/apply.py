"""Carries a plan out, and back again if a step of it fails. Blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from proxy.errors import NetError
from proxy.netdev.apply.interrupts import held_back
from proxy.netdev.plan.steps import NetPlan, Operation, Step


class OperationRunner(Protocol):
    """Carries out one operation, completely or not at all (`proxy.netdev.apply.kernel.Kernel`)."""

    def run(self, operation: Operation) -> None: ...


def apply(plan: NetPlan, kernel: OperationRunner) -> None:
    """Do the steps in order. After a failure the system is as before, and after Ctrl-C, which waits for the step that
    is under way.

    Raises NetError: the plan has problems (nothing was done), or a step failed (those before it were taken back; if
    that failed too, the text says what is left).
    """
    if plan.problems:
        raise NetError("; ".join(plan.problems))
    with held_back() as heed:
        _apply(plan, kernel, heed)


def _apply(plan: NetPlan, kernel: OperationRunner, heed: Callable[[], None]) -> None:
    done: list[Step] = []
    try:
        for step in plan.steps:
            kernel.run(step.do)
            done.append(step)
            heed()
    except BaseException as error:
        left = take_back(done, kernel)
        if isinstance(error, NetError):
            undone = "what had been done was taken back" if done else "nothing was changed"
            ending = "could not be taken back: " + "; ".join(left) if left else undone
            raise NetError(f"{error}; {ending}") from error
        if left:
            raise NetError("interrupted; could not be taken back: " + "; ".join(left)) from error
        raise


def take_back(done: Sequence[Step], kernel: OperationRunner) -> list[str]:
    """Undo the steps, the last one first. Returns what could not be undone; the others were, all the same."""
    left = []
    for step in reversed(done):
        for operation in step.undo:
            try:
                kernel.run(operation)
            except NetError as error:
                left.append(str(error))
    return left
