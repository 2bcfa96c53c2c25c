"""The kernel's texts, both ways.

Each module renders one file of /proc (or the lines of one kind in the log) from a machine, and
parses such a text back. For what a 6.12 kernel printed, ``render(parse(text)) == text``.
"""
