// Steps training graphs in onnxruntime-web: reads {graph: {input: [dtype, dims, data in base64]}} from standard input,
// prints {graph: {loss, grad_norm}}. The runtime's module is the first argument.
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const ort = await import(pathToFileURL(process.argv[2]));
ort.env.wasm.numThreads = 1;
const arrays = { float32: Float32Array, int64: BigInt64Array };
const results = {};
for (const [path, inputs] of Object.entries(JSON.parse(fs.readFileSync(0, "utf8")))) {
  const session = await ort.InferenceSession.create(fs.readFileSync(path));
  const feeds = Object.fromEntries(Object.entries(inputs).map(([name, [dtype, dims, data]]) => {
    const bytes = Uint8Array.from(Buffer.from(data, "base64"));
    return [name, new ort.Tensor(dtype, new arrays[dtype](bytes.buffer), dims)];
  }));
  const { loss, grad_norm } = await session.run(feeds, ["loss", "grad_norm"]);
  results[path] = { loss: loss.data[0], grad_norm: grad_norm.data[0] };
  await session.release();
}
console.log(JSON.stringify(results));
