"""The pages that show scores, and their templates."""
