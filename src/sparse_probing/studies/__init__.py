"""One folder per study: what it measures, its tables, charts, view and page. A study imports only the studies that it lists."""
