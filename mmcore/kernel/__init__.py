"""Model of the few files under the kernel's kernel/ that memory management needs."""
