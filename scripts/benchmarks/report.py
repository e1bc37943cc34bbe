"""Prints figures as tables: what every tool took, and how Kiln stands against the budgets."""
from .figures import PROCESSOR

# Metric, heading, unit and digits of what is compared.
ROWS = [
    ("save", "first save", "s", 2),
    ("stored", "stored", "MB", 0),
    ("growth", "growth after the change", "MB", 1),
    ("unchanged", "unchanged save", "s", 2),
    ("changed", "changed save", "s", 2),
    ("restore", "restore to tmpfs", "s", 2),
    ("resave", "save right after a restore", "s", 2),
    ("update", "update after the change", "s", 2),
    ("level3", "first save at level 3", "s", 2),
    ("stored at level 3", "stored at level 3", "MB", 0),
    ("check", "read-all check", "s", 2),
    ("collect", "forget and collect", "s", 2),
    ("stored after collect", "stored after that", "MB", 0),
    ("stored garbage after collect", "garbage in it", "MB", 1),
    ("peak", "peak anonymous memory", "MB", 0),
    *((metric + PROCESSOR, f"{heading}, processor", "s", 1) for metric, heading in (
        ("save", "first save"), ("unchanged", "unchanged save"), ("restore", "restore"), ("check", "read-all check"))),
]

# Every tool's memory may vary; Kiln's is bounded.
PEAK = ("peak", 256 * 1024 * 1024, None, None)

# Kiln's metric, at most so many times another's: (metric, factor, tool, metric of that tool). A tool of None is a plain bound in
# the unit of the metric.
BUDGETS = [
    ("save", 0.30, "restic", "save"),
    ("save", 0.38, "bupstash", "save"),
    ("save", 0.65, "tar+zstd", "save"),
    ("stored", 1.02, "restic", "stored"),
    ("stored at level 3", 1.02, "bupstash", "stored"),
    ("growth", 0.55, "restic", "growth"),
    ("unchanged", 0.12, "restic", "unchanged"),
    ("unchanged", 0.60, "bupstash", "unchanged"),
    ("changed", 0.25, "restic", "changed"),
    ("restore", 0.60, "cp -a", "restore"),
    ("resave", 1.50, "kiln", "unchanged"),
    ("update", 0.15, "kiln", "full restore"),
    ("check", 0.50, "restic", "check"),
    ("collect", 0.30, "restic", "collect"),
    ("stored garbage after collect", 0.05, "kiln", "stored after collect"),
    PEAK,
]

HEADINGS = {metric: (heading, unit, digits) for metric, heading, unit, digits in ROWS}


def heading_of(metric):
    """Returns heading, unit and digits, also of a metric that only a group has."""
    of_bytes = metric.startswith(("stored", "growth", "peak"))
    if metric.startswith("segments"):
        return metric, "count", 0
    return HEADINGS.get(metric) or (metric, *(("MB", 0) if of_bytes else ("s", 2)))


def rows_of(figures):
    """Returns a row for each metric, in the order in which they were measured."""
    metrics = dict.fromkeys(metric for values in figures.values.values() for metric in values
                            if not metric.endswith(PROCESSOR))
    return [(metric, *heading_of(metric)) for metric in metrics]


def shown(metric, value):
    """Returns a value in the unit of its row; MB are 10^6 bytes, as in the budgets."""
    if value is None:
        return "–"
    _, unit, digits = heading_of(metric)
    return f"{value / 1e6 if unit == 'MB' else value:,.{digits}f}"


def aligned(rows):
    """Prints rows as a Markdown table with aligned columns: words to the left, figures to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for number, row in enumerate(rows):
        figures = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("| " + " | ".join([row[0].ljust(widths[0]), *figures]) + " |")
        if number == 0:
            print("|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|")


def compared(figures, tools, rows=ROWS):
    """Prints the median of every tool, the best run in brackets."""
    table = [["", *(f"{name} {version}".strip() for name, version in tools)]]
    for metric, heading, unit, _ in rows:
        cells = []
        for name, _ in tools:
            median, best = figures.median(name, metric), figures.best(name, metric)
            several = median is not None and len(figures.values[name][metric]) > 1 and unit == "s"
            cells.append(shown(metric, median) + (f" ({shown(metric, best)})" if several else ""))
        if any(cell != "–" for cell in cells):
            table.append([f"{heading}, {unit}", *cells])
    aligned(table)


def judged(figures, budgets=None):
    """Returns each budget with the ratio of medians, of best runs and of processor seconds, and whether the medians reach it.

    A budget whose figures were not measured is left out.
    """
    found = []
    for metric, factor, other, theirs in budgets or BUDGETS:
        ours = figures.median("kiln", metric)
        base = figures.median(other, theirs) if other else 1
        if ours is None or not base:
            continue
        best = figures.best("kiln", metric) / (figures.best(other, theirs) if other else 1)
        used = figures.median("kiln", metric + PROCESSOR)
        theirs_used = figures.median(other, theirs + PROCESSOR) if other else None
        found.append({"metric": metric, "against": other, "their_metric": theirs, "kiln": ours, "theirs": base if other else None,
                      "ratio": ours / base, "ratio_of_best": best,
                      "ratio_of_processor": used / theirs_used if used is not None and theirs_used else None,
                      "budget": factor, "reached": ours / base <= factor})
    return found


def against_budgets(judgements):
    if not judgements:
        return
    table = [["Kiln", "median", "against", "theirs", "ratio", "of best", "of processor", "budget", ""]]
    for row in judgements:
        heading, unit, _ = heading_of(row["metric"])
        other = row["against"]
        their_heading = heading_of(row["their_metric"])[0] if other else None
        bound = f"≤ {row['budget']:.2f}" if other else f"≤ {shown(row['metric'], row['budget'])}"
        table.append([f"{heading}, {unit}", shown(row["metric"], row["kiln"]),
                      (f"its {their_heading}" if other == "kiln" else other) if other else "–",
                      shown(row["metric"], row["theirs"]), f"{row['ratio']:.3f}" if other else "–",
                      f"{row['ratio_of_best']:.3f}" if other else "–",
                      "–" if row["ratio_of_processor"] is None else f"{row['ratio_of_processor']:.3f}", bound,
                      "reached" if row["reached"] else "NOT REACHED"])
    aligned(table)
