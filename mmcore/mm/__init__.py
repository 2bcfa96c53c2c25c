"""The memory manager: one module per file of the kernel's mm/, with the kernel's names."""
