def rebalance(bench: object) -> None:
    """X"""
