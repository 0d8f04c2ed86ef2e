// Talks to the router with the official Node library; prints what it got as one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-test", maxRetries: 0 });
const messages = [{ role: "user", content: "Where to? 🚂" }];
const got = {};

const whole = await client.chat.completions.create({ model: "m", messages });
got.whole = whole.choices[0].message.content;

got.streamed = [];
const stream = await client.chat.completions.create({
  model: "m", messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  for (const choice of chunk.choices) got.streamed.push(choice.delta.content);
  if (chunk.usage) got.usage = chunk.usage.total_tokens;
}

got.completion = (await client.completions.create({ model: "m", prompt: "x" })).choices[0].text;

const vectors = await client.embeddings.create({
  model: "m", input: "x", encoding_format: "float",
});
got.embedding = vectors.data[0].embedding;

got.models = [];
for await (const model of client.models.list()) got.models.push(model.id);

got.response = (await client.responses.create({ model: "m", input: "x" })).output_text;

const sound = new File([new Uint8Array(5000)], "speech.wav");
got.transcription = (await client.audio.transcriptions.create({ model: "m", file: sound })).text;

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code };
  }
}
got.unknown = await failure(client.chat.completions.create({ model: "unknown", messages }));
got.limited = await failure(
  client.chat.completions.create({ model: "m", messages, user: "limited" }),
);

const left = await client.chat.completions.create({ model: "m", messages, stream: true });
for await (const chunk of left) {
  got.first = chunk.choices[0].delta.content;
  break;
}

const many = Array.from({ length: 20 }, () =>
  client.chat.completions.create({ model: "m", messages }),
);
got.many = new Set((await Promise.all(many)).map((made) => made.choices[0].message.content)).size;

console.log(JSON.stringify(got));
