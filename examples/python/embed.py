"""Embeds texts with the official OpenAI client. Run it twice: the second time nothing is computed."""

import openai

client = openai.OpenAI(base_url="http://127.0.0.1:8420/v1", api_key="unused")
answer = client.embeddings.with_raw_response.create(
    model="all-MiniLM-L6-v2",
    input=["una camiseta azul", "blue t-shirt", "cafetera italiana"],
)
print(answer.headers["cache-status"])
for item in answer.parse().data:
    print(item.index, item.embedding[:4])
