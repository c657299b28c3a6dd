"""Questions about a handbook: the answers are cached under the tags of the documents from which they were made, so a
document that changes invalidates these answers and no others.

Needs a server with an upstream, and `pip install openai httpx`.
"""

import os
from urllib.parse import quote

import httpx
import openai

URL = os.environ.get("LIKEWISE_URL", "http://127.0.0.1:8420")
KEY = os.environ.get("LIKEWISE_API_KEY", "unused")
MODEL = os.environ.get("CHAT_MODEL", "gpt-5-mini")
HANDBOOK = "/v1/collections/handbook"
llm = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)
http = httpx.Client(base_url=URL, headers={"authorization": f"Bearer {KEY}"}, timeout=120)


def write(document, text):
    """Stores a document, then hides what was made from its former text."""
    stored = http.post(f"{HANDBOOK}/documents", json={"documents": [{"id": document, "text": text}]})
    stored.raise_for_status()
    http.post("/v1/invalidate", json={"tags": [f"handbook:{document}"]}).raise_for_status()


def answer(question):
    """The answer from the cache, or a new one. Of several clients that ask at once, one makes it."""
    path = f"/v1/cache/handbook-answers/{quote(question, safe='')}"
    found = http.get(path, headers={"x-cache-lease-seconds": "60", "x-cache-wait-ms": "30000"})
    if found.status_code == 200:
        return f"cached: {found.text}"
    query = {"query": question, "k": 1, "include": ["text"]}
    documents = http.post(f"{HANDBOOK}/search", json=query).raise_for_status().json()["results"]
    context = "\n".join(document["text"] for document in documents)
    messages = [{"role": "user", "content": f"Handbook: {context}\nQuestion: {question}"}]
    text = llm.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content
    headers = {"x-cache-tags": ",".join(f"handbook:{document['id']}" for document in documents)}
    if lease := found.headers.get("x-cache-lease"):
        headers["x-cache-lease"] = lease
    # Refused with 409 if one of the documents was changed since the lease was given.
    http.put(path, content=text.encode(), headers=headers)
    return f"new: {text}"


http.put(HANDBOOK, json={}).raise_for_status()
write("holidays", "Employees have 22 days of holidays a year.")
write("travel", "Travel by train is paid in second class.")
for _ in range(2):
    print(answer("How many days of holidays do employees have?"))
    print(answer("Which class of train is paid?"))

write("holidays", "Employees have 25 days of holidays a year.")
print("the document on holidays has changed")
print(answer("How many days of holidays do employees have?"))
print(answer("Which class of train is paid?"))
