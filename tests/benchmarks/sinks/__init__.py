"""The contestants that are not ours, each a process: `python -m tests.benchmarks.sinks.stock|simple '{"topic": ...}'`."""
