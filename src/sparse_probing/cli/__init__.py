"""The `sprobe` command, one file per subcommand."""
