"""A program as somebody else would write it: it knows OpenAI's API, an address, and nothing of us.

It shows numbers and asks the model to name the next one, a few times over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from urllib.request import Request, urlopen

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUESTIONS = 3


def count(base_url: str, task: Mapping[str, object]) -> float:
    """The share of questions that were answered rightly."""
    rng = Random(str(task["seed"]))
    messages = [{"role": "system", "content": "Name the number that comes next, as a word."}]
    right = 0
    for _ in range(QUESTIONS):
        start = rng.randrange(7)
        messages.append({"role": "user", "content": " ".join(WORDS[start : start + 3])})
        reply = ask(base_url, messages)
        messages.append({"role": "assistant", "content": reply})
        right += reply == WORDS[start + 3]
    return right / QUESTIONS


def ask(base_url: str, messages: list[dict[str, str]]) -> str:
    """One chat completion, without a client library."""
    body = json.dumps({"model": "policy", "messages": messages}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    request = Request(f"{base_url}/chat/completions", body, headers)
    with urlopen(request, timeout=600) as answer:
        found = json.load(answer)
    return str(found["choices"][0]["message"]["content"])
