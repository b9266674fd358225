/**
 * Requests to the server's HTTP API: its errors and those of the network in one shape, a limit to every wait, and the
 * server's key, which stays in this tab (sessionStorage) and is only ever sent to the server it was given for.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const ANSWER_MS = 10_000;
  const KEY = "ahoy.key ";
  /** The keys of this page by server, for browsers that allow no storage. */
  const keys = new Map();

  /** `code` is the server's, or offline, unreachable, timeout, garbled; `status` is 0 when no answer came. */
  class ApiError extends Error {
    constructor(code, { message = "", status = 0, twilioCode = null } = {}) {
      super(message);
      Object.assign(this, { code, status, twilioCode });
    }

    static async of(response) {
      let error = {};
      try {
        error = (await response.json()).error ?? {};
      } catch {
        // A proxy's page, or nothing: the status has to do.
      }
      const message = error.message || `The server answered with status ${response.status}.`;
      return new ApiError(error.code ?? "", { message, status: response.status, twilioCode: error.twilio_code ?? null });
    }
  }

  class ServerApi {
    /** @param {string} base where the API begins, see address.apiBase */
    constructor(base, storage = tryStorage()) {
      this.base = base;
      this.storage = storage;
    }

    get key() {
      return keys.get(this.base) ?? this.storage?.getItem(KEY + this.base) ?? "";
    }

    set key(value) {
      keys.set(this.base, value);
      try {
        this.storage?.setItem(KEY + this.base, value);
      } catch {
        // Full or forbidden: it holds until the page is closed.
      }
    }

    /** The answer as JSON. @throws {ApiError} */
    async ask(method, path, { timeoutMs = ANSWER_MS, ...rest } = {}) {
      const limit = new AbortController();
      const timer = setTimeout(() => limit.abort(), timeoutMs);
      try {
        const response = await this.request(method, path, { ...rest, signal: limit.signal });
        return await response.json();
      } catch (error) {
        if (error instanceof ApiError) throw error;
        throw new ApiError(limit.signal.aborted ? "timeout" : "garbled");
      } finally {
        clearTimeout(timer);
      }
    }

    /** The response of an answer that is well, for reading on. @throws {ApiError} */
    async request(method, path, { json, headers = {}, signal }) {
      const sent = { ...headers };
      if (json) sent["Content-Type"] = "application/json";
      if (this.key) sent.Authorization = `Bearer ${this.key}`;
      let response;
      try {
        const body = json && JSON.stringify(json);
        response = await fetch(new URL(path, this.base), { method, headers: sent, body, signal, cache: "no-store" });
      } catch {
        if (signal.aborted) throw new ApiError("timeout");
        throw new ApiError(globalThis.navigator.onLine === false ? "offline" : "unreachable");
      }
      if (!response.ok) throw await ApiError.of(response);
      return response;
    }
  }

  function tryStorage() {
    try {
      return globalThis.sessionStorage;
    } catch {
      return null;
    }
  }

  Object.assign(globalThis.Ahoy, { ServerApi, ApiError });
}
