"""The control server. A request's way:

    TLS or Unix socket ─▶ admission ─▶ connection (HTTP) ─▶ routes ─▶ api ─▶ hosts, addressbook, joining... ─▶ store
    store ─▶ mirror ─▶ feed ─▶ watching ─▶ connection ─▶ every watcher
    store ─▶ mirror ─▶ servers (which others there are) ─▶ spread (sans-IO) ─▶ watching: who is asked to go elsewhere

``limits`` (sans-IO) says who may still connect and ask; ``routes`` (sans-IO) is which request means what, and who may
make it; ``openapi`` (sans-IO) tells the same to programs; ``serve`` builds all of it and knows the order of starting
and stopping.
"""
