"""The multiplexer core: frames, stream states, credit, numbering. No socket, clock, await or random source in here.

``SPEC.md`` beside this file is the wire specification; the code implements exactly that.
"""
