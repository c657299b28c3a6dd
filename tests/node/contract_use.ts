// What an application writes with the generated types. `tests/node/contract.test.cjs` compiles it.

import type { components, operations } from "./contract";

type Schemas = components["schemas"];
type Body<Operation extends keyof operations> = operations[Operation] extends {
  responses: { 200: { content: { "application/json": infer Json } } };
}
  ? Json
  : never;

export const inputs: Schemas["EmbeddingsRequest"]["input"][] = ["a", ["a", "b"], [1, 2], [[1], [2]]];
export const document: Schemas["DocumentInput"] = { id: "1", text: "a", metadata: { brand: "acme", price: 20 }, tags: ["t"] };
export const search: Schemas["SearchRequest"] = { query: "a", filter: { price: { $lt: 20 } }, include: ["text", "vector"] };
export const invalidation: Schemas["InvalidateRequest"] = { tags: ["t"], mode: "soft" };

export function vectors(body: Body<"createEmbeddings">): (number[] | string)[] {
  return body.data.map((item) => item.embedding);
}

export function ids(body: Body<"searchDocuments">): string[] {
  return body.results.flatMap((result) => result).map((result) => result.id);
}

export function isRetried(body: Schemas["ErrorBody"]): boolean {
  const code: Schemas["ErrorCode"] = "overloaded";
  // @ts-expect-error A code that the server does not have.
  const unknown: Schemas["ErrorCode"] = "no_such_code";
  return body.error.code === code && body.error.code !== unknown;
}
