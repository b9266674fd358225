/**
 * Which server the page talks to: `?server=` first, then the setting, then the server the page came from.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** Where `make run` listens: the best guess for a page that was opened from disk. */
  const LOCAL = "ws://127.0.0.1:8000/ws";

  /**
   * The WebSocket address for what a person wrote: "example.org", "localhost:8000", "https://example.org/voice/ws".
   * @returns {string|null} null when it cannot be an address
   */
  function socketUrl(written, page = globalThis.location) {
    let text = written.trim();
    if (!/^[a-z]+:\/\//i.test(text)) text = `${page.protocol === "https:" ? "wss" : "ws"}://${text}`;
    text = text.replace(/^http/i, "ws");
    try {
      const url = new URL(text);
      if (!/^wss?:$/.test(url.protocol) || !url.hostname) return null;
      if (url.pathname === "/") url.pathname = "/ws";
      url.hash = "";
      return url.href;
    } catch {
      return null;
    }
  }

  /** Where the page's own server has the WebSocket; it writes its WS_PATH into the page. */
  function ownPath() {
    return document.querySelector("meta[name=ahoy-ws-path]").content.replace(/^\//, "");
  }

  /** The address to use; null when the one that was given cannot be used. */
  function serverUrl(setting, page = globalThis.location) {
    const given = new URLSearchParams(page.search).get("server") || setting;
    if (given) return socketUrl(given, page);
    if (!/^https?:$/.test(page.protocol)) return LOCAL;
    // Beside the page, so that a proxy may put both under a path of its own.
    return socketUrl(`${page.host}${page.pathname.replace(/[^/]*$/, "")}${ownPath()}`, page);
  }

  /**
   * Where that server's HTTP API begins, such as "https://example.org/voice/": beside the page it served, else beside
   * its WebSocket. null as for serverUrl.
   */
  function apiBase(setting, page = globalThis.location) {
    const given = new URLSearchParams(page.search).get("server") || setting;
    if (!given && /^https?:$/.test(page.protocol)) return new URL(".", page.href).href;
    const url = serverUrl(setting, page);
    return url && new URL(".", url.replace(/^ws/, "http")).href;
  }

  /** The server's name when it is not the one the page came from, so that nobody talks to a stranger unawares. */
  function foreignHost(url, page = globalThis.location) {
    if (!url) return null;
    const { host } = new URL(url);
    return host === page.host ? null : host;
  }

  globalThis.Ahoy.address = { socketUrl, serverUrl, apiBase, foreignHost };
}
