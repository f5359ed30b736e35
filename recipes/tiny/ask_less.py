"""Write a synthetic corpus's manifest again with another share of questions; the clips stay where they are.

python recipes/tiny/ask_less.py CORPUS SHARE OUT.jsonl

A row asks under a share of 25 % only if it asks under one of 50 %, and then the same question, so that the other half of the former questions become
transcripts.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from audiograft.data.manifest import read_rows, write_manifest
from audiograft.data.synthetic.generate import drawn_question
from audiograft.data.synthetic.grammar import Sentence

ROW_ID = re.compile(r"(train|dev|test)-(training|held-out)-(\d+)(?:-(augmented))?-(\d+)")
ASKED = ("prompt", "response", "question")


def main(corpus: Path, share: float, out: Path) -> None:
    rows = []
    for _, row in read_rows(corpus / "manifest.jsonl"):
        *key, number = [part for part in ROW_ID.fullmatch(row["id"]).groups() if part]
        sentence = Sentence(row["text"], row["pattern"], tuple((slot, value) for slot, value in row["slots"]))
        plain = {name: value for name, value in row.items() if name not in ASKED}
        rows.append(plain | drawn_question(sentence, "/".join([*key, str(int(number))]), share))
    write_manifest(out, rows)
    print(json.dumps({"rows": len(rows), "questions": sum("question" in row for row in rows)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
