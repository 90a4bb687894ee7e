// The main paths of LM Studio's official JavaScript client, over the demo models. Prints what it sees, as JSON.

import { Chat, LMStudioClient, tool } from "@lmstudio/sdk";
import { z } from "zod";

const QUESTION = "What is the capital of France?";
const COLD = { temperature: 0 };
const [baseUrl, picture] = process.argv.slice(2);
const client = new LMStudioClient({ baseUrl, verboseErrorMessages: false });
const seen = {};

async function failing(work) {
  try {
    await work();
  } catch (error) {
    return error.title;
  }
  return "it did not fail";
}

seen.downloaded = (await client.system.listDownloadedModels()).map((one) => [one.modelKey, one.type]);
seen.version = (await client.system.getLMStudioVersion()).version;
const progress = [];
const model = await client.llm.model("demo-chat", { verbose: false, onProgress: (value) => progress.push(value) });
seen.progress = [progress[0], progress.at(-1)];
seen.info = [(await model.getModelInfo()).modelKey, (await client.llm.model()).identifier];
seen.context = await model.getContextLength();

const result = await model.respond(QUESTION, COLD);
seen.answer = [result.nonReasoningContent, result.stats.stopReason, result.stats.predictedTokensCount];
seen.thinks = result.reasoningContent.length > 0;
const endless = { type: "gbnf", gbnfGrammar: 'root ::= "a" root' }; // until the context is full
const long = model.complete("One, two,", { structured: endless });
for await (const _ of long) {
  await long.cancel();
}
seen.cancelled = (await long.result()).stats.stopReason;
const limited = await model.respond(QUESTION, { ...COLD, maxTokens: 3 });
seen.limited = limited.stats.stopReason;
const schema = z.object({ city: z.string().max(40) });
seen.structured = Object.keys((await model.respond(QUESTION, { ...COLD, structured: schema })).parsed);
seen.template = await model.applyPromptTemplate(Chat.from(QUESTION));
seen.tokens = (await model.tokenize(QUESTION)).length === (await model.countTokens(QUESTION));

const calls = [];
const getWeather = tool({
  name: "get_weather",
  description: "Get the weather of a city",
  parameters: { city: z.string() },
  implementation: ({ city }) => {
    calls.push(city);
    return `sunny in ${city}`;
  },
});
const act = await model.act("What is the weather in Paris?", [getWeather], { ...COLD, maxPredictionRounds: 3 });
seen.act = [act.rounds, calls];

const vision = await client.llm.model("demo-vision", { verbose: false });
const image = await client.files.prepareImageBase64("red.png", picture);
seen.picture = (await vision.respond([{ role: "user", content: "What color is this?", images: [image] }], COLD))
  .nonReasoningContent;
const embedding = await client.embedding.model("demo-embed", { verbose: false });
seen.embedding = (await embedding.embed(["a", "b", "c"])).map((one) => one.embedding.length);

await vision.unload();
await embedding.unload();
const config = { contextLength: 256 };
const other = await client.llm.load("demo-chat", { verbose: false, identifier: "mine", config });
seen.loaded = (await client.llm.listLoaded()).map((one) => one.identifier);
seen.other = [other.identifier, await other.getContextLength()];
await other.unload();
seen.gone = await failing(() => other.countTokens(QUESTION));
seen.none = await failing(() => client.llm.model("none", { verbose: false }));

const logs = [];
const unlisten = client.diagnostics.unstable_streamLogs((event) => logs.push(event));
while (!logs.some((event) => event.data.type === "llm.prediction.input")) {
  await model.respond(QUESTION, { ...COLD, maxTokens: 1 });
}
unlisten();
seen.log = logs.find((event) => event.data.type === "llm.prediction.input").data.input.includes(QUESTION);

console.log(JSON.stringify(seen));
process.exit(0);
