"""The configuration of a host: what the YAML holds (``schema``, ``interfaces``), what does not go together (``check``,
``interfacecheck``), and what differs between two of them (``difference``).
"""
