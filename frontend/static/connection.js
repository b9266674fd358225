/**
 * The WebSocket of one conversation, which lives longer than any single socket: it comes back by itself.
 *
 * Knows the order of the protocol (ready, start, started, bye) and the close codes of docs/asyncapi.yaml, and nothing
 * about what is said. Microphone frames that the network cannot take are dropped, oldest first, and counted.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const READY_TIMEOUT_MS = 10_000;
  const FIRST_RETRY_MS = 500;
  const LAST_RETRY_MS = 5_000;
  const FULL_RETRY_MS = 4_000;
  /** A conversation that ran this long was well: the next loss starts counting from one again. */
  const STABLE_MS = 5_000;
  /** Above this much unsent data (1 s of audio) frames wait here, at most MAX_WAITING of 20 ms. */
  const MAX_BUFFERED_BYTES = 32_000;
  const MAX_WAITING = 50;
  /** A socket that has taken nothing for this long is dead, though nobody said so. */
  const STUCK_MS = 10_000;

  /** Errors of a server that opens no conversation, and why that is. */
  const REFUSALS = { server_full: "full", budget_spent: "budget" };

  class Connection {
    /**
     * @param {object} on what to call: `phase(name, {attempt, why, again})` with connecting, live, reconnecting or
     *   ended; `ready(message)`, `message(message)`, `audio(Int16Array)`; and `start(again)` which gives (perhaps
     *   later) the start message. `again` is true once the conversation was live
     */
    constructor(on) {
      this.on = on;
      this.socket = null;
      this.dropped = 0; // microphone frames that were never sent
      this.retryNow = () => this.timer && this.connect();
    }

    open(url) {
      this.shut();
      this.url = url;
      this.wanted = true;
      this.again = false;
      this.refused = false;
      this.attempt = 0;
      globalThis.addEventListener("online", this.retryNow);
      this.on.phase("connecting", {});
      this.connect();
    }

    /** The user ends the conversation. */
    end() {
      this.send({ type: "bye" });
      this.finish("client");
    }

    /** Send a JSON message; false when the conversation does not run at the moment. */
    send(message) {
      if (!this.live) return false;
      this.socket.send(JSON.stringify(message));
      return true;
    }

    /** Send microphone audio (Int16Array), or drop the oldest that waits. */
    sendAudio(samples) {
      if (!this.live) return;
      this.waiting.push(samples);
      while (this.waiting.length && this.socket.bufferedAmount < MAX_BUFFERED_BYTES) {
        this.socket.send(this.waiting.shift());
        this.movedAt = performance.now();
      }
      while (this.waiting.length > MAX_WAITING) {
        this.waiting.shift();
        this.dropped += 1;
      }
      if (performance.now() - this.movedAt > STUCK_MS) this.lost("slow");
    }

    connect() {
      this.shut();
      let socket;
      try {
        socket = new WebSocket(this.url);
      } catch {
        this.finish("address"); // also: an https page must not open ws://
        return;
      }
      this.socket = socket;
      this.waiting = [];
      this.bye = null;
      socket.binaryType = "arraybuffer";
      socket.onmessage = ({ data }) => this.receive(socket, data);
      socket.onclose = ({ code }) => this.closed(code);
      this.timer = setTimeout(() => {
        this.lost(socket.readyState === WebSocket.OPEN ? "loading" : "unreachable");
      }, READY_TIMEOUT_MS);
    }

    async receive(socket, data) {
      if (typeof data !== "string") {
        if (this.live) this.on.audio(new Int16Array(data, 0, data.byteLength >> 1));
        return;
      }
      const message = parse(data);
      if (!message) return;
      if (message.type === "ready") {
        this.stopTimer();
        this.on.ready(message);
        const start = await this.on.start(this.again);
        if (socket === this.socket) socket.send(JSON.stringify({ type: "start", ...start }));
      } else if (message.type === "started") {
        this.live = true;
        this.liveAt = this.movedAt = performance.now();
        this.again = true;
        this.on.phase("live", {});
        this.on.message(message);
      } else {
        if (message.type === "bye") this.bye = message.reason;
        if (message.type === "error" && message.code in REFUSALS) this.bye = REFUSALS[message.code];
        this.on.message(message);
      }
    }

    closed(code) {
      if (["idle", "client", "budget"].includes(this.bye)) this.finish(this.bye);
      else if (code === 1008) this.finish("mistakes");
      else this.lost(this.reason(code));
    }

    reason(code) {
      if (this.bye === "full") return "full";
      if (this.bye === "shutdown" || code === 1001 || code === 1012) return "restarting";
      if (code === 1013) return this.live ? "slow" : "full";
      if (this.bye === "failed" || code === 1011) return "failed";
      if (globalThis.navigator.onLine === false) return "offline";
      return this.live ? "lost" : "unreachable";
    }

    /** The line is down: try again, sooner at first, for as long as the user wants the conversation. */
    lost(why) {
      if (this.live && performance.now() - this.liveAt > STABLE_MS) this.attempt = 0;
      this.shut();
      if (!this.wanted) return;
      this.attempt += 1;
      const floor = why === "full" ? FULL_RETRY_MS : FIRST_RETRY_MS;
      const delay = Math.min(LAST_RETRY_MS, floor * 2 ** Math.min(this.attempt - 1, 8));
      this.timer = setTimeout(() => this.connect(), delay * (0.8 + 0.4 * Math.random()));
      this.waitAs(why === "unreachable" && this.refused ? "refused" : why);
      if (why === "unreachable" && !this.again) this.doubt();
    }

    waitAs(why) {
      this.on.phase("reconnecting", { attempt: this.attempt, why, again: this.again });
    }

    /** A refused WebSocket looks like no server at all; but a server that is there shows itself in other ways. */
    async doubt() {
      const { timer } = this;
      const refused = await answers(this.url);
      if (this.timer !== timer || this.refused === refused) return;
      this.refused = refused;
      this.waitAs(refused ? "refused" : "unreachable");
    }

    finish(why) {
      this.wanted = false;
      const socket = this.socket;
      const open = socket?.readyState === WebSocket.OPEN;
      this.shut({ leave: open && why === "client" });
      globalThis.removeEventListener("online", this.retryNow);
      this.on.phase("ended", { why });
    }

    shut({ leave = false } = {}) {
      this.stopTimer();
      this.live = false;
      const { socket } = this;
      this.socket = null;
      if (!socket) return;
      socket.onmessage = socket.onclose = null;
      // After our bye the server closes, once it has said its own; close from here only if it does not.
      if (leave) setTimeout(() => socket.close(1000), 2000);
      else if (socket.readyState <= WebSocket.OPEN) socket.close(1000);
    }

    stopTimer() {
      clearTimeout(this.timer);
      this.timer = null;
    }
  }

  /** What a server offers, without starting a conversation: its `ready` message, or null. */
  function ask(url, timeoutMs = 4000) {
    return new Promise((resolve) => {
      let socket;
      const answer = (message) => {
        clearTimeout(timer);
        if (socket && socket.readyState <= WebSocket.OPEN) socket.close(1000);
        resolve(message);
      };
      const timer = setTimeout(() => answer(null), timeoutMs);
      try {
        socket = new WebSocket(url);
      } catch {
        answer(null);
        return;
      }
      socket.onmessage = ({ data }) => {
        const message = typeof data === "string" ? parse(data) : null;
        if (message?.type === "ready") answer(message);
      };
      socket.onclose = () => answer(null);
    });
  }

  /** Whether the server this page came from is there; no page may ask that of another. */
  async function answers(url) {
    const health = new URL("health", url.replace(/^ws/, "http"));
    if (health.origin !== globalThis.location.origin) return false;
    try {
      return (await fetch(health, { cache: "no-store" })).ok;
    } catch {
      return false;
    }
  }

  function parse(text) {
    try {
      const message = JSON.parse(text);
      return typeof message?.type === "string" ? message : null;
    } catch {
      return null;
    }
  }

  globalThis.Ahoy.Connection = Connection;
  globalThis.Ahoy.askServer = ask;
}
