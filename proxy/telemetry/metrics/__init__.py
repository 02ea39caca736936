"""Metrics: which there are (``catalog``), where their numbers come from (``collect`` and ``process``; ``handedon``: of
other processes of this host), and the answer to a scrape (``scrape``). docs/metrics.md is for those who read them.
"""
