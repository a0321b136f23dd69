/**
 * The types of fields, as tables: what a resource may hold and what is refused by its name. Names and
 * types are those of Istio's CRDs.
 */
export type Shape =
  | { readonly type: 'text' | 'boolean' | 'integer' | 'duration' | 'anything' }
  | { readonly type: 'choice'; readonly values: readonly string[] }
  | { readonly type: 'list' | 'map'; readonly of: Shape }
  | { readonly type: 'message'; readonly fields: Fields };

export type Fields = ReadonlyMap<string, Shape>;

export const text: Shape = { type: 'text' };
export const boolean: Shape = { type: 'boolean' };
export const integer: Shape = { type: 'integer' };
/** `1.5s`, or as Go has it: `1m30s`. */
export const duration: Shape = { type: 'duration' };
/** Read by nobody here, and left as it is. */
export const anything: Shape = { type: 'anything' };

export const choice = (...values: string[]): Shape => ({ type: 'choice', values });
export const list = (of: Shape): Shape => ({ type: 'list', of });
export const map = (of: Shape): Shape => ({ type: 'map', of });
export const message = (fields: Readonly<Record<string, Shape>>): Shape => ({
  type: 'message',
  fields: new Map(Object.entries(fields)),
});
