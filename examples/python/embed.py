"""Embeds texts with the official OpenAI client. Run it twice: the second time nothing is computed.

Needs `pip install openai`.
"""

import os

import openai

URL = os.environ.get("LIKEWISE_URL", "http://127.0.0.1:8420")
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("LIKEWISE_API_KEY", "unused"))
answer = client.embeddings.with_raw_response.create(
    model="all-MiniLM-L6-v2",
    input=["una camiseta azul", "blue t-shirt", "cafetera italiana"],
)
print(answer.headers["cache-status"])
for item in answer.parse().data:
    print(item.index, item.embedding[:4])
