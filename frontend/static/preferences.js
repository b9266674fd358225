/**
 * What the user has chosen, kept in this browser. Works without storage too (private windows, blocked cookies).
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const KEY = "ahoy.preferences";
  const DEFAULTS = {
    voice: "", // "" is the server's default
    language: "",
    microphone: "", // "" is the device's default
    halfDuplex: false,
    theme: "auto",
    server: "", // "" is the server the page came from
  };

  class Preferences {
    constructor(storage = tryStorage()) {
      this.storage = storage;
      this.values = { ...DEFAULTS };
      try {
        const stored = JSON.parse(storage?.getItem(KEY) ?? "{}");
        for (const [name, value] of Object.entries(DEFAULTS)) {
          if (typeof stored[name] === typeof value) this.values[name] = stored[name];
        }
      } catch {
        // Not ours, or not readable: the defaults are right.
      }
    }

    get(name) {
      return this.values[name];
    }

    set(name, value) {
      this.values[name] = value;
      try {
        this.storage?.setItem(KEY, JSON.stringify(this.values));
      } catch {
        // Full or forbidden: it holds until the page is closed.
      }
    }
  }

  function tryStorage() {
    try {
      return globalThis.localStorage;
    } catch {
      return null;
    }
  }

  globalThis.Ahoy.Preferences = Preferences;
}
