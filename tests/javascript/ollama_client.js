// Every method of ollama-js against the door whose URL is given; a failure ends the program.
// The registry of the door has `mario`; `webSearch` and `webFetch` ask Ollama's own servers, so they are left out.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const model = "demo-chat";
const options = { temperature: 0, seed: 1 };
const messages = [{ role: "user", content: "What is the capital of France?" }];
const red = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC",
  "base64",
);
const answer = "The capital of France is Paris.";

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

async function joined(stream, text) {
  const parts = await all(stream);
  assert.deepEqual(parts.map((part) => part.done), [...Array(parts.length - 1).fill(false), true]);
  return parts.map(text).join("");
}

async function refused(promise, status, message) {
  await assert.rejects(promise, { name: "ResponseError", status_code: status, message });
}

const names = async () => (await client.list()).models.map((one) => one.name);

async function chat() {
  const whole = await client.chat({ model, messages, options });
  assert.equal(whole.message.content, answer);
  assert.equal(whole.done_reason, "stop");
  assert.equal(whole.model, model);
  assert.ok(whole.message.thinking.includes("France"));
  assert.ok(whole.total_duration > 0 && whole.eval_count > 0);
  const stream = await client.chat({ model, messages, options, stream: true, think: false });
  assert.equal(await joined(stream, (part) => part.message.content), answer);
  await refused(client.chat({ model: "nope", messages }), 404, "model 'nope' not found");
  await refused(client.chat({ model: "nope", messages, stream: true }), 404, "model 'nope' not found");
}

async function tools() {
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const described = { name: "get_weather", description: "Get the weather of a city", parameters };
  const tool = { type: "function", function: described };
  const weather = [{ role: "user", content: "What is the weather in Paris?" }];
  const called = await client.chat({ model, messages: weather, tools: [tool], options });
  assert.deepEqual(called.message.tool_calls[0].function.arguments, { city: "Paris" });
  const parts = await all(await client.chat({ model, messages: weather, tools: [tool], options, stream: true }));
  const calls = parts.flatMap((part) => part.message.tool_calls ?? []);
  assert.deepEqual(calls.map((call) => call.function.name), ["get_weather"]);
  const result = { role: "tool", content: '{"temperature": 21, "condition": "sunny"}', tool_name: "get_weather" };
  const told = await client.chat({ model, messages: [...weather, called.message, result], tools: [tool], options });
  assert.match(told.message.content, /21/);
}

async function structured() {
  const properties = { name: { type: "string", maxLength: 20 }, age: { type: "integer", maximum: 120 } };
  const format = { type: "object", properties, required: ["name", "age"], additionalProperties: false };
  const asked = [{ role: "user", content: "Give me a JSON object with name and age." }];
  const limited = { ...options, num_predict: 200 };
  const said = await client.chat({ model, messages: asked, format, think: false, options: limited });
  assert.deepEqual(Object.keys(JSON.parse(said.message.content)).sort(), ["age", "name"]);
}

async function pictures() {
  const picture = { role: "user", content: "Describe this image in two sentences", images: [new Uint8Array(red)] };
  const described = await client.chat({ model: "demo-vision", messages: [picture], think: false, options });
  assert.match(described.message.content, /red/i);
}

async function generate() {
  const whole = await client.generate({ model, prompt: messages[0].content, options });
  assert.equal(whole.response, answer);
  assert.ok(whole.context.length > 0);
  const stream = await client.generate({ model, prompt: "Hi", options, stream: true });
  assert.ok(await joined(stream, (part) => part.response));
  const format = { type: "array", items: { type: "boolean" }, minItems: 500 }; // too long to be over before the abort
  const long = { model, prompt: "Hello", raw: true, format, options: { num_predict: 6000 } };
  const endless = await client.generate({ ...long, stream: true });
  const aborted = async () => {
    for await (const _ of endless) client.abort();
  };
  await assert.rejects(aborted(), { name: "AbortError" });
}

async function embeddings() {
  const many = await client.embed({ model: "demo-embed", input: ["one", "two"] });
  assert.equal(many.embeddings.length, 2);
  assert.equal((await client.embeddings({ model: "demo-embed", prompt: "one" })).embedding.length, 192);
  const refusal = 'model "nope" not found, try pulling it first';
  await refused(client.embed({ model: "nope", input: "one" }), 404, refusal);
}

async function facts() {
  const ours = (await client.list()).models.find((one) => one.name === "demo-chat:latest");
  assert.match(ours.digest, /^[0-9a-f]{64}$/);
  assert.ok(Date.parse(ours.modified_at) > 0);
  const running = (await client.ps()).models;
  assert.ok(running.some((one) => one.name === "demo-chat:latest"));
  assert.ok(running.every((one) => Date.parse(one.expires_at) && one.size > 0));
  const shown = await client.show({ model });
  assert.ok(shown.capabilities.includes("tools"));
  assert.equal(shown.model_info["qwen3.context_length"], 2048);
  await refused(client.show({ model: "nope" }), 404, "model 'nope:latest' not found");
  const scores = { model, state: "", questions: { a: { type: "noul", instructions: "" } } };
  await assert.rejects(client.systemone(scores), { status_code: 404 }, "newer than the API that is spoken here");
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
}

async function management() {
  assert.deepEqual(await client.pull({ model: "mario" }), { status: "success" });
  const again = await all(await client.pull({ model: "mario", stream: true }));
  assert.equal(again[0].status, "pulling manifest");
  assert.equal(again.at(-1).status, "success");
  await refused(client.pull({ model: "luigi" }), 500, "pull model manifest: file does not exist");
  assert.deepEqual(await client.copy({ source: "mario", destination: "peach" }), { status: "success" });
  const made = { model: "yoshi", from: "demo-chat", system: "Be brief.", parameters: { temperature: 0 } };
  assert.deepEqual(await client.create(made), { status: "success" });
  assert.equal((await all(await client.create({ ...made, stream: true }))).at(-1).status, "success");
  assert.equal((await client.show({ model: "yoshi" })).system, "Be brief.");
  assert.equal((await client.chat({ model: "yoshi", messages, options })).message.content, answer);
  for (const name of ["mario:latest", "peach:latest", "yoshi:latest"]) assert.ok((await names()).includes(name), name);
  for (const name of ["mario", "peach", "yoshi"]) {
    assert.deepEqual(await client.delete({ model: name }), { status: "success" });
  }
  assert.ok(!(await names()).includes("mario:latest"));
  await refused(client.delete({ model: "mario" }), 404, "model 'mario' not found");
  await refused(client.copy({ source: "mario", destination: "a" }), 404, 'model "mario" not found');
  await refused(client.push({ model }), 400, "pushing models is not supported by this server");
}

for (const part of [chat, tools, structured, pictures, generate, embeddings, facts, management]) await part();
console.log("all is well");
