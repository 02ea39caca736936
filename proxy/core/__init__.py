"""The compiled core: which modules it consists of (``modules.py``), and whether they run compiled (``finder.py``).

Each of these modules is Python that runs as it is. Beside it may stand declarations of its types (``.pxd``), with which
Cython makes a C extension of the same source; docs/building.md says how and when.
"""
