"""mmcore: the Linux 6.12 memory manager as a small Python engine.

Every module models one file of the kernel under the same name: what ``mm/page_alloc.c`` does stands
in ``mmcore/mm/page_alloc.py``. Start here::

    from mmcore import Machine
    machine = Machine.boot("1G")
"""

from mmcore.machine import Machine

__all__ = ["Machine", "__version__"]
__version__ = "0.1.0"
