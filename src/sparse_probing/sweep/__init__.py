"""Features x layers x sizes x methods: planned, run in a pool, chosen before test, scored on test once."""
