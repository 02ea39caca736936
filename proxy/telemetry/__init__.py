"""What a proxy tells about itself: logs on stderr, and the admin socket that ``hostlane status`` asks."""
