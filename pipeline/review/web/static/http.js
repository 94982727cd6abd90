// Requests of the pages to their own server, with the header that only they know.

const csrf = document.querySelector("meta[name=csrf]").content;

/** Send JSON and return the JSON of the answer; throws an Error with the server's sentence. */
export async function send(method, address, body, options = {}) {
  const headers = { "X-Neardup-Csrf": csrf };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      ...options,
    });
  } catch {
    throw new Error("the server does not answer; is `neardup review` still running?");
  }
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(document.detail ?? `the server answered ${answer.status}`);
  return document;
}

/** Load a page of this server; returns its document, status and final address. */
export async function load(address) {
  const answer = await fetch(address).catch(() => {
    throw new Error("the server does not answer; is `neardup review` still running?");
  });
  const text = await answer.text();
  const page = new DOMParser().parseFromString(text, "text/html");
  return { page, status: answer.status, address: answer.url };
}
