"""Network interfaces: macvlan children and SR-IOV virtual functions, read and changed through netlink and sysfs.

``observe`` (what there is) → ``plan`` (sans-IO: what would change) → ``apply`` (each step with its undo, then waiting
until it is ready, and again when something is gone later); ``leases`` are addresses from the control plane. What asks
the kernel blocks; the proxy calls it in a worker thread.
"""
