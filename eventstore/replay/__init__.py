"""A range of the event topic stored once more, beside live traffic: plan, run, follow, verify."""
