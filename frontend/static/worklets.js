/**
 * Loads the AudioWorklet code into an AudioContext, also when the page was opened from disk.
 *
 * Browsers refuse ES modules and `addModule(url)` from file://, but run classic scripts there. So the page is made of
 * classic scripts in one namespace (`Ahoy`), and the audio code, which every page has loaded anyway, is written as
 * functions whose source text goes to the worklet through a Blob URL; a Content-Security-Policy needs
 * `script-src 'self' blob:` for it. A page from file:// has no origin of its own, so newer browsers find its Blob URLs
 * foreign and load them no more; a data: URL carries the text itself, and no policy is in its way there.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** @param {AudioContext} context */
  async function addWorklets(context) {
    const source = globalThis.Ahoy.audioCode.map((code) => `(${code})();`).join("\n");
    const text = `"use strict";\nglobalThis.Ahoy ??= {};\n${source}\n`;
    const type = "text/javascript";
    if (globalThis.origin === "null") {
      await context.audioWorklet.addModule(`data:${type},${encodeURIComponent(text)}`);
      return;
    }
    const url = URL.createObjectURL(new Blob([text], { type }));
    try {
      await context.audioWorklet.addModule(url);
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  globalThis.Ahoy.addWorklets = addWorklets;
}
