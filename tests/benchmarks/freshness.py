def freshness(bench: object) -> None:
    """x"""
