"""From a detector's file to calibrated counts: import and calibration of scans of one's own."""
