// Every method of ollama-js that asks models, against the door whose URL is given; a failure ends the program.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const model = "demo-chat";
const options = { temperature: 0, seed: 1 };
const messages = [{ role: "user", content: "What is the capital of France?" }];
const answer = "The capital of France is Paris.";

async function joined(stream, text) {
  let all = "";
  let done = false;
  for await (const part of stream) {
    all += text(part);
    done = part.done;
  }
  assert.equal(done, true);
  return all;
}

const whole = await client.chat({ model, messages, options });
assert.equal(whole.message.content, answer);
assert.equal(whole.done_reason, "stop");
assert.ok(whole.message.thinking.includes("France"));
assert.ok(whole.total_duration > 0 && whole.eval_count > 0);
const stream = await client.chat({ model, messages, options, stream: true, think: false });
assert.equal(await joined(stream, (part) => part.message.content), answer);

const tool = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const weather = [{ role: "user", content: "What is the weather in Paris?" }];
const called = await client.chat({ model, messages: weather, tools: [tool], options });
assert.deepEqual(called.message.tool_calls[0].function.arguments, { city: "Paris" });

const prompt = await client.generate({ model, prompt: messages[0].content, options });
assert.equal(prompt.response, answer);
assert.ok(prompt.context.length > 0);
assert.ok(await joined(await client.generate({ model, prompt: "Hi", options, stream: true }), (part) => part.response));

assert.equal((await client.embed({ model: "demo-embed", input: ["one", "two"] })).embeddings.length, 2);
assert.equal((await client.embeddings({ model: "demo-embed", prompt: "one" })).embedding.length, 192);
assert.ok((await client.list()).models.some((one) => one.name === "demo-chat:latest"));
assert.ok((await client.ps()).models.every((one) => one.expires_at && one.size > 0));
assert.ok((await client.show({ model })).capabilities.includes("tools"));
assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);

await assert.rejects(client.chat({ model: "nope", messages }), { message: "model 'nope' not found", status_code: 404 });
const endless = await client.generate({ model, prompt: "Hello", stream: true, format: "json", options: { seed: 1 } });
const aborted = async () => {
  for await (const _ of endless) endless.abort();
};
await assert.rejects(aborted(), { name: "AbortError" });
console.log("all is well");
