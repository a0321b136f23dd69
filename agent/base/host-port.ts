import { invalid } from './errors';

/** Where to listen or connect. `host` is a name or an address without brackets; `port` 0 asks for a free one when listening. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/**
 * Reads `127.0.0.1:15020`, `localhost:15020` or `[::1]:15020`.
 *
 * @param field  What is being read, for the error, e.g. `flag --admin-address`.
 * @throws       AgentError ERR_CONFIG.
 */
export function parseHostPort(text: string, field: string): HostPort {
  const refuse = (rule: string) =>
    invalid('ERR_CONFIG', field, rule, {
      hint: 'write an address and a port, e.g. 127.0.0.1:15020, or [::1]:15020 for IPv6',
    });
  if (text.length > 300) throw refuse('must not be longer than 300 characters');
  const parts =
    /^(?:\[([0-9a-fA-F:.]{2,45}(?:%[\w.-]{1,32})?)\]|([a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,252})?)):(\d{1,5})$/.exec(
      text,
    );
  if (!parts) throw refuse(`"${text}" is not host:port`);
  const port = Number(parts[3]);
  if (port > 65_535) throw refuse(`port ${port} is more than 65535`);
  return { host: (parts[1] ?? parts[2])!, port };
}

/** The inverse of `parseHostPort`. */
export function formatHostPort(address: HostPort): string {
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}
