"""Eventstore: the short-term memory of every user's actions."""

__version__ = "0.1.0"
