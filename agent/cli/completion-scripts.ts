import type { Candidates, CompletedCommand, CompletedFlag } from './completion-model';

/**
 * A completion script. All three walk over the words before the cursor to find the command that they belong to, stepping over the values
 * of flags, and then offer what may follow.
 */
export function completionScript(
  shell: 'bash' | 'zsh' | 'fish',
  model: readonly CompletedCommand[],
): string {
  const write = { bash: bashScript, zsh: zshScript, fish: fishScript }[shell];
  return write(model);
}

function bashScript(model: readonly CompletedCommand[]): string {
  return `# Completes keyturn in bash.
_keyturn() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} at=keyturn word skip= words= i
  local IFS=$'\\n'
  # Bash splits --flag=value into three words.
  if [ "$current" = "=" ]; then
    current=
  elif [ "$previous" = "=" ]; then
    previous=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [ -n "$skip" ]; then skip=; continue; fi
    case "$at $word" in
      ${childPaths(model).map(quoted).join('|')}) at="$at $word"; continue ;;
    esac
    case "$word" in
      ${valueFlags(model).join('|')}) skip=1 ;;
    esac
  done
  case "$previous" in
${valueCases(model, bashCandidates, '    ')}
  esac
  case "$at" in
${model.map((each) => `    ${quoted(each.path)})\n${bashCommand(each)}\n      ;;`).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _keyturn keyturn
`;
}

function bashCommand(command: CompletedCommand): string {
  const flags = command.flags.flatMap((flag) =>
    flag.short ? [flag.short, flag.long] : [flag.long],
  );
  const words = command.commands.map((each) => each.name);
  const argument =
    words.length > 0
      ? `words=${quoted(words.join('\n'))}`
      : bashCandidates(command.argument).replace(/; return$/, '; return');
  return `      if [[ "$current" == -* ]]; then\n        words=${quoted(flags.join('\n'))}\n      else\n        ${argument}\n      fi`;
}

function bashCandidates(candidates: Candidates): string {
  switch (candidates.kind) {
    case 'words':
      return `COMPREPLY=($(compgen -W ${quoted(candidates.words.join('\n'))} -- "$current")); return`;
    case 'files':
      return 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")); return';
    case 'directories':
      return 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$current")); return';
    case 'nothing':
      return 'return';
  }
}

function zshScript(model: readonly CompletedCommand[]): string {
  return `#compdef keyturn
# Completes keyturn in zsh.
_keyturn() {
  local current=\${words[CURRENT]} previous=\${words[CURRENT-1]} at=keyturn word skip=
  local -a offered
  if [[ "$current" == --*=* ]]; then
    previous=\${current%%=*}
    compset -P '*='
  fi
  for word in "\${(@)words[2,CURRENT-1]}"; do
    if [[ -n "$skip" ]]; then skip=; continue; fi
    case "$at $word" in
      ${childPaths(model).map(quoted).join('|')}) at="$at $word"; continue ;;
    esac
    case "$word" in
      ${valueFlags(model).join('|')}) skip=1 ;;
    esac
  done
  case "$previous" in
${valueCases(model, zshCandidates, '    ')}
  esac
  case "$at" in
${model.map((each) => `    ${quoted(each.path)})\n${zshCommand(each)}\n      ;;`).join('\n')}
  esac
}
if [ "$funcstack[1]" = _keyturn ]; then
  _keyturn "$@"
else
  compdef _keyturn keyturn
fi
`;
}

function zshCommand(command: CompletedCommand): string {
  const flags = command.flags.map((flag) => described(flag.long, flag.help));
  const offer = (what: string, list: readonly string[]) =>
    `offered=(${list.map(quoted).join(' ')})\n        _describe -t ${what} ${what} offered`;
  const commands = command.commands.map((each) => described(each.name, each.help));
  const argument =
    commands.length > 0 ? offer('commands', commands) : zshCandidates(command.argument);
  return `      if [[ "$current" == -* ]]; then\n        ${offer('flags', flags)}\n      else\n        ${argument}\n      fi`;
}

function zshCandidates(candidates: Candidates): string {
  switch (candidates.kind) {
    case 'words':
      return `compadd -- ${candidates.words.map(quoted).join(' ')}; return`;
    case 'files':
      return '_files; return';
    case 'directories':
      return '_files -/; return';
    case 'nothing':
      return 'return';
  }
}

function fishScript(model: readonly CompletedCommand[]): string {
  return `# Completes keyturn in fish.
function __keyturn_at
    set -l at keyturn
    set -l skip
    for word in (commandline -opc)[2..-1]
        if test -n "$skip"
            set skip
            continue
        end
        switch "$at $word"
            case ${childPaths(model).map(quoted).join(' ')}
                set at "$at $word"
                continue
        end
        switch "$word"
            case ${valueFlags(model).map(quoted).join(' ')}
                set skip 1
        end
    end
    test "$at" = "$argv[1]"
end
complete -c keyturn -f
${model.flatMap(fishCommand).join('\n')}
`;
}

function fishCommand(command: CompletedCommand): string[] {
  const here = `complete -c keyturn -n ${quoted(`__keyturn_at "${command.path}"`)}`;
  const argument = fishCandidates(command.argument);
  return [
    ...command.commands.map((each) => `${here} -a ${each.name} -d ${quoted(each.help)}`),
    ...command.flags.map((flag) => `${here}${fishFlag(flag)} -d ${quoted(flag.help)}`),
    ...(command.argument.kind === 'nothing' ? [] : [`${here} ${argument.replace(/^-[rx] /, '')}`]),
  ];
}

function fishFlag(flag: CompletedFlag): string {
  const short = flag.short ? ` -s ${flag.short.slice(1)}` : '';
  return `${short} -l ${flag.long.slice(2)}${flag.value ? ` ${fishCandidates(flag.value)}` : ''}`;
}

function fishCandidates(candidates: Candidates): string {
  switch (candidates.kind) {
    case 'words':
      return `-x -a ${quoted(candidates.words.join(' '))}`;
    case 'files':
      return '-r -F';
    case 'directories':
      return "-x -a '(__fish_complete_directories)'";
    case 'nothing':
      return '-x';
  }
}

/** `keyturn secret get` and every other path that one more word can lead to. */
function childPaths(model: readonly CompletedCommand[]): string[] {
  return model.slice(1).map((each) => each.path);
}

/** Flags that are followed by a value, in all commands: none of them takes a value here and none there. */
function valueFlags(model: readonly CompletedCommand[]): string[] {
  return [...flagsWithValues(model).keys()];
}

function flagsWithValues(model: readonly CompletedCommand[]): Map<string, Candidates> {
  const found = new Map<string, Candidates>();
  for (const flag of model.flatMap((each) => each.flags)) {
    if (flag.value === undefined) continue;
    for (const name of flag.short ? [flag.short, flag.long] : [flag.long])
      found.set(name, flag.value);
  }
  return found;
}

/** `--a|--b) what to do ;;` for each kind of value. */
function valueCases(
  model: readonly CompletedCommand[],
  write: (candidates: Candidates) => string,
  indent: string,
): string {
  const byAction = new Map<string, string[]>();
  for (const [name, candidates] of flagsWithValues(model)) {
    const action = write(candidates);
    byAction.set(action, [...(byAction.get(action) ?? []), name]);
  }
  return [...byAction]
    .map(([action, names]) => `${indent}${names.join('|')}) ${action} ;;`)
    .join('\n');
}

/** zsh separates a word from its description by a colon. */
function described(word: string, help: string): string {
  return `${word}:${help.replaceAll(':', ' ')}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
