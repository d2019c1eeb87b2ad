"""Tables, manifests and files of a run."""
