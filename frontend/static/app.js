/**
 * Wires the page: elements to the conversation and back. The last of the scripts.
 *
 * For tests and for looking into a live page, `window.ahoy` shows what is going on: `state` (phase, activity,
 * microphone, muted, ...), `counts` (frames sent and dropped, playback underruns) and, when the page was opened with
 * `?record=1`, `await ahoy.recording()` gives {rate_hz, pcm16 (base64)} of everything the playback worklet rendered.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const { CallPanel, Captions, Conversation, LatencyPanel, LevelRing, Notice, Preferences, ServicesPanel, Settings, UsagePanel, address, words } = globalThis.Ahoy;
  const find = (id) => document.getElementById(id);
  const record = new URLSearchParams(globalThis.location.search).get("record") === "1";
  /** Attempts after which a server that never answered is probably not there at all. */
  const DOUBT_AFTER = 2;
  const ANNOUNCE_AFTER_MS = 700;

  const preferences = new Preferences();
  const notice = new Notice(find("notice"));
  const latency = new LatencyPanel(find("latency"));
  const apiBase = () => address.apiBase(preferences.get("server"));
  const usage = new UsagePanel(find("usage"), apiBase);
  const captions = new Captions({
    list: find("captions"),
    scroller: find("scroller"),
    log: find("spoken-log"),
    latest: find("latest"),
  });
  let userLevel = 0;
  let announced = "";
  let announcing = 0;

  const conversation = new Conversation(
    preferences,
    {
      state: (state) => show(state),
      level: (level) => {
        userLevel = level;
      },
      caption: (type, message) => {
        captions.take(type, message);
        document.body.classList.toggle("talked", find("captions").childElementCount > 0);
      },
      latency: (message) => latency.show(message),
      usage: (message) => usage.show(message),
      offer: (ready) => settings.offer(ready),
      isOffered: (name, value) => settings.isOffered(name, value),
      notice: (kind) => (kind ? microphoneNotice(kind) : notice.hide("microphone")),
      problem: (message) => notice.show("problem", words.problem(message)),
    },
    { record },
  );
  const settings = new Settings(find("settings"), preferences, {
    changed: (name) => {
      if (name === "theme") applyTheme();
      if (name === "server") {
        showServer();
        services.look();
      }
      conversation.preferencesChanged(name);
    },
    opened: () => services.look(),
  });
  const ring = new LevelRing(find("ring"), () => ({
    user: conversation.state.activity === "speaking" && userLevel < 0.02 ? 0 : userLevel,
    assistant: conversation.speaker?.level ?? 0,
    activity: conversation.state.activity,
    live: conversation.running,
  }));

  const calls = new CallPanel(
    { dialog: find("call"), opener: find("call-button"), news: find("call-announcer") },
    {
      base: apiBase,
      foreign: () => address.foreignHost(address.serverUrl(preferences.get("server"))),
    },
  );

  const services = new ServicesPanel(find("services"), apiBase, {
    unlock: () => {
      find("settings").close();
      calls.open();
    },
  });

  function show(state) {
    const { title, hint } = words.status(state);
    const running = ["connecting", "live", "reconnecting"].includes(state.phase);
    const silent = state.muted || state.microphone !== "on";
    Object.assign(document.body.dataset, { phase: state.phase, activity: state.activity, running, silent });
    find("status").textContent = title;
    find("hint").textContent = hint;
    label(find("talk"), running ? "End the conversation" : "Start talking");
    find("during").hidden = !running;
    const microphone = find("microphone-button");
    const would = state.microphone !== "on" ? "Turn mic on" : state.muted ? "Unmute" : "Mute";
    label(microphone, would);
    microphone.querySelector(".text").textContent = would;
    microphone.hidden = state.microphone === "insecure"; // the browser would not even ask
    find("stop").disabled = !["speaking", "thinking"].includes(state.activity) || state.phase !== "live";
    if (running) ring.run();
    announce(state, title, hint);
    lineNotice(state);
    document.title = running ? `${title} · Ahoy` : "Ahoy";
  }

  /** A screen reader hears how the line is, not every change between listening and speaking: the voice tells that. */
  function announce({ phase, muted, why }, title, hint) {
    const key = `${phase} ${muted} ${why}`;
    if (key === announced) return;
    announced = key;
    clearTimeout(announcing);
    announcing = setTimeout(() => {
      find("announcer").textContent = `${title}. ${hint}`;
    }, ANNOUNCE_AFTER_MS);
  }

  function lineNotice({ phase, attempt, why, again }) {
    if (phase === "live" || phase === "ended") notice.hide("line");
    if (phase !== "reconnecting" || again || attempt !== DOUBT_AFTER) return;
    const foreign = address.foreignHost(address.serverUrl(preferences.get("server")));
    if (why === "refused") notice.show("line", words.refused(globalThis.location), () => settings.open());
    else if (why === "unreachable" && foreign) notice.show("line", words.notices.foreign, () => settings.open());
  }

  function microphoneNotice(kind) {
    notice.show("microphone", words.notices[kind], () => conversation.toggleMicrophone());
  }

  function label(button, text) {
    button.setAttribute("aria-label", text);
    button.title = text;
  }

  function applyTheme() {
    const theme = preferences.get("theme");
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    ring.recolour();
  }

  function showServer() {
    const host = address.foreignHost(address.serverUrl(preferences.get("server")));
    find("server-name").hidden = !host;
    find("server-name").textContent = host ? `Talking to ${host}` : "";
  }

  function send() {
    const field = find("typed");
    const text = field.value.trim();
    if (!text) return;
    conversation.type(text);
    field.value = "";
    captions.follow();
  }

  find("talk").addEventListener("click", () => (conversation.running ? conversation.end() : conversation.start()));
  find("microphone-button").addEventListener("click", () => conversation.toggleMicrophone());
  find("stop").addEventListener("click", () => conversation.interrupt());
  find("settings-button").addEventListener("click", () => settings.open());
  find("settings-close").addEventListener("click", () => find("settings").close());
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  find("typed").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") conversation.interrupt();
    const writing = /^(TEXTAREA|INPUT|SELECT)$/.test(event.target.tagName);
    if (event.key.toLowerCase() === "m" && !writing && !event.repeat) conversation.toggleMicrophone();
  });
  // Phones stop sound when the page is left; it goes on when the user comes back.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && conversation.running) conversation.context?.resume();
  });
  globalThis.navigator.mediaDevices?.addEventListener?.("devicechange", () => conversation.devicesChanged());
  globalThis.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => ring.recolour());
  globalThis.addEventListener("pagehide", () => conversation.end());

  applyTheme();
  showServer();
  show(conversation.state);

  globalThis.ahoy = {
    get state() {
      return { ...conversation.state, session: settings.offered?.session ?? null };
    },
    get counts() {
      return {
        ...conversation.sent,
        dropped_frames: conversation.connection.dropped,
        playback: { ...conversation.speaker?.counts },
      };
    },
    recording: async () => {
      if (!record) throw new Error("Open the page with ?record=1 to record what it plays.");
      return conversation.speaker?.recording() ?? { rate_hz: 16000, pcm16: "" };
    },
  };
}
