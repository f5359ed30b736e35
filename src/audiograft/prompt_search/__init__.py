"""The search for a better prompt of a closed question, by a language model that sees how those before it scored."""
