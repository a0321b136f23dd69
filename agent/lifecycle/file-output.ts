import { isPublished, type OutputFile, publishDir } from '../base/atomic-dir';
import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { everySecond } from '../base/every-second';
import type { DirectoryRisk } from '../base/open-directory';
import type { Watched } from '../base/watched';
import type { CertState } from '../identity/cert-state';
import { certificatesPem } from '../identity/certificate';
import { type KeyFormat, privateKeyPem } from '../identity/keys';
import type { Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';

/** The names that upstream's agent writes and reads, of `OUTPUT_CERTS` and of mounted certificates. */
export const CERT_FILES = {
  key: 'key.pem',
  certChain: 'cert-chain.pem',
  rootCert: 'root-cert.pem',
} as const;

export interface FileOutputOptions {
  /** Made with mode 0700 when missing. */
  readonly dir: string;
  readonly state: Watched<CertState>;
  readonly keyFormat: KeyFormat;
}

/** What the files are made of. */
export interface CertContents {
  readonly svid: Svid;
  readonly bundle: TrustBundle;
}

export interface FileOutput {
  /** `serial` is of the certificate that lies there by our doing; `error` is why a newer one does not. */
  status(): { readonly dir: string; readonly serial?: string; readonly error?: string };
  close(): Promise<void>;
}

/**
 * Writes key.pem (0600), cert-chain.pem and root-cert.pem (0644) on every change of certificate or bundle, as one, and again
 * within two seconds where one was removed. A failed write leaves the old files, is logged and counted, and is tried again for ever; nothing
 * else waits for it.
 */
export function createFileOutput(options: FileOutputOptions, deps: Deps): FileOutput {
  const { dir, state, keyFormat } = options;
  return followState(dir, state, (contents) => certFiles(contents, keyFormat), deps);
}

/** As `createFileOutput`, with files of the caller's making, and something to do once they are there. */
export function followState(
  dir: string,
  state: Watched<CertState>,
  files: (contents: CertContents) => OutputFile[],
  deps: Deps,
  written: (contents: CertContents) => Promise<void> = async () => undefined,
): FileOutput {
  return new StateWriter(dir, state, files, deps, written);
}

class StateWriter implements FileOutput {
  readonly #stop = new AbortController();
  readonly #unsubscribe: () => void;
  readonly #stopLooking: () => void;
  #wanted: CertContents | undefined;
  #written: CertContents | undefined;
  #names: readonly string[] = [];
  #risk: string | undefined;
  #error: AgentError | undefined;
  #wake: () => void = () => undefined;
  #wait = new AbortController();
  readonly #loop: Promise<void>;

  constructor(
    private readonly dir: string,
    state: Watched<CertState>,
    private readonly files: (contents: CertContents) => OutputFile[],
    private readonly deps: Deps,
    private readonly written: (contents: CertContents) => Promise<void>,
  ) {
    this.#unsubscribe = state.subscribe((state) => this.#see(state));
    this.#stopLooking = everySecond(() => this.#look());
    this.#loop = this.#run();
  }

  status() {
    return {
      dir: this.dir,
      ...(this.#written && { serial: this.#written.svid.serial }),
      ...(this.#error && { error: this.#error.message }),
    };
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    this.#stopLooking();
    this.#stop.abort();
    this.#wait.abort();
    this.#wake();
    await this.#loop;
  }

  #see(state: CertState): void {
    if (state.kind !== 'current' && state.kind !== 'overdue') return;
    this.#wanted = { svid: state.svid, bundle: state.bundle };
    this.#wake();
    this.#wait.abort();
  }

  /** Whoever tidies up (systemd-tmpfiles) may take the files, or their directory. What another program has put there stays. */
  #look(): void {
    if (this.#written === undefined || isPublished(this.dir, this.#names)) return;
    this.#written = undefined;
    this.deps.log.warn('certificate files were removed, rewriting', { dir: this.dir });
    this.#wake();
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#stop.signal.aborted; ) {
      const wanted = this.#wanted;
      if (!wanted || sameContents(wanted, this.#written)) {
        failures = 0;
        await this.#untilChange();
        continue;
      }
      failures = (await this.#write(wanted)) ? 0 : failures + 1;
      if (failures > 0) await this.#pause(wanted, failures);
    }
  }

  async #write(contents: CertContents): Promise<boolean> {
    const { dir } = this;
    const files = this.files(contents);
    try {
      this.#warnOf(await publishDir(dir, files));
      this.#names = files.map(({ name }) => name);
      this.#written = contents;
      this.#error = undefined;
      this.deps.metrics.record('output_writes_total', { outcome: 'ok' });
      this.deps.log.info('certificate files written', { dir, serial: contents.svid.serial });
      await this.written(contents);
      return true;
    } catch (caught) {
      this.#error = AgentError.from(caught, 'ERR_OUTPUT');
      this.deps.metrics.record('output_writes_total', { outcome: this.#error.code });
      return false;
    }
  }

  /** Until it is time to try again, or there is something newer to write. */
  async #pause(tried: CertContents, failures: number): Promise<void> {
    const ms = backoffMs(failures, DEFAULT_BACKOFF, this.deps.random);
    this.deps.log.warn('writing certificate files failed, keeping the previous ones', {
      dir: this.dir,
      attempt: failures,
      retryInSeconds: Math.round(ms / 100) / 10,
      cause: this.#error,
    });
    this.#wait = new AbortController();
    if (this.#stop.signal.aborted || this.#wanted !== tried) return;
    await this.deps.clock
      .sleepUntil(this.deps.clock.now() + ms, this.#wait.signal)
      .catch(() => undefined);
  }

  #untilChange(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Once for each reason. */
  #warnOf(risk: DirectoryRisk | undefined): void {
    const because = risk && `${risk.dir}: ${risk.because}`;
    if (risk && because !== this.#risk)
      this.deps.log.warn('other users can replace the certificate files', {
        dir: this.dir,
        because,
        hint: risk.hint,
      });
    this.#risk = because;
  }
}

/** The three files of an identity, as upstream names them. */
export function certFiles(contents: CertContents, keyFormat: KeyFormat): OutputFile[] {
  return [
    { name: CERT_FILES.certChain, bytes: certificatesPem(contents.svid.chainDer), mode: 0o644 },
    { name: CERT_FILES.rootCert, bytes: certificatesPem(contents.bundle.rootsDer), mode: 0o644 },
    // Last: names are linked one by one the first time, and who finds the key finds what belongs to it.
    { name: CERT_FILES.key, bytes: privateKeyPem(contents.svid.key, keyFormat), mode: 0o600 },
  ];
}

function sameContents(a: CertContents, b: CertContents | undefined): boolean {
  return b !== undefined && a.svid === b.svid && a.bundle.version === b.bundle.version;
}
