"""Talks on stderr; stdout is for the figures."""
import sys


def say(text):
    print(f"soak: {text}", file=sys.stderr, flush=True)
