"""The processes, one module each: composition only, no rules."""
