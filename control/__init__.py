"""What talks about proxies without being one: the messages they answer with, and the command line.

Nothing here imports ``proxy``; of this package, ``proxy`` imports `control.messages` only.
"""
