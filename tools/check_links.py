#!/usr/bin/env python3
"""Checks that every relative link of the Markdown files, and every path that they name in backquotes, exists."""
import pathlib
import re
import subprocess
import sys
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = "kernels|engine|model|data|tools|tests|benchmarks|docs|cmake"


def anchors(page):
    """Anchors of a page's headings, as GitHub makes them."""
    found = set()
    for line in page.read_text().splitlines():
        if heading := re.match(r"#+ (.*)", line):
            text = unicodedata.normalize("NFC", heading[1].replace("`", "")).lower()
            found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def problems(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"link to {target}, which does not exist"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"link to {target}, a heading that does not exist"
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text):
        if not (ROOT / path).exists():
            yield f"`{path}`, which does not exist"


listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
count = 0
for name in listed.stdout.split():
    for problem in problems(ROOT / name):
        print(f"{name}: {problem}", file=sys.stderr)
        count += 1
sys.exit(1 if count else 0)
