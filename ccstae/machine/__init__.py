"""What work runs on: devices and progress."""
