/**
 * The settings: a dialog whose fields are the preferences, with the choices the server and the device offer.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  class Settings {
    /**
     * @param {HTMLDialogElement} dialog with a form whose controls are named like the preferences
     * @param {object} on `changed(name)` after a preference was changed, `opened()`
     */
    constructor(dialog, preferences, on) {
      this.dialog = dialog;
      this.form = dialog.querySelector("form");
      this.preferences = preferences;
      this.on = on;
      this.offered = null; // the server's `ready`
      this.askedUrl = null;
      this.hint = dialog.querySelector("#server-hint");
      for (const name of ["theme", "server"]) this.form.elements[name].value = preferences.get(name);
      this.form.elements.halfDuplex.checked = preferences.get("halfDuplex");
      this.form.addEventListener("change", ({ target }) => this.change(target));
      this.form.addEventListener("submit", (event) => {
        event.preventDefault(); // Enter in the address field closes, as in any form
        if (this.form.elements.server === document.activeElement) this.change(this.form.elements.server);
        if (!this.form.elements.server.validationMessage) dialog.close();
      });
      dialog.addEventListener("click", (event) => {
        if (event.target === dialog) dialog.close(); // the backdrop
      });
      this.fillVoices();
      this.listMicrophones();
      globalThis.navigator.mediaDevices?.addEventListener?.("devicechange", () => this.listMicrophones());
    }

    open() {
      this.dialog.showModal();
      this.listMicrophones();
      this.askServer();
      this.on.opened();
    }

    /** What the server offers, from a `ready` message. */
    offer(ready) {
      this.offered = ready;
      this.fillVoices();
    }

    /** Whether this server has the voice or the language. */
    isOffered(name, value) {
      if (!this.offered) return false;
      return name === "voice" ? this.offered.voices.some(({ id }) => id === value) : this.offered.languages.includes(value);
    }

    change(field) {
      const { name } = field;
      if (name === "server" && !this.checkAddress(field)) return;
      const value = field.type === "checkbox" ? field.checked : field.value.trim();
      if (value === this.preferences.get(name)) return;
      this.preferences.set(name, value);
      this.on.changed(name);
      if (name === "server") {
        this.offered = null;
        this.fillVoices();
        this.askServer();
      }
    }

    checkAddress(field) {
      const written = field.value.trim();
      const good = !written || globalThis.Ahoy.address.socketUrl(written);
      field.setCustomValidity(good ? "" : "Not an address. Write it like ws://localhost:8000/ws.");
      field.setAttribute("aria-invalid", String(!good));
      this.say(field.validationMessage);
      return good;
    }

    /** The lists of voices and languages come from the server; without a conversation, ask it once. */
    async askServer() {
      const url = globalThis.Ahoy.address.serverUrl(this.preferences.get("server"));
      if (!url || (this.offered && this.askedUrl === url)) return;
      this.askedUrl = url;
      if (this.offered) return;
      this.say("Asking the server for its voices…");
      const ready = await globalThis.Ahoy.askServer(url);
      if (this.askedUrl !== url) return;
      if (ready) this.offer(ready);
      else this.askedUrl = null;
      this.say(ready || this.offered ? "" : "The server does not answer at this address, so its voices are not known.");
    }

    say(text) {
      this.hint.textContent = text;
    }

    fillVoices() {
      const { language } = globalThis.Ahoy.words;
      const { voices = [], languages = [], defaults = null } = this.offered ?? {};
      const usual = voices.find(({ id }) => id === defaults?.voice);
      const grouped = new Map();
      for (const voice of voices) grouped.set(voice.language, [...(grouped.get(voice.language) ?? []), voice]);
      const voiceOptions = [option("", usual ? `Default (${usual.name})` : "Default")];
      for (const [code, several] of grouped) {
        const group = document.createElement("optgroup");
        group.label = language(code);
        group.append(...several.map(({ id, name }) => option(id, name)));
        voiceOptions.push(group);
      }
      this.fill("voice", voiceOptions);
      const usualLanguage = defaults ? `Default (${language(defaults.language)})` : "Default";
      this.fill("language", [option("", usualLanguage), ...languages.map((code) => option(code, language(code)))]);
    }

    async listMicrophones() {
      const found = await globalThis.Ahoy.microphones();
      this.fill("microphone", [option("", "Default microphone"), ...found.map(({ id, label }) => option(id, label))]);
      this.dialog.querySelector("#microphone-hint").hidden = found.length > 0;
    }

    /** Fill a list and choose what is preferred; what is not there now stays preferred for the day it is. */
    fill(name, options) {
      const field = this.form.elements[name];
      field.replaceChildren(...options);
      field.value = this.preferences.get(name);
      if (field.selectedIndex < 0) field.value = "";
    }
  }

  function option(value, text) {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    return made;
  }

  globalThis.Ahoy.Settings = Settings;
}
