/**
 * How long the last answer took, and where the time went.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const STAGES = [
    ["endpointing_ms", "Your pause", "From your last word to the decision that you were done."],
    ["stt_ms", "Understanding", "Speech to text."],
    ["llm_ms", "Thinking", "The language model's first clause."],
    ["tts_ms", "Voice", "Text to the first sound."],
    ["engine_ms", "The rest", "Spent between the parts."],
  ];

  class LatencyPanel {
    /** @param {HTMLDetailsElement} panel with `.total`, `.tag` and `.stages` (a list) in it */
    constructor(panel) {
      this.panel = panel;
      this.rows = STAGES.map(([key, name, about]) => {
        const row = document.createElement("li");
        const [label, track, value] = ["span", "span", "span"].map((tag) => document.createElement(tag));
        const bar = document.createElement("span");
        label.className = "name";
        label.textContent = name;
        track.className = "track";
        bar.className = `bar ${key.replace("_ms", "")}`;
        value.className = "value";
        row.title = about;
        track.append(bar);
        row.append(label, track, value);
        return { key, row, bar, value };
      });
      panel.querySelector(".stages").replaceChildren(...this.rows.map(({ row }) => row));
    }

    /** @param {object} message `latency` of the protocol */
    show({ voice_to_voice_ms: total, speculative, stages }) {
      const { duration } = globalThis.Ahoy.words;
      const longest = Math.max(1, total, ...this.rows.map(({ key }) => stages[key]));
      this.panel.hidden = false;
      this.panel.querySelector(".total").textContent = duration(total);
      this.panel.querySelector(".tag").hidden = !speculative;
      for (const { key, row, bar, value } of this.rows) {
        row.hidden = stages[key] === 0; // a typed turn has no pause, and nothing to recognise
        bar.style.width = `${Math.max(0.5, (100 * stages[key]) / longest)}%`;
        value.textContent = duration(stages[key]);
      }
    }
  }

  globalThis.Ahoy.LatencyPanel = LatencyPanel;
}
