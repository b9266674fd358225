/**
 * Follows one call on the server: through its event stream, which is taken up again when it breaks; by asking again and
 * again where nothing streams (a proxy that holds answers back, a server without the stream).
 *
 * EventSource cannot send the server's key, so the stream is read with fetch().
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const FINAL = new Set(["completed", "busy", "no-answer", "canceled", "failed"]);
  /** The first picture of the call comes at once: when not within this time, something holds the stream back. */
  const FIRST_MS = 5_000;
  /** The server sends something every 15 s: a stream silent for this long is dead. */
  const SILENT_MS = 40_000;
  const POLL_MS = 1_500;
  const FIRST_RETRY_MS = 500;
  const LAST_RETRY_MS = 5_000;
  /** A stream that ran this long was well: the next loss counts from one again. */
  const STABLE_MS = 5_000;
  /** After this long without an answer nobody believes that it will come back by itself. */
  const GIVE_UP_MS = 120_000;
  /** Losses that last less than this many attempts are not worth a word. */
  const TELL_AFTER = 2;

  class CallWatch {
    /**
     * @param {ServerApi} api @param {string} sid the call
     * @param {object} on what to call: `call(json)` for every picture of it; `trouble(error)` while the server cannot
     *   be reached; `ended(error)` when it gave up: status 401 (the key), 403, 404 (unknown call) or code "gone"
     */
    constructor(api, sid, on) {
      Object.assign(this, { api, on, path: `api/call/${encodeURIComponent(sid)}`, over: false, polling: false });
      this.wake = () => this.awake?.();
      globalThis.addEventListener("online", this.wake);
      this.run();
    }

    stop() {
      this.over = true;
      globalThis.removeEventListener("online", this.wake);
      this.abort?.abort();
      this.wake();
    }

    async run() {
      let attempt = 0;
      let seenMs = performance.now();
      while (!this.over) {
        const begunMs = performance.now();
        this.told = false;
        const error = await (this.polling ? this.poll() : this.stream()).catch((caught) => caught);
        if (this.over) return;
        const nowMs = performance.now();
        if (this.told) seenMs = nowMs;
        if (!error) continue;
        if ([401, 403, 404].includes(error.status)) this.finish(error);
        else if (nowMs - seenMs > GIVE_UP_MS) this.finish(new globalThis.Ahoy.ApiError("gone"));
        if (this.over) return;
        attempt = this.told && nowMs - begunMs > STABLE_MS ? 1 : attempt + 1;
        this.polling = false;
        if (attempt >= TELL_AFTER) this.on.trouble(error);
        await this.pause(Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempt - 1)) * (0.8 + 0.4 * Math.random()));
      }
    }

    /** Until the stream ends; gives the error of its end. Turns to polling where streaming does not work. */
    async stream() {
      const { ApiError, EventStream } = globalThis.Ahoy;
      this.abort = new AbortController();
      const { signal } = this.abort;
      let timer = setTimeout(() => this.abort.abort(), FIRST_MS);
      try {
        const headers = { Accept: "text/event-stream" };
        const response = await this.api.request("GET", `${this.path}/events`, { headers, signal });
        if (!response.body || !response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
          this.polling = true;
          return null;
        }
        const reader = response.body.getReader();
        const decoder = new TextDecoder();
        const events = new EventStream();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return new ApiError("cut");
          for (const data of events.push(decoder.decode(value, { stream: true }))) this.tell(parse(data));
          if (!this.told) continue;
          clearTimeout(timer);
          timer = setTimeout(() => this.abort.abort(), SILENT_MS);
        }
      } catch (error) {
        const heldBack = signal.aborted && !this.told;
        // No such stream or no such call; or 503, too many streams: asking for the call itself tells.
        this.polling = heldBack || [404, 405, 406, 501, 503].includes(error.status);
        if (this.polling) return null;
        return error instanceof ApiError ? error : new ApiError("cut");
      } finally {
        clearTimeout(timer);
        this.abort.abort();
      }
    }

    async poll() {
      this.tell(await this.api.ask("GET", this.path));
      await this.pause(POLL_MS);
      return null;
    }

    tell(call) {
      if (this.over || typeof call?.status !== "string") return;
      this.told = true;
      if (FINAL.has(call.status)) this.stop();
      this.on.call(call);
    }

    finish(error) {
      this.stop();
      this.on.ended(error);
    }

    pause(ms) {
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.awake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Takes the text of a text/event-stream as it comes, in any pieces, and gives the data of whole events (HTML, 9.2.6). */
  class EventStream {
    rest = "";
    data = [];

    /** @param {string} text @returns {string[]} */
    push(text) {
      const found = [];
      const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/); // a CR at the end may be half of a CRLF
      this.rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) this.data.push(line.slice(5).replace(/^ /, ""));
        else if (!line && this.data.length) found.push(this.data.splice(0).join("\n"));
      }
      return found;
    }
  }

  function parse(text) {
    try {
      return JSON.parse(text);
    } catch {
      return null;
    }
  }

  Object.assign(globalThis.Ahoy, { CallWatch, EventStream, isFinal: (status) => FINAL.has(status) });
}
