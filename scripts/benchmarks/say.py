"""Talks on stderr; stdout is for the tables."""
import sys


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)
