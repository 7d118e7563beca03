"""Making a concept graph file: drafts by CLIP or a language model, vocabularies, candidates from a pool."""
