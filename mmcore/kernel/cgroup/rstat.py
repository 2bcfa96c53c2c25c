"""Statistics that each CPU counts for itself and that a reader collects from a subtree.

A counter that changes marks its cgroup, and all above it, as updated on that CPU; a flush visits the
marked cgroups only, children before parents.

Mirrors kernel/cgroup/rstat.c.

Simplified: no lock, and siblings are visited in the order in which they were marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore.kernel.cgroup.cgroup import Cgroup

__all__ = ["CgroupRstatCpu", "cgroup_rstat_flush", "cgroup_rstat_updated"]


class CgroupRstatCpu:
    """``struct cgroup_rstat_cpu``: what one CPU has to tell about a cgroup.

    :ivar updated: it is on its parent's list; in the kernel, ``updated_next`` is set
    :ivar updated_children: children with something to tell

    Mirrors include/linux/cgroup-defs.h:cgroup_rstat_cpu.
    """

    __slots__ = ("updated", "updated_children")

    def __init__(self) -> None:
        self.updated = False
        self.updated_children: list[Cgroup] = []


def cgroup_rstat_updated(cgrp: Cgroup, cpu: int) -> None:
    """Mark a cgroup and its ancestors as updated on @cpu.

    Mirrors kernel/cgroup/rstat.c:cgroup_rstat_updated().
    """
    while not cgrp.rstat_cpu[cpu].updated:
        cgrp.rstat_cpu[cpu].updated = True
        parent = cgrp.parent
        if parent is None:
            return
        parent.rstat_cpu[cpu].updated_children.append(cgrp)
        cgrp = parent


def cgroup_rstat_updated_list(root: Cgroup, cpu: int) -> list[Cgroup]:
    """Take the updated part of a subtree off the lists: children before their parents.

    Mirrors kernel/cgroup/rstat.c:cgroup_rstat_updated_list().
    """
    if not root.rstat_cpu[cpu].updated:
        return []
    if root.parent is not None:
        siblings = root.parent.rstat_cpu[cpu].updated_children
        siblings[:] = [cgrp for cgrp in siblings if cgrp is not root]
    found = [root]
    for cgrp in found:  # grows: parents before their children
        rstatc = cgrp.rstat_cpu[cpu]
        rstatc.updated = False
        found += rstatc.updated_children
        rstatc.updated_children = []
    return found[::-1]


def cgroup_rstat_flush(cgrp: Cgroup) -> None:
    """Add what all CPUs have counted in the subtree of @cgrp to what readers see.

    Mirrors kernel/cgroup/rstat.c:cgroup_rstat_flush().
    """
    for cpu in range(len(cgrp.rstat_cpu)):
        for pos in cgroup_rstat_updated_list(cgrp, cpu):
            for css in pos.rstat_css_list:
                css.ss.css_rstat_flush(css, cpu)
