"""What proxies, control servers and commands say to each other, and who says it: the messages of the admin socket
(``messages``, ``admin``) and of the mesh (``mesh``, with its ``client`` and ``refusals``), and what proves an identity
(``identity``, ``certificates``, ``tokens``).
"""
