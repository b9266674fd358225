/**
 * What can be said about a telephone number while it is being typed. The server has the last word: only what it would
 * refuse for certain is called wrong here. No DOM.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** ITU-T E.164: at most 15 digits with the country's code; the shortest numbers in use have 7. */
  const MAX_DIGITS = 15;
  const MIN_DIGITS = 7;
  /** A local number can leave out this many of them, the country's code. */
  const LOCAL_MIN_DIGITS = 4;

  /**
   * @param {string} text as typed
   * @param {{region?: string|null, country_code?: number|null, allowed?: string[]}} phone what GET /api/phone says
   * @returns {{wrong: string|null, short: boolean, country: object|null, outside: boolean}} `wrong`: characters, region,
   *   zero or long, which more typing cannot mend; `short`: not complete yet; `country`: {name, code, assumed};
   *   `outside`: cannot become a number that the server may call
   */
  function look(text, { region = null, country_code: countryCode = null, allowed = [] } = {}) {
    const written = text.normalize("NFKC").trim();
    const found = { wrong: null, short: true, country: null, outside: false };
    if (!written) return found;
    if (!/^\+?[\p{Nd}\s().\/\p{Pd}]*$/u.test(written)) return { ...found, wrong: "characters" };
    const digits = written.replace(/\P{Nd}/gu, "");
    const abroad = international(written, digits, countryCode);
    if (abroad === null) {
      if (!region) return { ...found, wrong: "region" };
      const { regionName } = globalThis.Ahoy.callingCodes;
      found.country = { name: regionName(region), code: String(countryCode ?? ""), assumed: true };
      found.short = digits.length < LOCAL_MIN_DIGITS;
    } else {
      if (abroad.startsWith("0")) return { ...found, wrong: "zero" };
      const country = globalThis.Ahoy.callingCodes.countryOf(abroad);
      found.country = country && { ...country, assumed: false };
      found.short = abroad.length < MIN_DIGITS;
      found.outside = Boolean(abroad) && allowed.length > 0 && !allowed.some((prefix) => mayMeet(abroad, prefix));
    }
    if (digits.length > MAX_DIGITS + (abroad === digits ? 0 : 3)) found.wrong = "long";
    return found;
  }

  /** The digits with the country's code when they are written with it: +49…, or 0049… (from +1 countries 01149…). */
  function international(written, digits, countryCode) {
    if (written.startsWith("+")) return digits;
    if (countryCode === 1) return digits.startsWith("011") ? digits.slice(3) : null;
    return countryCode && digits.startsWith("00") ? digits.slice(2) : null;
  }

  /** The number begins with the prefix, or may still come to. */
  function mayMeet(digits, prefix) {
    const wanted = prefix.replace(/\D/g, "");
    return digits.startsWith(wanted) || wanted.startsWith(digits);
  }

  /** "+15005550123" as "+1 500 555 0123"; others with a space after the country's code. */
  function forReading(number) {
    if (!/^\+\d+$/.test(number)) return number;
    const digits = number.slice(1);
    if (/^1\d{10}$/.test(digits)) return `+1 ${digits.slice(1, 4)} ${digits.slice(4, 7)} ${digits.slice(7)}`;
    const { code } = globalThis.Ahoy.callingCodes.countryOf(digits) ?? {};
    return code ? `+${code} ${digits.slice(code.length)}` : number;
  }

  globalThis.Ahoy.phoneNumber = { look, forReading };
}
