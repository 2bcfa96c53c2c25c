"""The kernel lab: boots the reference kernel under QEMU and records what it prints.

    python -m kernel_lab list                                  what there is to run
    python -m kernel_lab fetch                                 the kernel, by apt, not installed
    python -m kernel_lab run physical --topology small         one capture

A run is an *experiment* (a shell script in ``experiments/``, with the C programs of ``guest/`` that it
asks for) on a *topology* (how much memory and how many nodes and CPUs the machine has). Its result is
a capture: a text file that says how it was made, and that `mmcore.proc.capture` reads.
"""
