import { get } from 'node:http';

/** Fetches a URL over plain HTTP on a connection of its own. */
export function fetchText(
  url: string,
): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((done, failed) => {
    get(url, { agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => done({ status: response.statusCode!, body }));
    }).on('error', failed);
  });
}
