"""Bad luck: processes are killed, or stopped for longer than it takes to be taken for dead."""
import time

# Of a collector of this run: a counter that stands still for so long is a dead process's.
EVICT_AFTER = 3
STOPPED = (EVICT_AFTER + 1, EVICT_AFTER + 4)
# Most that are stopped at a time, so that the rest still meets.
MOST_STOPPED = 3
# How many of a hundred strikes kill. A collection takes longer than all else, and only one that ends deletes.
KILLING, KILLING_A_COLLECTION = 30, 8
STOPPING = 35


def strike(crowd, ledger, source, stop):
    """Strikes about once a second until `stop`; in the end everybody goes on."""
    stopped = []
    while not stop.is_set():
        now = time.monotonic()
        for due, member in [each for each in stopped if each[0] <= now]:
            ledger.count("stopped", int(crowd.resume(member)))
            stopped.remove((due, member))
        member = crowd.victim(source)
        luck = source.uniform(0, 100)
        if member and luck < STOPPING and len(stopped) < MOST_STOPPED:
            crowd.stop(member)
            stopped.append((now + source.uniform(*STOPPED), member))
        elif member and luck > 100 - (KILLING_A_COLLECTION if member.role == "collect" else KILLING):
            crowd.kill(member)
        stop.wait(source.uniform(0.1, 0.9))
    for _, member in stopped:
        ledger.count("stopped", int(crowd.resume(member)))
