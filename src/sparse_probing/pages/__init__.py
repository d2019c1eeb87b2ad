"""Self-contained HTML pages: template engine, styles, scripts, colours, visible text. Knows nothing of what is shown."""
