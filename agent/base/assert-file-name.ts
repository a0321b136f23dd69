import { type ErrorCode, invalid } from './errors';

/** One-time tokens of `keyturn ca token create`, and JWTs. */
const TOKEN = /^(kt1_[\w-]{20,}|ey[\w-]{8,}\.[\w-]+\.[\w-]*)$/;

/**
 * Refuses a token that was given in place of the file that holds it, before any message repeats it.
 *
 * @throws AgentError of that code.
 */
export function assertFileName(text: string, code: ErrorCode, field: string): void {
  if (!TOKEN.test(text)) return;
  throw invalid(code, field, 'must be the file that holds the token, not the token itself', {
    hint: 'command lines and environments are read by others: write a new token into a file, and have this one deleted',
  });
}
