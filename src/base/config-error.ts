/** Why a server cannot start: every fault that was found, each with what to do about it. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'StartFaults';
    this.problems = problems;
  }
}
