"""The embedded stack: a real Kafka and real CQL servers started from packages."""
