// Pushes a text to all connections of a user:
//
//	PUSH_TOKEN=... node examples/push/push.mjs tom "hello from Node"
//
// or, from your own code: import { call } from "./push.mjs".
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const url = process.env.PUSH_URL ?? "http://127.0.0.1:4480";
const token = process.env.PUSH_TOKEN ?? "";

// call is one call of the API. A command that is tried again is done once.
export async function call(method, path, body) {
	const headers = { Authorization: `Bearer ${token}` };
	if (body !== undefined) {
		headers["Content-Type"] = "application/json";
		headers["Idempotency-Key"] = randomUUID();
	}
	for (let attempt = 1; ; attempt++) {
		try {
			const response = await fetch(url + path, {
				method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(10_000),
			});
			const answer = await response.json();
			if (response.ok) return answer;
			throw Object.assign(new Error(`${method} ${path}: ${response.status} ${answer.error.code}: ${answer.error.message}`),
				{ final: response.status !== 503 });
		} catch (error) {
			if (error.final || attempt === 3) throw error;
			await sleep(200 * attempt);
		}
	}
}

export const sendToUser = (user, text) => call("POST", "/send", { to: { users: [user] }, text });

// The rest runs only when this file is what node was given.
if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
	const [user, text] = process.argv.slice(2);
	if (user === undefined || text === undefined) {
		console.error("usage: PUSH_TOKEN=... node push.mjs <user> <text>");
		process.exit(2);
	}
	try {
		console.log(JSON.stringify(await sendToUser(user, text)));
	} catch (error) {
		console.error(error.cause?.message ?? error.message);
		process.exit(1);
	}
}
