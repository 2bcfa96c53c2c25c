"""Control groups: kernel/cgroup/."""
