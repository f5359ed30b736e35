"""Running a grafted model: chunking, batched decoding, output formats."""
