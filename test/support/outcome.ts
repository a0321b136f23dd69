import { AgentError } from '../../agent/base/errors';

/** What a call gave: its value, or of a refusal the field and the rule. Anything thrown that is not an AgentError is a failure of the test. */
export function outcome<T>(
  call: () => T,
): T | { readonly field: string | undefined; readonly rule: string | undefined } {
  try {
    return call();
  } catch (error) {
    return refusal(error);
  }
}

/** As `outcome`, of a promise. */
export async function outcomeOf<T>(
  promise: Promise<T>,
): Promise<T | { readonly field: string | undefined; readonly rule: string | undefined }> {
  return promise.catch(refusal);
}

function refusal(error: unknown) {
  if (!(error instanceof AgentError)) throw error;
  return { field: error.field, rule: error.rule };
}
