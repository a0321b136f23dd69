import { AgentError, invalid, oneError } from '../base/errors';
import { openYamlStream, type YamlDocument, type YamlStream } from '../base/yaml';
import { BlockWriter } from './block-writer';
import { isSameValue, type Path } from './changes';
import { findObjects, type ManifestObject, valueAt } from './find-pods';
import { fieldName } from './findings';
import { injectPod, removeFromPod } from './inject-pod';
import type { InjectOptions } from './options';
import { editText, yamlEdits } from './yaml-edit';
import type { TextEdit } from './yaml-places';
import { YamlPlaces } from './yaml-places';
import { TEMPLATE_HINT, yamlValue } from './yaml-value';

/** Charts with all their resource definitions fit. What is written is held to the same, so that it can be read again. */
export const MAX_MANIFEST_BYTES = 16 << 20;
const MAX_TOKENS = 4_000_000;

/** A manifest with the agent in it. */
export interface InjectedManifest {
  /** The whole text. Where nothing was to be changed, to the octet what was given. */
  readonly text: string;
  /** One for each object, in order. */
  readonly reports: readonly ObjectReport[];
}

/** What became of one object. */
export interface ObjectReport {
  /** `document 2, Deployment shop/cart`. */
  readonly object: string;
  readonly outcome: 'injected' | 'removed' | 'unchanged' | 'left-alone' | 'no-pod';
  /** What a person should know, e.g. `spec.template.spec.hostPID: is true: ...`. */
  readonly notes: readonly string[];
}

/**
 * Puts the agent into every pod that a YAML or JSON text of Kubernetes objects describes; what describes none stays as it is. All or
 * nothing: one object that cannot be injected refuses the text.
 *
 * @param options     What to put in, or `remove`: to take everything out that was put in before.
 * @param name        How errors call it, e.g. `app.yaml`; a line is added as `app.yaml:12`.
 * @param onProgress  Called now and then with how much has been done, in [0, 1].
 * @throws            AgentError ERR_MANIFEST naming file, line, document and field; several problems are one error whose cause is an
 *                    AggregateError.
 */
export async function injectManifest(
  bytes: Uint8Array,
  name: string,
  options: InjectOptions | 'remove',
  onProgress?: (share: number) => void,
): Promise<InjectedManifest> {
  // Each line that is added stands after an end of line, also at the end of a text without one.
  const isEnded = bytes.length === 0 || bytes.at(-1) === 0x0a;
  const given = isEnded ? bytes : Buffer.concat([bytes, Buffer.from('\n')]);
  const stream = await open(given, name, true, (share) => onProgress?.(share * READING));
  const problems: AgentError[] = [];
  const blocks = new BlockWriter(stream.yaml);
  const plans = Array.from(stream.documents, (document, index) =>
    plan(document, index, stream, { options, problems, blocks }),
  );
  if (problems.length > 0) throw manifestError(problems);
  const edits = plans.flatMap((each) => each.edits);
  const text = editText(stream.text, edits);
  if (edits.length > 0)
    await check(text, name, plans, (share) => onProgress?.(READING + share * (1 - READING)));
  return {
    text: isEnded ? text : text.replace(/\r?\n$/, ''),
    reports: plans.flatMap(({ reports }) => reports),
  };
}

/** How much of the time the first reading takes; the text that is looked at afterwards is some times as large. */
const READING = 0.25;

/** What all objects are judged with. */
interface Judging {
  readonly options: InjectOptions | 'remove';
  readonly problems: AgentError[];
  readonly blocks: BlockWriter;
}

/** What becomes of one document. */
interface Plan {
  readonly edits: readonly TextEdit[];
  readonly after: unknown;
  readonly reports: readonly ObjectReport[];
}

interface Draft {
  after: unknown;
  readonly edits: TextEdit[];
  readonly reports: ObjectReport[];
}

