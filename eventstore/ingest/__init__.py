"""One chunk's way from records to acknowledged rows."""
