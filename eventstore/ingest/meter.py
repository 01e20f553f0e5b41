"""What the work of one worker cost: the figures of its closing log line."""

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Meter:
    """Counts from the first haul to the end of the last one: neither start-up nor idling is work."""

    records: int = 0
    _wall: float = 0.0
    _cpu: float = 0.0
    _seconds: float = 0.0
    _cpu_seconds: float = 0.0

    def begin(self) -> None:
        """A haul is taken up."""
        if not self._wall:
            self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self, records: int) -> None:
        """A haul of so many records is done."""
        self.records += records
        self._seconds = time.perf_counter() - self._wall
        self._cpu_seconds = time.process_time() - self._cpu

    def figures(self) -> dict[str, float]:
        """Records, seconds, records a second, CPU microseconds a record (all threads of the process)."""
        if not self.records:
            return {"records": 0}
        return {
            "records": self.records,
            "seconds": round(self._seconds, 3),
            "records_per_second": round(self.records / self._seconds),
            "cpu_us_per_record": round(self._cpu_seconds / self.records * 1e6, 2),
        }
