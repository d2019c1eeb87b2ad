"""Text and labels in, labelled token rows out. Needs a tokenizer, no torch."""
