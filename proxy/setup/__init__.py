"""``hostlane join``: from a token to a host of the mesh. ``configuration`` (sans-IO) says what the host's file holds,
``enrolment`` writes it and joins, ``daemon`` is what systemd then runs, by the files in ``units``.
"""
