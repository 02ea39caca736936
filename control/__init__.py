"""The command line, the control server, and what a proxy shares with both. From the top: ``cli``; ``server``; ``ca``;
``store``; ``api``, what proxies, servers and commands say to each other; ``base``, what all stand on.

Nothing here imports ``proxy``, which imports of this package ``api`` and ``base`` only.
"""
