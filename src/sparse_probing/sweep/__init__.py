"""Features x layers x sizes x methods: planned, run in a pool, chosen on validation, scored once on test."""
