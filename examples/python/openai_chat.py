"""An answer of an LLM, cached: a miss, a hit, a stream of the same answer, and a miss once its tag is invalidated.

Needs a server with an upstream, and `pip install openai httpx`.
"""

import os

import httpx
import openai

URL = os.environ.get("LIKEWISE_URL", "http://127.0.0.1:8420")
KEY = os.environ.get("LIKEWISE_API_KEY", "unused")
MODEL = os.environ.get("CHAT_MODEL", "gpt-5-mini")
QUESTION = [{"role": "user", "content": "Is the blue shirt still on sale? Answer in one sentence."}]
# A lifetime in seconds, and what the answer depends on.
CACHE = {"cache": {"ttl": 600, "tags": ["product:42"]}}

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)


def ask():
    """Asks, and prints where the answer comes from."""
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, extra_body=CACHE)
    print(raw.headers["cache-status"])
    return raw.parse().choices[0].message.content


def ask_as_stream():
    """The same question, answered word by word."""
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, extra_body=CACHE, stream=True
    )
    print(raw.headers["cache-status"])
    return "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)


first = ask()
print("the same answer again:", ask() == first)
print("the same answer as a stream:", ask_as_stream() == first)

done = httpx.post(
    f"{URL}/v1/invalidate", json={"tags": ["product:42"]}, headers={"authorization": f"Bearer {KEY}"}
)
done.raise_for_status()
print("product:42 is invalidated")
ask()
