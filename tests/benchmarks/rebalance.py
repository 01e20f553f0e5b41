def rebalance(bench: object) -> None:
    """x"""
