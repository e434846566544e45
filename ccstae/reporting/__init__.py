"""What people read: tables, figures, report, preview."""
