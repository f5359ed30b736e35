"""The review of a run: listen, compare, judge, and count what the judgements say."""
