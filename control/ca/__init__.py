"""The mesh's certificate authority: what a root signs (``root``), which roots are in force and trusted (``castate``,
``trust``, ``rotation``), their keys on disk (``keyfiles``), and how a host gets its certificate: by a token
(``joining``), and with that certificate from then on (``issuing``).
"""
