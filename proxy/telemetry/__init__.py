"""What a proxy tells about itself: the admin socket that ``hostlane status`` asks. (Logs: ``control.system.logs``.)"""
