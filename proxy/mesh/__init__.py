"""Being a member of a mesh with a control plane. A host gets its certificate by a token, once (``join``), and keeps it
in force (``renewer``, by ``schedule``); the files are ``statedir``'s. ``follower`` watches the map of the mesh,
``mapfile`` remembers it, ``effective`` says what it means for this host, ``registration`` tells the control plane what
is offered here. ``membership`` runs all of them.
"""
