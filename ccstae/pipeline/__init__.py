"""What the workflow runs, on what it depends, and what made it."""
