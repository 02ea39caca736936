"""The door: the one small process with a privilege. It opens listeners inside containers' network namespaces, and
sockets towards services inside them, as the containers' labels ask for, and hands them to the proxy, which has none.

``labels`` and ``desired`` (sans-IO) say what is to be open where; ``engine`` tells which containers there are;
``namespaces`` makes sockets inside them; ``messages`` and ``channel`` are what door and proxy say to each other, with
descriptors; ``proxies`` are those at the other end, ``rooms`` what is open; ``door`` puts it together. The proxy's
side is `proxy.outbound.inside` and `proxy.agent.doorkeeper`.
"""
