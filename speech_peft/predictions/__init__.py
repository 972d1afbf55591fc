"""What a system said of each recording, as the lines of a `preds.jsonl`."""
