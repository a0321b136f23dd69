/** Escapes what RE2 reads as a sign, as Go's `regexp.QuoteMeta` does, so that both write the same. */
export function quoteRegex(text: string): string {
  return text.replace(/[\\.+*?()|[\]{}^$]/g, '\\$&');
}