function open(
  bytes: Uint8Array,
  name: string,
  keepsSigns: boolean,
  onProgress: (share: number) => void,
): Promise<YamlStream> {
  return openYamlStream(bytes, {
    name,
    code: 'ERR_MANIFEST',
    maxBytes: MAX_MANIFEST_BYTES,
    maxTokens: MAX_TOKENS,
    hint: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes('{{')
      ? TEMPLATE_HINT
      : undefined,
    keepsSigns,
    onProgress,
  });
}

function plan(document: YamlDocument, index: number, stream: YamlStream, judging: Judging): Plan {
  const draft: Draft = { after: yamlValue(document, stream), edits: [], reports: [] };
  const places = new YamlPlaces(document, stream, `document ${index + 1}`);
  for (const found of findObjects(draft.after)) {
    if ('rule' in found) judging.problems.push(places.refusal(found.path, found.rule));
    else
      injectObject(
        found,
        draft,
        new YamlPlaces(document, stream, `${places.title}, ${found.title}`),
        judging,
      );
  }
  return draft;
}

function injectObject(
  { pod, unknownTemplate }: ManifestObject,
  draft: Draft,
  places: YamlPlaces,
  { options, problems, blocks }: Judging,
): void {
  const report = (outcome: ObjectReport['outcome'], notes: readonly string[] = []) =>
    draft.reports.push({ object: places.title, outcome, notes });
  if (pod === undefined) {
    report('no-pod', unknownTemplate ? [`${fieldName(unknownTemplate)}: ${UNKNOWN_TEMPLATE}`] : []);
    return;
  }
  const template = valueAt(draft.after, pod);
  const injection = options === 'remove' ? removeFromPod(template) : injectPod(template, options);
  switch (injection.kind) {
    case 'left-alone':
      report('left-alone');
      return;
    case 'refused':
      for (const { path, rule, hint } of injection.problems)
        problems.push(places.refusal([...pod, ...path], rule, hint));
      return;
    case 'injected': {
      const notes = injection.notes.map(
        ({ path, rule }) => `${fieldName([...pod, ...path])}: ${rule}`,
      );
      report(
        injection.changes.length === 0
          ? 'unchanged'
          : options === 'remove'
            ? 'removed'
            : 'injected',
        notes,
      );
      const changes = injection.changes.map((change) => ({
        ...change,
        path: [...pod, ...change.path],
      }));
      try {
        draft.edits.push(...yamlEdits(places, changes, blocks));
      } catch (caught) {
        problems.push(AgentError.from(caught));
      }
      replaceAt(draft, pod, injection.after);
    }
  }
}

const UNKNOWN_TEMPLATE = 'looks like that of pods; keyturn webhook injects them at admission';

/** Puts another value at a path that exists. In place: copies of a list of thousands would take time square in them. */
function replaceAt(draft: Draft, path: Path, replacement: unknown): void {
  const last = path.at(-1);
  if (last === undefined) draft.after = replacement;
  else
    (valueAt(draft.after, path.slice(0, -1)) as Record<string | number, unknown>)[last] =
      replacement;
}

/** The text must say what was decided, and nothing else: an anchor that others use, say, would have carried a change to them. */
async function check(
  text: string,
  name: string,
  plans: readonly Plan[],
  onProgress: (share: number) => void,
): Promise<void> {
  const stream = await open(Buffer.from(text), `${name}, with the agent in it`, false, onProgress);
  let index = 0;
  for (const document of stream.documents) {
    const plan = plans[index];
    index += 1;
    if (!plan || !isSameValue(yamlValue(document, stream), plan.after))
      throw unsafe(`${name} document ${index}`);
  }
  if (index !== plans.length) throw unsafe(name);
}

function unsafe(field: string): AgentError {
  return invalid(
    'ERR_MANIFEST',
    field,
    'is written in a way that cannot be added to without changing more than the pods',
    {
      hint: 'write out anchors that several pods share, and long keys (? key)',
    },
  );
}

/** All that is wrong with a manifest, at least one problem. */
export function manifestError(problems: readonly AgentError[]): AgentError {
  const all = problems.map(({ message }) => message).join('; ');
  return oneError(
    'ERR_MANIFEST',
    problems,
    `manifest: ${problems.length} fields are wrong: ${all}`,
  );
}
