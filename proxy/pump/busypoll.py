"""When the loop looks again at once instead of waiting in the kernel (sans-IO).

To be put to sleep and woken costs both hosts more than a small message. But looking takes the core from others, so the
loop looks for a short while only, yields the core between two looks (sched_yield(2)), and judges by its own looks:

* it begins when many more waits were so short that looking would have found what ended them than were not, and goes on
  through a wait now and then that was longer, as a machine with other work makes them;
* it does not where each of many has something now and then: who talks there does not wait for the other's answer;
* it pauses when somebody else has used the core that it yielded.

Where a quota of CPU time is set, time spent looking is taken from the work, so there `auto` never looks.
"""

from __future__ import annotations

from proxy.pump.pace import ENOUGH, FEW_SPEAK, LOOKING, PAUSE, SHORT, TAKEN, WINDOW


class BusyPoll:
    """Decides for one loop. Times are seconds of one clock that does not go back.

    Args:
        seconds: to look for at most, at every wait; 0: never; None (auto): LOOKING, when it is worth it.

    Attributes:
        spent: seconds spent looking since the start; what was found at the first look has cost none.
        quota: whether a quota of CPU time is set (`auto` only).
    """

    def __init__(self, seconds: float | None = 0.0) -> None:
        self.spent = 0.0
        self.quota = False
        self._short = 0
        self._not_before = 0.0
        self._spoke = self._turns = 0
        self._many = False
        self.set(seconds)

    def set(self, seconds: float | None) -> None:
        """Follow another setting from now on."""
        self.auto = seconds is None
        self._seconds = LOOKING if seconds is None else seconds

    @property
    def on(self) -> bool:
        """Whether it ever looks."""
        return self._seconds > 0 and not (self.auto and self.quota)

    @property
    def told(self) -> str:
        """The setting, and what follows from it, for people."""
        if self.auto:
            return "off (auto: a quota of CPU time is set)" if self.quota else "auto"
        return f"{self._seconds * 1e6:g} us" if self._seconds else "off"

    def until(self, now: float) -> float:
        """When to stop looking; no later than `now`: wait at once."""
        if self.auto and (self.quota or self._many or self._short < ENOUGH or now < self._not_before):
            return now
        return now + self._seconds

    def turn(self, fd: int) -> None:
        """A turn whose first descriptor is this one."""
        bit = 1
        self._spoke |= bit << (fd & 63)
        self._turns += 1
        if self._turns == WINDOW:
            self._many = self._spoke.bit_count() > FEW_SPEAK
            self._spoke = self._turns = 0

    def found(self) -> None:
        """A look has found something."""
        if self._short < 2 * ENOUGH:
            self._short += 1

    def looked(self, before: float, now: float) -> bool:
        """A look at `now`, after one at `before`, found nothing. Whether to go on."""
        self.spent += now - before
        if now - before > TAKEN:
            self._not_before = now + PAUSE
            return not self.auto
        return True

    def waited(self, seconds: float) -> None:
        """It has waited in the kernel for so long, looks in vain before that included, until something came."""
        if seconds < SHORT:
            self.found()
        else:
            self._short //= 2
