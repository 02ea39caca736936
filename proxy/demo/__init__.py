"""``hostlane demo``: a control server and two hosts on one machine, a real Redis, and one table of what the mesh costs
and saves.

The hosts themselves (``lab.py``: network namespaces, a cable, macvlan, and the way Docker would have gone) also carry
the system tests and the benchmarks.
"""
