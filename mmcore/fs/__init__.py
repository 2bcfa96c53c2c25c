"""Model of the few files under the kernel's fs/ that memory management needs."""
