"""Proof of `hostlane net` on a kernel with VLAN interfaces and on an SR-IOV device, and of the units under systemd, all
in emulated machines.

``python -m tests.vm`` (root, on Debian) builds the machine from Debian's packages and the project (image.py), boots it
in QEMU without KVM (emulator.py), and prints what the checks inside say (inside.py, which runs there alone).
"""
