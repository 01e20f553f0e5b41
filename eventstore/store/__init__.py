"""The CQL edge."""
