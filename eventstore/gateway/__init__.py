"""The HTTP edge: events in, timelines out, one user live."""
