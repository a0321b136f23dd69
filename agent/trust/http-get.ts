import { AgentError, errorText } from '../base/errors';
import { inTurns, joinSteps } from '../base/steps';

/** What a URL gave; undefined where it is what `etag` names. */
export type HttpAnswer = { readonly bytes: Buffer; readonly etag: string | undefined } | undefined;

export interface HttpGetOptions {
  /** Of the answer before, so that an unchanged one need not be sent again. */
  readonly etag: string | undefined;
  readonly maxBytes: number;
  /** Roots that an https server is judged by, PEM; default those that Node.js brings. */
  readonly ca: Buffer | undefined;
}

/**
 * One GET of `http` or `https`. A redirection is no answer: whoever configured the URL did not mean another.
 *
 * @throws AgentError ERR_CA_UNAVAILABLE (retry soon): no connection, another status than 200 and 304, more than `maxBytes`.
 */
export async function httpGet(
  url: URL,
  { etag, maxBytes, ca }: HttpGetOptions,
  signal: AbortSignal,
): Promise<HttpAnswer> {
  // Not needed by whoever has no URL configured.
  const { request } =
    url.protocol === 'https:' ? await import('node:https') : await import('node:http');
  return new Promise((resolve, reject) => {
    const fail = (why: string, cause?: unknown) =>
      reject(
        new AgentError('ERR_CA_UNAVAILABLE', `GET ${url.origin}${url.pathname}: ${why}`, {
          cause,
          retry: 'soon',
        }),
      );
    const headers = etag === undefined ? {} : { 'if-none-match': etag };
    const sent = request(url, { signal, agent: false, headers, ...(ca && { ca }) }, (answer) => {
      if (answer.statusCode !== 200) {
        answer.resume();
        return answer.statusCode === 304 && etag !== undefined
          ? resolve(undefined)
          : fail(`status ${answer.statusCode}`);
      }
      const chunks: Buffer[] = [];
      let size = 0;
      answer.on('data', (chunk: Buffer) => {
        size += chunk.length;
        chunks.push(chunk);
        if (size > maxBytes) sent.destroy(new Error(`more than ${maxBytes} bytes`));
      });
      answer.on('end', () => {
        const { etag } = answer.headers;
        resolve(inTurns(joinSteps(chunks)).then((bytes) => ({ bytes, etag })));
      });
      answer.on('error', (cause) => fail(errorText(cause), cause));
    });
    sent.on('error', (cause) => fail(errorText(cause), cause));
    sent.end();
  });
}
