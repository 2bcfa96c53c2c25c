"""Control groups: the tree, its controllers, and how a group lives on after it was removed.

Mirrors kernel/cgroup/cgroup.c and include/linux/cgroup.h for the unified hierarchy (version 2).

Two trees grow together. A `Cgroup` is a directory. A `CgroupSubsysState` (css) is what a controller
keeps for it, made when the parent's ``cgroup.subtree_control`` names the controller; a group without
one uses the nearest ancestor's. Removing a directory takes the css offline, but whoever holds a
reference, every charged page among them, keeps it: such a group is *dying*.

Simplified: the controllers are those a machine registers (``memory``); a task is a whole thread group;
no threaded groups, namespaces, freezer or delegation; offlining and freeing run at once, which in the
kernel happen in a workqueue after a grace period.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.errors import (
    EAGAIN,
    EBUSY,
    EEXIST,
    EINVAL,
    ENODEV,
    ENOENT,
    KernelBug,
    UsageError,
)
from mmcore.kernel.cgroup.rstat import CgroupRstatCpu, cgroup_rstat_flush
from mmcore.lib.cmdline import strstrip
from mmcore.lib.list import ListHead, list_add_tail, list_del, list_empty

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "CGRP_ROOT_MEMORY_HUGETLB_ACCOUNTING",
    "CGRP_ROOT_MEMORY_LOCAL_EVENTS",
    "CGRP_ROOT_MEMORY_RECURSIVE_PROT",
    "CSS_DYING",
    "CSS_NO_REF",
    "CSS_ONLINE",
    "CSS_RELEASED",
    "Cgroup",
    "CgroupRoot",
    "CgroupSubsys",
    "CgroupSubsysState",
    "cgroup_attach_task",
    "cgroup_control",
    "cgroup_css",
    "cgroup_e_css",
    "cgroup_exit",
    "cgroup_fork",
    "cgroup_get",
    "cgroup_is_dead",
    "cgroup_is_descendant",
    "cgroup_is_populated",
    "cgroup_init",
    "cgroup_mkdir",
    "cgroup_parent",
    "cgroup_path",
    "cgroup_put",
    "cgroup_rmdir",
    "cgroup_stat_show",
    "cgroup_subtree_control_write",
    "cgroup_walk",
    "css_get",
    "css_get_many",
    "css_next_child",
    "css_next_descendant_pre",
    "css_put",
    "css_tryget",
    "css_tryget_online",
    "task_cgroup",
]

# include/linux/cgroup-defs.h
CSS_NO_REF = 1 << 0
CSS_ONLINE = 1 << 1
CSS_RELEASED = 1 << 2
CSS_VISIBLE = 1 << 3
CSS_DYING = 1 << 4
CGRP_ROOT_MEMORY_LOCAL_EVENTS = 1 << 5
CGRP_ROOT_MEMORY_RECURSIVE_PROT = 1 << 6
CGRP_ROOT_MEMORY_HUGETLB_ACCOUNTING = 1 << 7
#: Mount options that change how the memory controller behaves.
ROOT_OPTIONS: tuple[tuple[int, str], ...] = (
    (CGRP_ROOT_MEMORY_LOCAL_EVENTS, "memory_localevents"),
    (CGRP_ROOT_MEMORY_RECURSIVE_PROT, "memory_recursiveprot"),
    (CGRP_ROOT_MEMORY_HUGETLB_ACCOUNTING, "memory_hugetlb_accounting"),
)
INT_MAX = (1 << 31) - 1


class CgroupSubsysState(ListHead):
    """``struct cgroup_subsys_state``: what a controller keeps for one cgroup; itself the sibling link.

    :ivar ss: the controller; None for a cgroup's own (``cgrp.self``)
    :ivar children: css of the groups below, the oldest first, dying ones included
    :ivar refcnt: references; the root has none (CSS_NO_REF)
    :ivar serial_nr: grows with every css, so that a walk can go on behind one that is gone
    :ivar container: the controller's struct around it (container_of() in the kernel)

    Mirrors include/linux/cgroup-defs.h:cgroup_subsys_state.
    """

    __slots__ = (
        "cgroup",
        "children",
        "container",
        "flags",
        "id",
        "nr_descendants",
        "online_cnt",
        "parent",
        "refcnt",
        "serial_nr",
        "ss",
    )

    def __init__(
        self, cgroup: Cgroup, ss: CgroupSubsys | None, parent: CgroupSubsysState | None
    ) -> None:
        super().__init__()
        self.cgroup = cgroup
        self.ss: Any = ss
        self.parent = parent
        self.children = ListHead()
        self.refcnt = 1
        self.flags = 0
        self.id = 0
        self.serial_nr = 0
        self.nr_descendants = 0
        self.online_cnt = 0
        self.container: Any = None

    def __repr__(self) -> str:
        name = self.ss.name if self.ss else "cgroup"
        state = "online" if self.flags & CSS_ONLINE else "offline"
        return f"<css {name} {cgroup_path(self.cgroup)} {state} refcnt:{self.refcnt}>"


@dataclass(slots=True, eq=False)
class CgroupSubsys:
    """``struct cgroup_subsys``: a controller's calls.

    Mirrors include/linux/cgroup-defs.h:cgroup_subsys.
    """

    name: str
    css_alloc: Callable[[CgroupSubsysState], int]
    css_online: Callable[[CgroupSubsysState], int]
    css_offline: Callable[[CgroupSubsysState], None]
    css_released: Callable[[CgroupSubsysState], None]
    css_free: Callable[[CgroupSubsysState], None]
    css_rstat_flush: Callable[[CgroupSubsysState, int], None]
    attach: Callable[[Any], None]
    fork: Callable[[Any], None]
    exit: Callable[[Any], None]
    next_id: int = 1


@dataclass(slots=True, eq=False)
class CgroupRoot:
    """``struct cgroup_root``: a hierarchy, with its mount options as flags.

    Mirrors include/linux/cgroup-defs.h:cgroup_root.
    """

    machine: Machine = field(repr=False)
    flags: int = 0
    nr_cgrps: int = 0
    subsys: list[CgroupSubsys] = field(default_factory=list, repr=False)
    css_serial_nr_next: int = 1
    cgrp: Cgroup = field(init=False, repr=False)


class Cgroup:
    """``struct cgroup``: one directory of the hierarchy.

    :ivar self: its own css (the kernel's name; here a field like any other)
    :ivar subsys: css by controller name; of this group alone
    :ivar subtree_control: controllers that its children get
    :ivar procs: the tasks in it, in the order in which they came
    :ivar nr_dying_descendants: removed groups below it that something still holds
    :ivar ancestors: from the root to itself

    Mirrors include/linux/cgroup-defs.h:cgroup.
    """

    __slots__ = (
        "ancestors",
        "level",
        "max_depth",
        "max_descendants",
        "name",
        "nr_descendants",
        "nr_dying_descendants",
        "nr_dying_subsys",
        "nr_populated_children",
        "parent",
        "procs",
        "root",
        "rstat_cpu",
        "rstat_css_list",
        "self",
        "subsys",
        "subtree_control",
    )

    level: int
    self: CgroupSubsysState

    def __init__(cgrp, root: CgroupRoot, parent: Cgroup | None, name: str) -> None:
        cgrp.root = root
        cgrp.parent = parent
        cgrp.name = name
        cgrp.level = 0 if parent is None else parent.level + 1
        above: tuple[Cgroup, ...] = () if parent is None else parent.ancestors
        cgrp.ancestors: tuple[Cgroup, ...] = (*above, cgrp)
        cgrp.self = CgroupSubsysState(cgrp, None, None if parent is None else parent.self)
        cgrp.self.flags = CSS_ONLINE
        cgrp.subsys: dict[str, CgroupSubsysState] = {}
        cgrp.subtree_control: list[str] = []
        cgrp.procs: list[Any] = []
        cgrp.nr_populated_children = 0
        cgrp.nr_descendants = 0
        cgrp.nr_dying_descendants = 0
        cgrp.nr_dying_subsys: dict[str, int] = {}
        cgrp.max_descendants = cgrp.max_depth = INT_MAX
        cgrp.rstat_cpu = [CgroupRstatCpu() for _ in range(root.machine.cpus)]
        cgrp.rstat_css_list: list[CgroupSubsysState] = []

    def __repr__(cgrp) -> str:
        return f"<cgroup {cgroup_path(cgrp)}{' dead' if cgroup_is_dead(cgrp) else ''}>"


def cgroup_parent(cgrp: Cgroup) -> Cgroup | None:
    """Return the group above, None for the root.

    Mirrors include/linux/cgroup.h:cgroup_parent().
    """
    return cgrp.parent


def cgroup_is_descendant(cgrp: Cgroup, ancestor: Cgroup) -> bool:
    """Tell whether @cgrp is @ancestor or below it.

    Mirrors include/linux/cgroup.h:cgroup_is_descendant().
    """
    return cgrp.level >= ancestor.level and cgrp.ancestors[ancestor.level] is ancestor


def cgroup_path(cgrp: Cgroup) -> str:
    """Return the path of the group below the mount point, "/" for the root.

    Mirrors include/linux/cgroup.h:cgroup_path().
    """
    return "/" + "/".join(part.name for part in cgrp.ancestors[1:])


def cgroup_is_dead(cgrp: Cgroup) -> bool:
    """Tell whether the directory was removed.

    Mirrors kernel/cgroup/cgroup-internal.h:cgroup_is_dead().
    """
    return not cgrp.self.flags & CSS_ONLINE


def cgroup_is_populated(cgrp: Cgroup) -> bool:
    """Tell whether there is a task in the group or below it.

    Mirrors include/linux/cgroup.h:cgroup_is_populated().
    """
    return bool(cgrp.procs) or cgrp.nr_populated_children > 0


def cgroup_css(cgrp: Cgroup, ss: CgroupSubsys | None) -> CgroupSubsysState | None:
    """Return the controller's css of this group, None if it has none of its own.

    Mirrors kernel/cgroup/cgroup.c:cgroup_css().
    """
    return cgrp.self if ss is None else cgrp.subsys.get(ss.name)


def cgroup_e_css(cgrp: Cgroup, name: str) -> CgroupSubsysState | None:
    """Return the css that counts for this group: its own or the nearest ancestor's.

    Mirrors kernel/cgroup/cgroup.c:cgroup_e_css().
    """
    at: Cgroup | None = cgrp
    while at is not None:
        css = at.subsys.get(name)
        if css is not None:
            return css
        at = at.parent
    return None


def cgroup_control(cgrp: Cgroup) -> list[str]:
    """Return the controllers that the group has (its file ``cgroup.controllers``).

    Mirrors kernel/cgroup/cgroup.c:cgroup_control().
    """
    if cgrp.parent is None:
        return [ss.name for ss in cgrp.root.subsys]
    return cgrp.parent.subtree_control


# ---- references ----------------------------------------------------------------------------------


def css_get(css: CgroupSubsysState) -> None:
    """Take a reference.

    Mirrors include/linux/cgroup_refcnt.h:css_get().
    """
    if not css.flags & CSS_NO_REF:
        css.refcnt += 1


def css_get_many(css: CgroupSubsysState, n: int) -> None:
    """Take @n references.

    Mirrors include/linux/cgroup_refcnt.h:css_get_many().
    """
    if not css.flags & CSS_NO_REF:
        css.refcnt += n


def css_tryget(css: CgroupSubsysState) -> bool:
    """Take a reference unless the last one is gone.

    Mirrors include/linux/cgroup_refcnt.h:css_tryget().
    """
    if css.flags & CSS_NO_REF:
        return True
    if css.refcnt <= 0:
        return False
    css.refcnt += 1
    return True


def css_tryget_online(css: CgroupSubsysState) -> bool:
    """Take a reference unless the group was removed.

    Mirrors include/linux/cgroup_refcnt.h:css_tryget_online().
    """
    if css.flags & CSS_NO_REF:
        return True
    if css.flags & CSS_DYING or css.refcnt <= 0:
        return False
    css.refcnt += 1
    return True


def css_put(css: CgroupSubsysState) -> None:
    """Give back a reference; the last one frees the css.

    :raises KernelBug: if there is none

    Mirrors include/linux/cgroup_refcnt.h:css_put().
    """
    css_put_many(css, 1)


def css_put_many(css: CgroupSubsysState, n: int) -> None:
    """Give back @n references.

    :raises KernelBug: if there are fewer

    Mirrors include/linux/cgroup_refcnt.h:css_put_many().
    """
    if css.flags & CSS_NO_REF:
        return
    if css.refcnt < n:
        raise KernelBug(f"{css!r} gives back {n} references")
    css.refcnt -= n
    if not css.refcnt:
        css_release(css)


def cgroup_get(cgrp: Cgroup) -> None:
    """Take a reference to the directory itself.

    Mirrors include/linux/cgroup.h:cgroup_get().
    """
    css_get(cgrp.self)


def cgroup_put(cgrp: Cgroup) -> None:
    """Give back a reference to the directory itself.

    Mirrors include/linux/cgroup.h:cgroup_put().
    """
    css_put(cgrp.self)


def css_release(css: CgroupSubsysState) -> None:
    """Take a css that nobody holds out of the tree, and free it.

    Mirrors kernel/cgroup/cgroup.c:css_release().
    """
    css_release_work_fn(css)
    css_free_rwork_fn(css)


def css_release_work_fn(css: CgroupSubsysState) -> None:
    """Take a css out of the tree; its counters go to its parent first.

    Mirrors kernel/cgroup/cgroup.c:css_release_work_fn().
    """
    cgrp = css.cgroup
    css.flags |= CSS_RELEASED
    if css.prev is not css:
        list_del(css)
    if css.ss is not None:
        cgroup_rstat_flush(cgrp)
        cgrp.rstat_css_list.remove(css)
        css.ss.css_released(css)
        for part in cgrp.ancestors:
            part.nr_dying_subsys[css.ss.name] -= 1
    else:
        cgroup_rstat_flush(cgrp)
        for part in cgrp.ancestors[:-1]:
            part.nr_dying_descendants -= 1


def css_free_rwork_fn(css: CgroupSubsysState) -> None:
    """Free a css and give back what it held: its cgroup and its parent.

    Mirrors kernel/cgroup/cgroup.c:css_free_rwork_fn().
    """
    cgrp = css.cgroup
    if css.ss is not None:
        css.ss.css_free(css)
        cgroup_put(cgrp)
        if css.parent is not None:
            css_put(css.parent)
        return
    cgrp.root.nr_cgrps -= 1
    if cgrp.parent is not None:
        cgroup_put(cgrp.parent)


# ---- walking -------------------------------------------------------------------------------------


def css_next_child(
    pos: CgroupSubsysState | None, parent: CgroupSubsysState
) -> CgroupSubsysState | None:
    """Return the child behind @pos, the first for None; None at the end.

    Mirrors kernel/cgroup/cgroup.c:css_next_child().
    """
    if pos is None:
        following = parent.children.next
    elif not pos.flags & CSS_RELEASED:
        following = pos.next
    else:
        for child in parent.children:
            if child.serial_nr > pos.serial_nr:
                found: CgroupSubsysState = child
                return found
        return None
    return None if following is parent.children else following


def css_next_descendant_pre(
    pos: CgroupSubsysState | None, root: CgroupSubsysState
) -> CgroupSubsysState | None:
    """Return what follows @pos in a walk over @root and all below it, parents first.

    Mirrors kernel/cgroup/cgroup.c:css_next_descendant_pre().
    """
    if pos is None:
        return root
    following = css_next_child(None, pos)
    if following is not None:
        return following
    while pos is not root:
        parent = pos.parent
        if parent is None:
            raise UsageError(f"{pos!r} is not below {root!r}")
        following = css_next_child(pos, parent)
        if following is not None:
            return following
        pos = parent
    return None


def cgroup_walk(cgrp: Cgroup) -> Iterator[Cgroup]:
    """Yield @cgrp and the live groups below it, parents first."""
    css: CgroupSubsysState | None = cgrp.self
    while css is not None:
        if css.flags & CSS_ONLINE:
            yield css.cgroup
        css = css_next_descendant_pre(css, cgrp.self)


# ---- making and removing -------------------------------------------------------------------------


def css_create(cgrp: Cgroup, ss: CgroupSubsys) -> int:
    """Make the controller's css of a group and bring it online.

    :return: 0 or -errno of the controller

    Mirrors kernel/cgroup/cgroup.c:css_create().
    """
    root = cgrp.root
    parent = cgroup_css(cgrp.parent, ss) if cgrp.parent is not None else None
    css = CgroupSubsysState(cgrp, ss, parent)
    err = ss.css_alloc(css)
    if err:
        return err
    if parent is not None:
        css_get(parent)
    cgroup_get(cgrp)
    css.serial_nr = root.css_serial_nr_next
    root.css_serial_nr_next += 1
    cgrp.rstat_css_list.append(css)
    css.id = ss.next_id
    ss.next_id += 1
    if parent is not None:
        list_add_tail(css, parent.children)
    return online_css(css)


def online_css(css: CgroupSubsysState) -> int:
    """Let the controller start on a css.

    Mirrors kernel/cgroup/cgroup.c:online_css().
    """
    ret: int = css.ss.css_online(css)
    if ret:
        return ret
    css.flags |= CSS_ONLINE
    css.cgroup.subsys[css.ss.name] = css
    css.cgroup.nr_dying_subsys.setdefault(css.ss.name, 0)
    css.online_cnt += 1
    above = css.parent
    if above is not None:
        above.online_cnt += 1
    while above is not None:
        above.nr_descendants += 1
        above = above.parent
    return 0


def offline_css(css: CgroupSubsysState) -> None:
    """Let the controller stop on a css; its group has none from now on.

    Mirrors kernel/cgroup/cgroup.c:offline_css().
    """
    if not css.flags & CSS_ONLINE:
        return
    css.ss.css_offline(css)
    css.flags &= ~CSS_ONLINE
    del css.cgroup.subsys[css.ss.name]


def kill_css(css: CgroupSubsysState) -> None:
    """Take a css offline and give back the reference that it was born with.

    Mirrors kernel/cgroup/cgroup.c:kill_css().
    """
    if css.flags & CSS_DYING:
        return
    css.flags |= CSS_DYING
    above = css.parent
    while above is not None:
        above.nr_descendants -= 1
        above = above.parent
    for part in css.cgroup.ancestors:
        part.nr_dying_subsys[css.ss.name] += 1
    if css.parent is not None:
        css.parent.online_cnt -= 1
    offline_css(css)
    css_put(css)


def cgroup_mkdir(parent: Cgroup, name: str) -> Cgroup | int:
    """Make a group; it gets the controllers that its parent's subtree_control names.

    :return: the group; -ENODEV below a removed one, -EEXIST, -EINVAL for a line feed in the name,
        -EAGAIN when ``cgroup.max.depth`` or ``cgroup.max.descendants`` is reached, or what the
        controller answers
    :raises UsageError: for a name that no directory can have

    Mirrors kernel/cgroup/cgroup.c:cgroup_mkdir().
    """
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(name) > 255:
        raise UsageError(f"{name!r} is no name of a directory")
    if "\n" in name:
        return -EINVAL
    if cgroup_is_dead(parent):
        return -ENODEV
    if any(c.name == name for c in _live_children(parent)):
        return -EEXIST
    for level, at in enumerate(reversed(parent.ancestors)):
        if at.nr_descendants >= at.max_descendants or level >= at.max_depth:
            return -EAGAIN
    root = parent.root
    cgrp = Cgroup(root, parent, name)
    cgrp.self.serial_nr = root.css_serial_nr_next
    root.css_serial_nr_next += 1
    list_add_tail(cgrp.self, parent.self.children)
    root.nr_cgrps += 1
    cgroup_get(parent)
    for above in parent.ancestors:
        above.nr_descendants += 1
    for ss in root.subsys:
        err = css_create(cgrp, ss) if ss.name in parent.subtree_control else 0
        if err:
            cgroup_rmdir(cgrp)
            return err
    return cgrp


def _live_children(cgrp: Cgroup) -> list[Cgroup]:
    return [css.cgroup for css in cgrp.self.children if css.flags & CSS_ONLINE]


def cgroup_rmdir(cgrp: Cgroup) -> int:
    """Remove a group without tasks and without children.

    What is charged to it stays charged: see ``nr_dying_descendants``.

    :return: 0, -EBUSY, or -ENODEV if it was removed before
    :raises UsageError: for the root

    Mirrors kernel/cgroup/cgroup.c:cgroup_destroy_locked().
    """
    if cgrp.parent is None:
        raise UsageError("the root of the hierarchy cannot be removed")
    if cgroup_is_dead(cgrp):
        return -ENODEV
    if cgroup_is_populated(cgrp) or _live_children(cgrp):
        return -EBUSY
    cgrp.self.flags &= ~CSS_ONLINE
    for css in list(cgrp.subsys.values()):
        kill_css(css)
    for above in cgrp.ancestors[:-1]:
        above.nr_descendants -= 1
        above.nr_dying_descendants += 1
    cgroup_put(cgrp)
    return 0


def cgroup_subtree_control_write(cgrp: Cgroup, buf: str) -> int:
    """Give children controllers ("+memory") or take them away ("-memory").

    :return: number of characters, or -EINVAL for a word that is no controller, -ENODEV, -ENOENT for a
        controller that the group does not have, -EBUSY if there are tasks in the group or a child
        passes the controller on

    Mirrors kernel/cgroup/cgroup.c:cgroup_subtree_control_write().
    """
    known = [ss.name for ss in cgrp.root.subsys]
    wanted: dict[str, bool] = {}
    for tok in strstrip(buf).split(" "):
        if tok:
            if tok[1:] not in known or tok[0] not in "+-":
                return -EINVAL
            wanted[tok[1:]] = tok[0] == "+"
    if cgroup_is_dead(cgrp):
        return -ENODEV
    enable, disable = [], []
    for name in known:
        if wanted.get(name) is True and name not in cgrp.subtree_control:
            if name not in cgroup_control(cgrp):
                return -ENOENT
            enable.append(name)
        elif wanted.get(name) is False and name in cgrp.subtree_control:
            if any(name in child.subtree_control for child in _live_children(cgrp)):
                return -EBUSY
            disable.append(name)
    if enable and cgrp.parent is not None and cgrp.procs:
        return -EBUSY
    cgrp.subtree_control = [
        name for name in known if name in enable + cgrp.subtree_control and name not in disable
    ]
    ret = _apply_control(cgrp, enable, disable)
    return ret or len(buf)


def _apply_control(cgrp: Cgroup, enable: list[str], disable: list[str]) -> int:
    """Make or kill the children's css."""
    for ss in cgrp.root.subsys:
        for child in _live_children(cgrp):
            if ss.name in enable:
                err = css_create(child, ss)
                if err:
                    return err
            elif ss.name in disable:
                kill_css(child.subsys[ss.name])
        if ss.name in enable + disable:
            for below in cgroup_walk(cgrp):
                for task in below.procs if below is not cgrp else ():
                    ss.attach(task)
    return 0


# ---- tasks ---------------------------------------------------------------------------------------


def task_cgroup(m: Machine, task: Any) -> Cgroup:
    """Return the group of a task; the root for one that was never attached.

    Mirrors include/linux/cgroup.h:task_cgroup().
    """
    if m.cgrp_dfl_root is None:
        raise UsageError("this machine has no control groups; call mem_cgroup_init(m)")
    cgrp: Cgroup | None = getattr(task, "cgroup", None)
    return m.cgrp_dfl_root.cgrp if cgrp is None else cgrp


def _add_task(cgrp: Cgroup, task: Any) -> None:
    """Put a task into a group; groups above learn that it is populated."""
    cgroup_get(cgrp)
    at, was = cgrp, cgroup_is_populated(cgrp)
    cgrp.procs.append(task)
    task.cgroup = cgrp
    while not was and at.parent is not None:
        at = at.parent
        was = cgroup_is_populated(at)
        at.nr_populated_children += 1


def _del_task(cgrp: Cgroup, task: Any) -> None:
    """Take a task out of a group."""
    cgrp.procs.remove(task)
    task.cgroup = None
    at = cgrp
    while not cgroup_is_populated(at) and at.parent is not None:
        at = at.parent
        at.nr_populated_children -= 1
    cgroup_put(cgrp)


def cgroup_attach_task(cgrp: Cgroup, task: Any) -> int:
    """Move a task into a group. What it has been charged for stays where it is.

    :return: 0, -ENODEV for a removed group, -EBUSY for one that passes controllers on

    Mirrors kernel/cgroup/cgroup.c:cgroup_attach_task().
    """
    if cgroup_is_dead(cgrp):
        return -ENODEV
    if cgrp.parent is not None and cgrp.subtree_control:
        return -EBUSY
    old: Cgroup | None = task.cgroup
    if old is cgrp:
        return 0
    if old is not None:
        _del_task(old, task)
    _add_task(cgrp, task)
    mm = getattr(task, "mm", None)
    if mm is not None and mm.owner is None:
        mm.owner = task
    for ss in cgrp.root.subsys:
        ss.attach(task)
    return 0


def cgroup_fork(task: Any, child: Any) -> None:
    """Put a new task into its parent's group.

    Mirrors kernel/cgroup/cgroup.c:cgroup_post_fork().
    """
    if task.cgroup is None:
        return
    _add_task(task.cgroup, child)
    for ss in task.cgroup.root.subsys:
        ss.fork(child)


def cgroup_exit(task: Any) -> None:
    """Take a task that ends out of its group.

    Mirrors kernel/cgroup/cgroup.c:cgroup_exit().
    """
    cgrp: Cgroup | None = task.cgroup
    if cgrp is None:
        return
    for ss in cgrp.root.subsys:
        ss.exit(task)
    _del_task(cgrp, task)


# ---- files and start -----------------------------------------------------------------------------


def cgroup_stat_show(cgrp: Cgroup) -> str:
    """Return the text of ``cgroup.stat``.

    Simplified: the lines of the controllers that the machine has.

    Mirrors kernel/cgroup/cgroup.c:cgroup_stat_show().
    """
    lines = [f"nr_descendants {cgrp.nr_descendants}"]
    for ss in cgrp.root.subsys:
        css = cgroup_css(cgrp, ss)
        lines.append(f"nr_subsys_{ss.name} {css.nr_descendants + 1 if css else 0}")
    lines.append(f"nr_dying_descendants {cgrp.nr_dying_descendants}")
    for ss in cgrp.root.subsys:
        lines.append(f"nr_dying_subsys_{ss.name} {cgrp.nr_dying_subsys.get(ss.name, 0)}")
    return "\n".join(lines) + "\n"


def cgroup_init(m: Machine, subsys: list[CgroupSubsys], options: str = "") -> CgroupRoot:
    """Make the unified hierarchy with its root group, whose children get every controller.

    :param options: mount options, separated by commas
    :raises UsageError: for an option that the hierarchy does not have

    Simplified: in the kernel, someone (systemd) writes the root's ``cgroup.subtree_control`` first.

    Mirrors kernel/cgroup/cgroup.c:cgroup_init().
    """
    root = CgroupRoot(m)
    by_name = {name: flag for flag, name in ROOT_OPTIONS}
    for option in options.split(",") if options else ():
        if option not in by_name:
            raise UsageError(f"{option!r} is no mount option; there are {', '.join(by_name)}")
        root.flags |= by_name[option]
    root.subsys = subsys
    root.cgrp = Cgroup(root, None, "")
    root.cgrp.self.flags |= CSS_NO_REF
    root.nr_cgrps = 1
    m.cgrp_dfl_root = root
    for ss in subsys:
        css_create(root.cgrp, ss)
        root.cgrp.subsys[ss.name].flags |= CSS_NO_REF
    root.cgrp.subtree_control = [ss.name for ss in subsys]
    return root


def validate_cgroup(root: Cgroup) -> None:
    """Check counts of the tree against the tree.

    :raises KernelBug: naming what does not add up
    """
    for cgrp in cgroup_walk(root):
        below = [c for c in cgroup_walk(cgrp) if c is not cgrp]
        if cgrp.nr_descendants != len(below):
            raise KernelBug(f"{cgrp!r} nr_descendants {cgrp.nr_descendants}, not {len(below)}")
        populated = sum(cgroup_is_populated(c) for c in _live_children(cgrp))
        if cgrp.nr_populated_children != populated:
            raise KernelBug(f"{cgrp!r} has {populated} populated children")
        if any(task.cgroup is not cgrp for task in cgrp.procs):
            raise KernelBug(f"a task in {cgrp!r} says that it is elsewhere")
        if list_empty(cgrp.self.children) and cgrp.nr_dying_descendants:
            raise KernelBug(f"{cgrp!r} has no children, but dying descendants")
