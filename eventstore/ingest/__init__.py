"""The way from records to acknowledged rows."""
