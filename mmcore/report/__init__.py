"""Tools for real machines: what a report from a real kernel says, and why."""
