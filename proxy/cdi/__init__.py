"""No race at the start: a hook that container runtimes call before an application's first instruction.

``hook.c`` is the program that they call, ``messages`` (sans-IO) what it and the door say to each other (the door's end
is `proxy.door.hooks`); ``spec`` (sans-IO) is the CDI file that tells engines of it, ``program`` and ``build`` find or
compile it, ``naming`` asks an engine which containers name the device, ``files`` puts all of it on the host and takes
it away.
"""
