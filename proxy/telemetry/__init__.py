"""What a proxy tells about itself: the views that ``hostlane status`` and its like show (``view``, ``meshview``), the
admin socket that they are asked for at (``admin``). Logs, and what systemd is told: ``control.base.system``.
"""
