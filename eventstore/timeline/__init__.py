"""One user's past: a query plan over buckets, a paging cursor."""
