"""What a page shows, as JSON records; the report and the explorer draw the same records."""
