"""Windows of recordings to what is heard in them: batches, languages, texts, and what was unheard."""
