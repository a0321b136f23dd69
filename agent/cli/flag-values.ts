import { invalid } from '../base/errors';

/** For options that may be given again. */
export function more(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

/**
 * Words separated by commas, each through its own reader.
 *
 * @param parse  Takes one word and the field for its errors.
 * @throws       AgentError of `parse`; ERR_CONFIG where one is given twice.
 */
export function list<T>(
  text: string,
  field: string,
  parse: (word: string, field: string) => T,
): readonly T[] {
  const words = text.split(',').map((each) => each.trim());
  const twice = words.find((each, index) => words.indexOf(each) !== index);
  if (twice !== undefined)
    throw invalid('ERR_CONFIG', field, `names ${JSON.stringify(twice)} twice`);
  return words.map((each) => parse(each, field));
}

/** A whole number from 1 to `max`. */
export function count(text: string, field: string, max: number): number {
  const value = Number(text);
  if (!/^\d{1,6}$/.test(text) || value < 1 || value > max)
    throw invalid('ERR_CONFIG', field, `must be a whole number from 1 to ${max}`);
  return value;
}

/** A rate: 0, or a number of calls a second with up to three decimals. */
export function rate(text: string, field: string): number {
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text))
    throw invalid('ERR_CONFIG', field, 'must be a number of calls a second, or 0 for no limit');
  return Number(text);
}
