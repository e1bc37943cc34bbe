"""Collects what was measured, by tool and metric, one value a run, and goes on when a tool fails."""
import statistics

from .measure import Failed, take
from .say import say

# Ends the name of a metric that counts seconds of the processor, over all threads and processes.
PROCESSOR = ", processor"


class Figures:
    def __init__(self):
        self.values, self.details, self.failures, self.peaks = {}, [], [], {}

    def add(self, tool, metric, value):
        self.values.setdefault(tool, {}).setdefault(metric, []).append(value)

    def median(self, tool, metric):
        found = self.values.get(tool, {}).get(metric)
        return statistics.median(found) if found else None

    def best(self, tool, metric):
        found = self.values.get(tool, {}).get(metric)
        return min(found) if found else None

    def fail(self, tool, run, phase, error):
        say(f"{tool.name}, {phase}: FAILED: {error}")
        self.failures.append({"run": run, "tool": tool.name, "phase": phase, "error": str(error)})

    def take(self, tool, run, phase, commands, metric=None, limit=None, quiet=False):
        """Measures commands as one and returns the last answer, or None where one failed. A quiet one is one of many."""
        metric, seconds, processor, answer = metric or phase, 0, 0, None
        for command in commands:
            try:
                taken = take(command, limit)
            except Failed as error:
                self.fail(tool, run, metric, error)
                return None
            seconds, processor, answer = seconds + taken.seconds, processor + taken.processor_seconds, taken.answer
            self.details.append({"run": run, "tool": tool.name, "phase": metric, **taken.figures()})
            self.peaks[tool.name, run] = max(self.peaks.get((tool.name, run), 0), taken.peak_anonymous)
        self.add(tool.name, metric, seconds)
        # A busy machine stretches the seconds much more than these.
        self.add(tool.name, metric + PROCESSOR, processor)
        if not quiet:
            say(f"run {run + 1}, {metric}: {tool.name} {seconds:.2f} s")
        return answer

    def add_peaks(self):
        """Adds each tool's peak of a run over all its phases."""
        for (tool, _), peak in sorted(self.peaks.items()):
            self.add(tool, "peak", peak)
