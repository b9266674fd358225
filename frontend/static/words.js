/**
 * Everything the page says to a person about its own state, in one place. No DOM, no decisions.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** What the conversation is doing, for the line under the button: {title, hint}. */
  function status({ phase, activity, muted, microphone, attempt, why, again, halfDuplex }) {
    if (phase === "connecting" && microphone === "asking") {
      return { title: "May Ahoy hear you?", hint: "Allow the microphone in the browser’s question." };
    }
    if (phase === "connecting") return { title: "Connecting", hint: "Setting up the line." };
    if (phase === "reconnecting") {
      const title = again ? "Reconnecting" : "Connecting";
      return { title: attempt > 1 ? `${title} (try ${attempt})` : title, hint: lost(why) };
    }
    if (phase === "ended") return { title: ENDED[why]?.title ?? "Conversation ended", hint: ENDED[why]?.hint ?? AGAIN };
    if (phase !== "live") return { title: "Ready to talk", hint: "Press the button and say something." };
    if (activity === "speaking") return { title: "Speaking", hint: speakingHint(microphone, muted, halfDuplex) };
    if (activity === "thinking") return { title: "Thinking", hint: "The answer is on its way." };
    if (microphone !== "on") return { title: "Ready for your words", hint: "No microphone: type, and Ahoy answers." };
    if (muted) return { title: "Muted", hint: "Ahoy does not hear you. You can still type." };
    if (activity === "hearing") return { title: "You are speaking", hint: "Take your time." };
    return { title: "Listening", hint: "Just talk." };
  }

  function speakingHint(microphone, muted, halfDuplex) {
    if (microphone !== "on" || muted) return "Type, or press Stop, to interrupt.";
    return halfDuplex ? "Your microphone is paused until the answer ends." : "You can speak over it at any time.";
  }

  const AGAIN = "Press the button to start again.";
  const ENDED = {
    idle: { title: "You were quiet for a while", hint: `So the conversation was ended. ${AGAIN}` },
    budget: { title: "The budget is used up", hint: "The server limits what conversations may cost. A new one may have to wait until tomorrow." },
    mistakes: { title: "The server ended the conversation", hint: "Page and server do not fit together: reload the page." },
    audio: { title: "No sound on this device", hint: "The browser gave no audio output. Check it, then try again." },
    address: { title: "The server address is not usable", hint: "Correct it in the settings, for example ws://localhost:8000/ws." },
  };

  /** Why the line is down, and that nothing has to be done. */
  function lost(why) {
    return {
      unreachable: "The server does not answer. Trying again by itself.",
      refused: "The server refuses the conversation. Trying again by itself.",
      loading: "The server is still getting ready. Trying again by itself.",
      full: "All lines are busy. Trying again by itself.",
      restarting: "The server is restarting. This takes a moment.",
      slow: "The network is too slow for sound just now.",
      failed: "The server had a problem. Trying again by itself.",
      offline: "This device is offline. Waiting for the network.",
    }[why] ?? "The connection was lost. Back in a moment.";
  }

  /** A notice that stays until it is dismissed or settled: {title, text, action}. */
  const notices = {
    denied: {
      title: "The microphone is not allowed",
      text: "Allow it through the icon beside the page's address, then press “Try again”. Until then you can type.",
      action: "Try again",
    },
    none: {
      title: "No microphone found",
      text: "Plug one in and press “Try again”. Until then you can type, and hear the answers.",
      action: "Try again",
    },
    busy: {
      title: "The microphone cannot be used",
      text: "Another program may be holding it. Close that program and press “Try again”. Until then you can type.",
      action: "Try again",
    },
    insecure: {
      title: "The browser allows no talking here",
      text: "Microphone and sound need an https:// address, or localhost. Here you can type, and read the answers.",
    },
    unplugged: {
      title: "The microphone is gone",
      text: "It was unplugged or taken by another program. Plug it in again, or choose another in the settings.",
      action: "Try again",
    },
    foreign: {
      title: "The server does not answer",
      text: "Is it running, and is the address in the settings right? It must also list this page in ALLOWED_ORIGINS.",
      action: "Settings",
    },
  };

  /**
   * The server is there but opens no conversation for a page of this address. Names must be known to the server;
   * localhost and plain addresses it always knows, so then something else is in the way.
   * @param {Location} page
   */
  function refused({ hostname, origin, port }) {
    if (/^(localhost|[\d.]+|\[.*\])$/.test(hostname)) {
      return {
        title: "The server opens no conversation here",
        text: "It is there, but not at this WebSocket address. If WS_PATH was changed, write the whole address into the settings, like ws://localhost:8000/ws. A proxy in between must let WebSockets through.",
        action: "Settings",
      };
    }
    return {
      title: "The server does not know this address",
      text: `It takes no conversation from ${origin}. Set ALLOWED_ORIGINS=${origin} there and start it again; or, on the server's own machine, open http://localhost${port && `:${port}`}. A proxy in between must let WebSockets through.`,
    };
  }

  const MISUNDERSTOOD = "Page and server misunderstood each other. Reload the page if it happens again.";
  const PROBLEMS = {
    bad_json: MISUNDERSTOOD,
    bad_message: MISUNDERSTOOD,
    unknown_type: MISUNDERSTOOD,
    not_started: MISUNDERSTOOD,
    already_started: MISUNDERSTOOD,
    odd_audio: MISUNDERSTOOD,
    too_many_errors: MISUNDERSTOOD,
    message_too_large: "That was too long to send at once.",
    too_many_messages: "That was too much at once. Wait a moment, then go on.",
    audio_overrun: "Sound arrived faster than it could be heard; some was lost.",
    server_full: "All lines are busy at the moment.",
    budget_spent: "The budget of the day is used up.",
    overloaded: "The server has too much to do right now. Say it again in a moment.",
    language_not_spoken: "No voice here speaks this language.",
    provider_failed: "A part of the assistant did not answer. Say it again in a moment.",
    internal_error: "Something went wrong on the server.",
  };

  /** The error codes of docs/asyncapi.yaml in words; the server's own message is for people too and says more. */
  function problem({ code, message }) {
    return { title: PROBLEMS[code] ?? "Something went wrong", text: message || "" };
  }

  /** A language by its own code in the page's language: "de" is "German". */
  function language(code) {
    if (code === "auto") return "Detect automatically";
    try {
      return new Intl.DisplayNames([document.documentElement.lang || "en"], { type: "language" }).of(code) ?? code;
    } catch {
      return code;
    }
  }

  /** 640 → "640 ms", 1240 → "1.24 s". */
  function duration(ms) {
    return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
  }

  /** 0.0042 → "$0.0042", 0.314 → "$0.31"; with "at least" when not all of it has a known price. */
  function money(usd, priced) {
    if (usd < 0.0001 && !priced) return "price unknown";
    if (usd > 0 && usd < 0.0001) return "under $0.0001";
    const amount = `$${usd.toFixed(usd > 0 && usd < 0.1 ? 4 : 2)}`;
    return priced ? amount : `at least ${amount}`;
  }

  /** 12400 → "12,400". */
  function count(number) {
    return new Intl.NumberFormat("en").format(number);
  }

  /** 12.34 → "12.3 s", 90 → "1.5 min". */
  function speech(seconds) {
    return seconds < 60 ? `${seconds.toFixed(1)} s` : `${(seconds / 60).toFixed(1)} min`;
  }

  globalThis.Ahoy.words = { status, lost, notices, refused, problem, language, duration, money, count, speech };
}
