"""``hostlane join``: from a token to a host of the mesh. ``configuration`` (sans-IO) says what the host's file holds,
``enrolment`` writes it and joins, ``service`` has systemd run the proxy, by the files in ``units``.
"""
