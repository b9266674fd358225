/**
 * Everything the call panel says to a person, in one place. No DOM, no decisions.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const EXAMPLE = "+1 202 555 0123";
  const MAX_PREFIXES = 6;

  /** How the call stands: {title, hint, short, tone}; tone is calling, talking, over or failed. */
  function status({ progress, call, ending, line, lost }) {
    if (lost) return { ...LOST[lost.code === "gone" ? "gone" : lost.status === 404 ? "unknown" : "other"](lost), tone: "over" };
    if (progress === "placing" && ending) return { title: "Hanging up", hint: "As soon as the call is there.", short: "Ending", tone: "calling" };
    if (progress === "placing") return { title: "Calling", hint: "The server places the call.", short: "Calling", tone: "calling" };
    const known = STATUS[call.status] ?? { title: "Calling", hint: `The server says “${call.status}”.`, short: "Call", tone: "calling" };
    const words = { ...known, hint: call.reason || known.hint };
    if (progress === "over") return words;
    if (ending) return { ...words, title: "Hanging up", hint: "Ending the call.", short: "Ending" };
    if (line) return { ...words, hint: `${trouble(line)} The call may be going on. Trying again by itself.` };
    if (call.on_hold) return { ...words, title: "On hold", hint: "The other side hears that it is waiting.", short: "On hold" };
    if (call.status === "in-progress" && !call.reason) return { ...words, hint: ANSWERED[call.answered_by.split("_")[0]] ?? known.hint };
    return words;
  }

  const STATUS = {
    queued: { title: "Queued", hint: "It is put through in a moment.", short: "Queued", tone: "calling" },
    initiated: { title: "Dialling", hint: "The number is being called.", short: "Dialling", tone: "calling" },
    ringing: { title: "Ringing", hint: "Waiting for somebody to answer.", short: "Ringing", tone: "calling" },
    "in-progress": { title: "In conversation", hint: "Ahoy is talking on the phone.", short: "Talking", tone: "talking" },
    completed: { title: "Call ended", hint: "", short: "Ended", tone: "over" },
    busy: { title: "Busy", hint: "The other side is on another call. Try again in a while.", short: "Busy", tone: "failed" },
    "no-answer": { title: "No answer", hint: "Nobody picked up.", short: "No answer", tone: "failed" },
    canceled: { title: "Call cancelled", hint: "It ended before anybody answered.", short: "Cancelled", tone: "over" },
    failed: { title: "The call failed", hint: "No reason was given. Check the number.", short: "Failed", tone: "failed" },
  };
  const ANSWERED = {
    machine: "A machine has answered.",
    fax: "A fax machine has answered.",
  };
  const LOST = {
    gone: () => ({ title: "Out of sight", hint: "The server has not answered for two minutes, so it is not known how the call stands.", short: "Lost" }),
    unknown: () => ({ title: "Out of sight", hint: "The server no longer knows this call. It was probably restarted.", short: "Lost" }),
    other: (error) => ({ title: "Out of sight", hint: trouble(error), short: "Lost" }),
  };

  /** What is wrong with a number that is being typed, and how it would be right. */
  function wrong(kind, { region }) {
    return {
      characters: `A number has only digits, spaces and + ( ) - . / in it, like ${EXAMPLE}.`,
      region: `Begin with + and the country’s code, like ${EXAMPLE}.`,
      zero: `No country’s code begins with 0. Write it like ${EXAMPLE}.`,
      long: "That is too long: a number has at most 15 digits.",
      short: region ? `That is too short. Write the whole number, like ${EXAMPLE}.` : `Write the whole number, like ${EXAMPLE}.`,
    }[kind];
  }

  /** Where the number is: "Germany +49". */
  function country({ name, code, assumed }) {
    return assumed ? `Without a +, a number in ${name} (+${code})` : `${name} +${code}`;
  }

  /** Which numbers the server may call; "" when it does not say. */
  function allowed(prefixes) {
    if (!prefixes?.length) return "";
    const some = prefixes.slice(0, MAX_PREFIXES);
    const more = prefixes.length - some.length;
    const list = more ? `${some.join(", ")} and ${more} more` : some.join(", ").replace(/, ([^,]*)$/, " or $1");
    return `This server calls numbers that begin with ${list}.`;
  }

  /** An error in a sentence; what the server says is for people and shown as it is. */
  function trouble({ code, message }) {
    return message || {
      offline: "This device is offline.",
      timeout: "The server takes too long to answer.",
      garbled: "The server’s answer makes no sense.",
      address: "The server address in the settings is not usable.",
    }[code] || "The server does not answer.";
  }

  /** Something did not work: {title, text}. `about` is placing, unsure or ending. */
  function problem({ error, about }) {
    const title = {
      placing: "The call was not placed",
      unsure: "It is not known whether the call was placed",
      ending: "The call may still be going on",
    }[about];
    const then = { unsure: " Try again: the number is not called twice.", ending: " Press “Hang up” again." }[about] ?? "";
    return { title, text: trouble(error) + then };
  }

  /** The server's telephone cannot be used: {title, text, action}. `foreign` is its name if it is not the page's own. */
  function closed({ stage, phone, trouble: error }, foreign) {
    if (stage === "closed") {
      const text = phone.reason || "The server does not say why.";
      return { title: "This server places no calls", text, action: "Look again" };
    }
    if (error.status === 404) {
      return { title: "This server has no telephone", text: "It is probably of an older version than this page.", action: "Look again" };
    }
    const doubt = foreign && error.code === "unreachable" ? ` ${foreign} must be running, and list this page in ALLOWED_ORIGINS.` : "";
    return { title: "The telephone cannot be reached", text: trouble(error) + doubt, action: "Try again" };
  }

  /** 83.4 → "1:23", 3723 → "1:02:03". */
  function clock(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
    return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
  }

  function two(number) {
    return String(number).padStart(2, "0");
  }

  globalThis.Ahoy.callWords = { status, wrong, country, allowed, trouble, problem, closed, clock };
}
