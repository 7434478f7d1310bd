"""A clock that only the test moves."""

from datetime import UTC, datetime, timedelta

from attrs import define

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@define
class HandClock:
    """Time stands still until `pass_ms`, and a sleep passes it at once."""

    seconds: float = 1_000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.seconds - 1_000)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def pass_ms(self, milliseconds: float) -> None:
        self.seconds += milliseconds / 1000
