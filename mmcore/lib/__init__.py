"""Data structures of the kernel's lib/ and include/linux/, used by more than one subsystem."""
